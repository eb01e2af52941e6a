"""Long sequences, item by item, in bounded memory: work done in threads a little ahead, and a progress bar."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn

S = TypeVar("S")
T = TypeVar("T")

_TOGETHER = 8  # items a task, as handing over a task costs a third of decoding a small image
_AHEAD = 12  # tasks begun before their results are asked for


def in_threads(
    work: Callable[[S], T],
    items: Iterable[S],
    threads: int | None = None,
    together: int = _TOGETHER,
    ahead: int = _AHEAD,
) -> Iterator[T]:
    """``work`` of each item, in their order, done in threads some hundred items ahead of the caller.

    Args:
        work: what is done.
        items: what it is done to; they are taken in the caller's thread.
        threads: how many; by default one for each core, eight at most.
        together: how many items a thread takes at once.
        ahead: how many such parts are begun before their results are asked for.

    joblib's generator is as fast, but goes on to the last item even if the caller has stopped.
    """
    begun: list[int] = []
    pool = ThreadPoolExecutor(
        threads or min(8, os.cpu_count() or 1),
        thread_name_prefix="ahead",
        initializer=lambda: begun.append(threading.get_native_id()),
    )
    try:
        yield from in_order(pool, lambda part: [work(item) for item in part], items, together, ahead)
    finally:
        _wait_until_gone(begun)


def in_order(
    pool: Executor, work: Callable[[list[S]], list[T]], items: Iterable[S], together: int, ahead: int
) -> Iterator[T]:
    """The results of ``work`` on parts of the items, in their order; see :func:`in_threads`. Ends the pool."""
    source = iter(items)
    pending: deque[Future[list[T]]] = deque()

    def submit() -> None:
        if part := list(islice(source, together)):
            pending.append(pool.submit(work, part))

    try:
        for _ in range(ahead):
            submit()
        while pending:
            results = pending.popleft().result()
            submit()
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C the rest is dropped


def _wait_until_gone(threads: Iterable[int], seconds: float = 1) -> None:
    """Wait until the system has ended these threads of ours, at most so long; Linux alone tells.

    Python's join returns a little earlier: OpenCV still gives back what it kept for the thread, and holds its lock.
    A process forked then, such as a loader's worker, would have that lock locked for ever.
    """
    end = time.monotonic() + seconds
    tasks = Path("/proc/self/task")
    while any((tasks / str(thread)).exists() for thread in threads) and time.monotonic() < end:
        time.sleep(1e-4)


def tracked(results: Iterable[T], description: str, total: int) -> Iterator[T]:
    """The results, with a progress bar on a terminal that is gone afterwards."""
    with progress_bar(description, total) as advance:
        for result in results:
            yield result
            advance(1)


@contextmanager
def busy(description: str) -> Iterator[None]:
    """A bar on a terminal that moves until the block ends: for what takes seconds and has no steps to count."""
    with progress_bar(description, None):
        yield


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal until the block ends; the function that it gives is told how many more are done.

    Args:
        description: what is done.
        total: how many there are; None where that is not known.
    """
    counts = () if total is None else (MofNCompleteColumn(), _Remaining())
    columns = (TextColumn(description), BarColumn(), *counts)
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        ExitStack() as end,
    ):
        for handler in logging.getLogger().handlers:  # lines of the log appear above the bar, not in it
            if isinstance(handler, logging.StreamHandler) and console.is_terminal and handler.stream.isatty():
                end.callback(handler.setStream, handler.setStream(sys.stderr))
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


class _Remaining(ProgressColumn):
    """The time that the rest takes if it goes on as it went so far: rich's own forgets what is older than 30 s."""

    max_refresh = 0.5

    def render(self, task: Task) -> str:
        if not task.completed or task.elapsed is None or task.remaining is None:
            return "-:--:--"
        return str(timedelta(seconds=round(task.elapsed * task.remaining / task.completed)))
