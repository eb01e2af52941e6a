"""What an inspection keeps of a joint: a row of the tables and the report's picture."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import torch

from solder_vae.evaluation.joint_report import overlay, strip
from solder_vae.evaluation.looks import Looks, looks_of
from solder_vae.inspection.inspector import Inspector, Unreadable, Verdict
from solder_vae.inspection.joints import BATCH, Joint
from solder_vae.utils.errors import UserError
from solder_vae.utils.processes import end_with_parent, ignore_interrupts, share_of_threads
from solder_vae.utils.threads import in_order

Row = tuple[dict[str, Any], Looks, Callable[[], dict[str, Any]]] | Unreadable
"""A joint's verdict as a row, how its picture looks, and what draws the report's (few are shown); or why there is none.
"""


def inspect_rows(inspector: Inspector, joints: Iterable[Joint]) -> Iterator[Row]:
    """Inspect joints one by one, see :meth:`Inspector.inspect`."""
    for result in inspector.inspect(joints):
        if isinstance(result, Unreadable):
            yield result
        else:
            yield result.row, looks_of(result.image, result.native_size), partial(picture, result)


def picture(verdict: Verdict) -> dict[str, Any]:
    """Joint, reconstruction (of a model that has one) and anomaly map beside each other, as base64 of a JPEG image.

    Beside an abnormal joint come the good joint and the known defect that it is nearest to, and what these are.
    """
    recon = [] if verdict.recon is None else [verdict.recon]
    near = [each.picture.numpy() for each in verdict.near]
    drawn = strip([verdict.image, *recon, overlay(verdict.image, verdict.heat_map), *near])
    return {"picture": drawn, **({"near": [each.caption for each in verdict.near]} if near else {})}


AHEAD = 4  # batches that each process gets in advance


def inspect_on_processes(inspector: Inspector, joints: Iterable[Joint], processes: int) -> Iterator[Row]:
    """The same as :func:`~solder_vae.inspection.predictions.inspect_rows`, by several processes.

    Each has a share of the threads. The batches are the same as with one process, and so are the scores. On GPUs, each
    process has a GPU of its own.

    Raises:
        UserError: a process was killed, or a score is not a number.
    """
    spawn = multiprocessing.get_context("spawn")
    numbers = spawn.SimpleQueue()
    for number in range(processes):
        numbers.put(number)
    gpu = inspector.model.device.type == "cuda"
    folder = tempfile.TemporaryDirectory(prefix="solder_vae_")
    # By a file: as an argument, the tensors would be moved to shared memory, and each process would have to
    # take it in, after its imports, before the next one starts.
    model = Path(folder.name) / "model"
    model.write_bytes(pickle.dumps(inspector.model.cpu()))
    settings = (model, gpu, share_of_threads(processes), numbers)
    executor = ProcessPoolExecutor(processes, mp_context=spawn, initializer=prepare, initargs=settings)
    try:
        with ignore_interrupts():
            for _ in range(processes):
                executor.submit(os.getpid)  # starts a process
        yield from in_order(executor, inspect_batch, joints, BATCH, AHEAD * processes)
    except BrokenProcessPool as error:
        raise UserError(
            "A process that inspects was killed, most likely for want of memory: use fewer processes=..."
        ) from error
    finally:
        folder.cleanup()


_inspector: Inspector | None = None


def prepare(model: Path, gpu: bool, threads: int, numbers: Any) -> None:
    """Make this process's inspector."""
    global _inspector
    end_with_parent()
    torch.set_num_threads(threads)
    number = numbers.get()
    _inspector = Inspector(pickle.loads(model.read_bytes()))
    if gpu:
        _inspector.model.to(f"cuda:{number % torch.cuda.device_count()}")


def inspect_batch(joints: list[Joint]) -> list[Row]:
    assert _inspector is not None
    return [drawn(row) for row in inspect_rows(_inspector, joints)]


def drawn(row: Row) -> Row:
    """The row with its picture drawn already: several processes draw, and a picture is smaller than its arrays."""
    return row if isinstance(row, Unreadable) else (*row[:2], partial(dict, row[2]()))
