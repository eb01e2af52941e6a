"""Milliseconds to a decision, PyTorch and ONNX Runtime: ``python -m benchmarks.latency checkpoint=PATH [threads=1]``.

Both start from prepared uint8 images and end with decisions.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solder_vae.data.image_files import Image
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.onnx.export import check_installed, write_onnx
from solder_vae.inspection.onnx.parity import load_onnx
from solder_vae.utils.cli import command, parse


@dataclass(frozen=True)
class Options:
    checkpoint: str
    threads: int = 1


def run(arguments: list[str]) -> int:
    options = parse(Options, arguments, __doc__ or "")
    check_installed()
    torch.set_num_threads(options.threads)
    inspector = Inspector.load(options.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(inspector, Path(folder) / "graph.onnx")
        graph = load_onnx(Path(folder) / "graph.onnx", options.threads)
    print(f"Milliseconds a batch ({options.threads} threads)     PyTorch   ONNX Runtime")
    for size in (1, 64):
        images = np.zeros((size, inspector.image_size, inspector.image_size, 3), np.uint8)
        images[:] = np.random.default_rng(0).integers(0, 256, images.shape[1:], np.uint8)
        torch_ms, onnx_ms = (milliseconds(work, images) for work in (inspector.score, graph))
        print(f"batch of {size:<4} {torch_ms:34.1f} {onnx_ms:14.1f}")
    return 0


def milliseconds(work: Callable[[Image], Any], images: Image, seconds: float = 1.0) -> float:
    """The shortest of at least three runs, after one to warm up."""
    work(images)
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        started = time.perf_counter()
        work(images)
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


if __name__ == "__main__":
    command(run)
