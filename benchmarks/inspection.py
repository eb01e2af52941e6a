"""Files to verdicts a second: ``python -m benchmarks.inspection checkpoint=PATH images=DIR [threads=2]``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import cycle, islice

import torch

from solder_vae.cli import command, parse
from solder_vae.inspection import find_joints
from solder_vae.inspector import Inspector

FILES = 512
REPEATS = 5


@dataclass(frozen=True)
class Options:
    checkpoint: str
    images: str
    threads: int = 2


def run(arguments: list[str]) -> int:
    """Time reading, decoding, preparing and scoring together; the best of a few repeats, as others may be at work."""
    options = parse(Options, arguments, __doc__ or "")
    torch.set_num_threads(options.threads)
    inspector = Inspector.load(options.checkpoint)
    joints = list(islice(cycle(find_joints(options.images)), FILES))
    times, processor = [], []
    for _ in range(REPEATS):
        started, used = time.perf_counter(), time.process_time()
        for _ in inspector.inspect(joints):
            pass
        times.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    print(
        f"{FILES / min(times):.0f} files a second with {options.threads} threads, "
        f"{1000 * min(processor) / FILES:.2f} ms of processor time each (model {inspector.model.name}, "
        f"all scores, {inspector.image_size} px)"
    )
    return 0


if __name__ == "__main__":
    command(run)
