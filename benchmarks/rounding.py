"""``python -m benchmarks.rounding``: how far the same training drifts when nothing but the order of sums changes.

50 steps of 64 images in single precision, as ``solder_vae.train`` runs them: with one thread, with two, and in two
processes of one thread each. Prints how far the weights lie apart afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from solder_vae.checkpoint import read_checkpoint

COMMON = (
    "model=cae", "score=recon", "trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "data.train=640", "trainer.max_epochs=5", "logger.mode=disabled", "pictures=false",
)  # fmt: skip
RUNS = {"one thread": (1, 1), "two threads": (1, 2), "two processes": (2, 1)}  # processes, threads of each


def trained(folder: Path, processes: int, threads: int) -> torch.Tensor:
    """All weights, flat, after the training."""
    command = [sys.executable, "-m", "solder_vae.train", *COMMON, f"trainer.devices={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([*command, f"hydra.run.dir={folder}"], env=environment, check=True, stdout=subprocess.DEVNULL)
    checkpoint = read_checkpoint(folder / "last.ckpt")
    assert checkpoint["global_step"] == 50
    names = [name for name in checkpoint["state_dict"] if name.endswith(("weight", "bias"))]
    return torch.cat([checkpoint["state_dict"][name].double().flatten() for name in names])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights = {name: trained(Path(folder, str(number)), *RUNS[name]) for number, name in enumerate(RUNS)}
    one = weights["one thread"]
    for name, other in list(weights.items())[1:]:
        largest, relative = (other - one).abs().max(), (other - one).norm() / one.norm()
        print(f"one thread and {name}: the weights differ by {largest:.1e} at most, {relative:.1e} of their norm")


if __name__ == "__main__":
    main()
