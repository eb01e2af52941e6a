"""What machine it was, and what follows from the figures."""

from __future__ import annotations

import os
import platform
import sys

from benchmarks.gpu.part import ALPHAS, Found, Part, gpu_query


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
    """Ensembles beside processes, and what follows."""
    results = part.results()
    verdicts: Found = {}
    for alpha in ALPHAS:
        end = f", alpha = {alpha:g}"
        together, apart = (
            {
                name.removesuffix(end): value["trainings_per_hour"]
                for name, value in results.get(key, {}).items()
                if name.endswith(end)
            }
            for key in ("ensemble", "processes")
        )
        for name, rate in together.items():
            print(f"{f'ensemble, {name}{end}':36} {rate:8.1f} runs an hour")
        for name, rate in apart.items():
            print(f"{f'processes, {name}{end}':36} {rate:8.1f} runs an hour")
        if together and apart:
            best, side = max(together, key=together.__getitem__), max(apart, key=apart.__getitem__)
            ratio = together[best] / apart[side]
            print(f"best ensemble ({best}) over best processes ({side}){end}: {ratio:.2f}; it stays from 2 on")
            verdicts[f"best over best{end}"] = ratio
        for name in together:
            if (count := name.removeprefix("K = ")) in apart:
                verdicts[f"{name} over {count} processes{end}"] = together[name] / apart[count]
    part.add("summary", verdicts)
    wrong = [name for name, check in results.get("checks", {}).items() if not check["good"]]
    print(f"wrong of {len(results.get('checks', {}))} checks: {', '.join(wrong) or 'none'}")
    if hours := results.get("runs", {}).get("hours_for_scale_paper"):
        print(f"scale=paper: {hours:.1f} hours")
