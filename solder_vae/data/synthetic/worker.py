"""Rendering many images: in this process, or shared among several.

A worker is a plain ``python -m solder_vae.data.synthetic.worker``: it inherits neither threads nor locks nor the
parent's main module, so it is safe after torch has started and needs no ``__main__`` guard in the caller.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2

from solder_vae.data.synthetic.render import Rendered, render

Job = tuple[str, int, str]  # stream, index, defect

_WORTH_PROCESSES = 200  # fewer images are rendered before the workers have started
_NEWS = 20  # images between two reports of a worker


@dataclass(frozen=True)
class Order:
    """What to render: the set's seed, the range of severities, and which images."""

    seed: int
    severity: tuple[float, float]
    jobs: Sequence[Job]


def render_here(order: Order, advance: Callable[[int], None]) -> list[Rendered]:
    """Render in this process; ``advance`` is told the number of images done since its last call."""
    joints = []
    for stream, index, defect in order.jobs:
        joints.append(render(order.seed, stream, index, defect, order.severity))
        advance(1)
    return joints


def render_many(order: Order, workers: int, advance: Callable[[int], None]) -> list[Rendered]:
    """Render with up to ``workers`` processes; the result does not depend on how many.

    Raises:
        RuntimeError: a worker failed; the message has its last output.
    """
    workers = min(workers, len(order.jobs) // (_WORTH_PROCESSES // 2))
    if workers < 2:
        return render_here(order, advance)
    shares = [Order(order.seed, order.severity, order.jobs[part::workers]) for part in range(workers)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        results = [
            pool.submit(_render_elsewhere, share, Path(folder) / str(part), advance)
            for part, share in enumerate(shares)
        ]
        parts = [result.result() for result in results]
    return [parts[number % workers][number // workers] for number in range(len(order.jobs))]


def _render_elsewhere(order: Order, result: Path, advance: Callable[[int], None]) -> list[Rendered]:
    package_root = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryFile() as errors, subprocess.Popen(
        [sys.executable, "-m", "solder_vae.data.synthetic.worker", str(result)],
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
    joints: list[Rendered] = pickle.loads(result.read_bytes())  # written by our own process, in our own folder
    return joints


def main() -> None:
    """Read an order from stdin, write the joints to the file named, report on stdout every few images."""
    cv2.setNumThreads(1)
    order = Order(**json.load(sys.stdin))
    waiting = 0

    def advance(count: int) -> None:
        nonlocal waiting
        waiting += count
        if waiting >= _NEWS:
            print(waiting, flush=True)
            waiting = 0

    joints = render_here(order, advance)
    Path(sys.argv[1]).write_bytes(pickle.dumps(joints))
    print(waiting, flush=True)


if __name__ == "__main__":
    main()
