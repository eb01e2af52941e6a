"""What machine it was, and what follows from the figures."""

from __future__ import annotations

import os
import platform
import sys

from benchmarks.gpu.part import ALPHAS, Part, gpu_query


def facts(part: Part) -> None:
    """What machine this is."""
    import torch

    if part.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU is there: DEVICE=cpu bash benchmarks/gpu.sh --quick tries the script without one")
    found = {
        "device": torch.cuda.get_device_name() if part.device == "cuda" else "cpu: no GPU was measured",
        "driver": gpu_query("driver_version"),
        "memory": gpu_query("memory.total"),
        "quick": part.quick,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_in_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_in_products": torch.backends.cuda.matmul.allow_tf32,
    }
    for name, value in found.items():
        print(f"{name:22} {value}")
    part.add("facts", found)


def summary(part: Part) -> None:
    """Processes side by side, the checks, and how long scale=paper would take."""
    results = part.results()
    rates = {name: value["trainings_per_hour"] for name, value in results.get("processes", {}).items()}
    for name, rate in rates.items():
        print(f"{f'processes, {name}':36} {rate:8.1f} runs an hour")
    part.add(
        "summary",
        {
            f"most runs an hour{end}": max((rate for name, rate in rates.items() if name.endswith(end)), default=None)
            for end in (f", alpha = {alpha:g}" for alpha in ALPHAS)
        },
    )
    wrong = [name for name, check in results.get("checks", {}).items() if not check["good"]]
    print(f"wrong of {len(results.get('checks', {}))} checks: {', '.join(wrong) or 'none'}")
    if hours := results.get("runs", {}).get("hours_for_scale_paper"):
        print(f"scale=paper: {hours:.1f} hours")
