"""Files to verdicts a second: ``python -m benchmarks.inspection checkpoint=PATH images=DIR [threads=2]``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice

import torch

from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.joints import find_joints, read_ahead
from solder_vae.models.losses import squared_error
from solder_vae.utils.cli import command, parse

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
    inspector = Inspector.load(options.checkpoint)
    inspector.share_out(options.threads)
    joints = list(islice(cycle(find_joints(options.images)), FILES))
    times, processor = [], []
    for _ in range(REPEATS):
        started, used = time.perf_counter(), time.process_time()
        for _ in inspector.inspect(joints):
            pass
        times.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    reading = processor_time(lambda: list(read_ahead(joints, inspector.image_size, inspector.view, inspector.crop)))
    x = torch.rand(32, 3, inspector.image_size, inspector.image_size).to(memory_format=torch.channels_last)
    with torch.no_grad():
        recon = processor_time(lambda: [squared_error(x, inspector.model(x)) for _ in range(FILES // 32)])
    print(
        f"{FILES / min(times):.0f} files a second with {options.threads} threads, "
        f"{1000 * min(processor) / FILES:.2f} ms of processor time each (model {inspector.model.name}, "
        f"all scores, {inspector.image_size} px)\n"
        f"of it reading, decoding and preparing {reading:.2f} ms; the recon score alone would take {recon:.2f} ms"
    )
    return 0


def processor_time(work: Callable[[], object]) -> float:
    """Milliseconds of processor time for each of the files, the best of a few repeats."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return 1000 * min(times) / FILES


if __name__ == "__main__":
    command(run)
