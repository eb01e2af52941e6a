"""``python -m benchmarks.rounding``: how far the same training drifts when nothing but the order of sums changes.

50 steps of 64 images, as ``solder_vae.train`` runs them: with one thread, with two, and in two processes of one thread
each; in single precision and reproducibly. Prints how far the weights lie apart afterwards, and how long an epoch took.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from solder_vae.models.checkpoint import read_checkpoint
from solder_vae.models.precision import FULL, REPRODUCIBLE

COMMON = (
    "model=cae", "score=recon", "trainer=ddp", "trainer.accelerator=cpu", "data.train=640", "trainer.max_epochs=5",
    "logger.mode=disabled", "pictures=false",
)  # fmt: skip
RUNS = {"one thread": (1, 1), "two threads": (1, 2), "two processes": (2, 1)}  # processes, threads of each


def trained(folder: Path, precision: str, processes: int, threads: int) -> tuple[torch.Tensor, float]:
    """All weights, flat, after the training; and the median seconds of an epoch."""
    options = [f"trainer.precision={precision}", f"trainer.devices={processes}", f"hydra.run.dir={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "solder_vae.train", *COMMON, *options]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = read_checkpoint(folder / "last.ckpt")
    assert checkpoint["global_step"] == 50
    names = [name for name in checkpoint["state_dict"] if name.endswith(("weight", "bias"))]
    seconds = re.findall(r"epoch \d+/5 .* ([\d.]+) s$", (folder / "train.log").read_text(), re.MULTILINE)
    weights = torch.cat([checkpoint["state_dict"][name].double().flatten() for name in names])
    return weights, statistics.median(map(float, seconds))


def main() -> None:
    for precision in (FULL, REPRODUCIBLE):
        print(f"{precision}\n{'':15}{'s an epoch':>12}{'largest difference':>20}{'norm of it':>12}")
        with tempfile.TemporaryDirectory() as folder:
            one = None
            for number, (name, (processes, threads)) in enumerate(RUNS.items()):
                weights, seconds = trained(Path(folder, str(number)), precision, processes, threads)
                one = weights if one is None else one
                largest, norm = (weights - one).abs().max(), (weights - one).norm() / one.norm()
                print(f"{name:15}{seconds:12.1f}{largest:20.1e}{norm:12.1e}")


if __name__ == "__main__":
    main()
