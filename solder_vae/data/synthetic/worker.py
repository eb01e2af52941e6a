"""Rendering many images: here, or shared out among processes.

A worker is a plain ``python -m solder_vae.data.synthetic.worker``: it inherits neither threads nor locks nor the
parent's main module, so it is safe after torch has started and needs no ``__main__`` guard in the caller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.synthetic.render import render
from solder_vae.data.transforms import prepare, prepare_mask

Arrays = dict[str, NDArray[np.generic]]
Job = tuple[str, int, str]  # stream, index, defect

_WORTH_PROCESSES = 200  # fewer images are rendered before the workers have started


@dataclass(frozen=True)
class Order:
    """What to render: the set's seed, the severity range, the side of the squares, and which images."""

    seed: int
    severity: tuple[float, float]
    image_size: int
    jobs: Sequence[Job]


def render_here(order: Order, advance: Callable[[int], None]) -> Arrays:
    """Render in this process.

    Args:
        order: what to render.
        advance: told the number of images done since the last call.

    Returns:
        ``images`` (N, S, S, 3) uint8, ``masks`` (N, S, S) bool, ``native_size`` (N, 2) int64, and one array (N,) for
        each factor, named ``factor/NAME``.
    """
    images, masks, sizes, factors = [], [], [], []
    for stream, index, defect in order.jobs:
        done = render(order.seed, stream, index, defect, order.severity)
        images.append(prepare(done.image, order.image_size))
        masks.append(prepare_mask(done.mask, order.image_size))
        sizes.append(done.image.shape[:2])
        factors.append(done.factors)
        advance(1)
    arrays: Arrays = {
        "images": np.stack(images),
        "masks": np.stack(masks).astype(bool),
        "native_size": np.array(sizes, dtype=np.int64),
    }
    arrays |= {f"factor/{name}": np.array([row[name] for row in factors]) for name in factors[0]}
    return arrays


def render_many(order: Order, workers: int, advance: Callable[[int], None]) -> Arrays:
    """Render with up to ``workers`` processes; the result does not depend on how many.

    Raises:
        RuntimeError: a worker failed; the message carries its last words.
    """
    workers = min(workers, len(order.jobs) // (_WORTH_PROCESSES // 2))
    if workers < 2:
        return render_here(order, advance)
    shares = [Order(order.seed, order.severity, order.image_size, order.jobs[part::workers]) for part in range(workers)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        results = [
            pool.submit(_render_elsewhere, share, Path(folder) / f"{part}.npz", advance)
            for part, share in enumerate(shares)
        ]
        parts = [result.result() for result in results]
    return {name: _interleave([part[name] for part in parts]) for name in parts[0]}


def _interleave(parts: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Put shares ``[k::n]`` back in order."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    whole = np.empty(shape, np.result_type(*parts))
    for part, values in enumerate(parts):
        whole[part :: len(parts)] = values
    return whole


def _render_elsewhere(order: Order, result: Path, advance: Callable[[int], None]) -> Arrays:
    package_root = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryFile() as errors, subprocess.Popen(
        [sys.executable, "-m", __name__, str(result)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(vars(order)))
            process.stdin.close()
            for line in process.stdout:
                advance(int(line))
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            errors.seek(0)
            words = errors.read().decode(errors="replace").strip()[-2000:]
            raise RuntimeError(f"a rendering process ended with status {process.returncode}: {words}")
    with np.load(result, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def main() -> None:
    """Read an order from stdin, write the arrays to the file named, report on stdout every few images."""
    cv2.setNumThreads(1)
    order = Order(**json.load(sys.stdin))
    waiting = 0

    def advance(count: int) -> None:
        nonlocal waiting
        waiting += count
        if waiting >= 20:
            print(waiting, flush=True)
            waiting = 0

    arrays = render_here(order, advance)
    np.savez(sys.argv[1], allow_pickle=False, **arrays)
    print(waiting, flush=True)


if __name__ == "__main__":
    main()
