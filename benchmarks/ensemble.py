"""``python -m benchmarks.ensemble``: runs an hour when K of them are one vectorised network.

A run is what ``make train`` does without the constraint: 20 epochs of 2513 images in batches of 64, each followed
by 567 validation images. Steps of both kinds are timed, each K in a process of its own, on the GPU if there is one,
else with all of the CPU's threads; the ordinary run stands beside them. Adds to ``benchmarks/results.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.bench import BATCH, HERE, bare_step, peak_megabytes, random_images
from solder_vae.data.transforms import to_tensor
from solder_vae.models.vae import BetaVAE
from solder_vae.training.ensemble import Ensemble
from solder_vae.utils.files import atomic_file

SIZES = (1, 8, 50)
STEPS, VALIDATION_STEPS = 20 * 40, 20 * 9
REPETITIONS = 3


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Median time of a call, after one to warm up."""
    times = []
    for _ in range(REPETITIONS + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def measure(members: int) -> dict[str, float]:
    """Times of K members' steps; 0 stands for one ordinary model, as a run of its own trains it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = to_tensor(random_images(BATCH)).to(device)
    if members == 0:
        model = BetaVAE().to(device)
        train = bare_step(model)
        train_s = seconds(lambda: train(x), device)
        model.eval()
        with torch.no_grad():
            val_s = seconds(lambda: model.loss_terms(x, model.noise(x, 1, 0)), device)
    else:
        ensemble = Ensemble([BetaVAE(seed=seed) for seed in range(members)], device)
        train_s = seconds(lambda: ensemble.train_step(x), device)
        val_s = seconds(lambda: ensemble.validation_terms(x, 0), device)
    memory = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else peak_megabytes()
    training = STEPS * train_s + VALIDATION_STEPS * val_s
    return {
        "members": members,
        "train_step_s": train_s,
        "validation_step_s": val_s,
        "peak_mb": memory,
        "trainings_per_hour": 3600 * max(members, 1) / training,
    }


def in_process(members: int) -> dict[str, float]:
    """:func:`measure` in a new process."""
    code = f"import json; from benchmarks.ensemble import measure; print(json.dumps(measure({members})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(f"on {gpu or f'{torch.get_num_threads()} CPU threads; no GPU was measured'}")
    rows = []
    for members in (0, *SIZES):
        rows.append(row := in_process(members))
        name = f"K = {members}" if members else "ordinary run"
        print(
            f"{name:12}  step {1000 * row['train_step_s']:8.0f} ms   peak memory {row['peak_mb'] / 1000:5.1f} GB   "
            f"{row['trainings_per_hour']:7.2f} runs an hour",
            flush=True,
        )
    path = HERE / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results["ensemble"] = {
        "command": "python -m benchmarks.ensemble",
        "device": gpu or f"{torch.get_num_threads()} threads of {platform.machine()}; no GPU was measured",
        "rows": rows,
    }
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
