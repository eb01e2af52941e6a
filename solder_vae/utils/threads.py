"""Long sequences, item by item: work done in threads a little ahead, a progress bar; memory bears any length."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.progress import track

S = TypeVar("S")
T = TypeVar("T")

_TOGETHER = 8  # items a task, as handing over a task costs a third of decoding a small image
_AHEAD = 12  # tasks begun before their results are asked for


def in_threads(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """``work`` of each item, in their order, done in threads some hundred items ahead of who takes the results."""
    source = iter(items)
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decode")
    pending: deque[Future[list[T]]] = deque()

    def submit() -> None:
        if part := list(islice(source, _TOGETHER)):
            pending.append(pool.submit(lambda: [work(item) for item in part]))

    try:
        for _ in range(_AHEAD):
            submit()
        while pending:
            results = pending.popleft().result()
            submit()
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nobody waits for the rest


def tracked(results: Iterable[T], description: str, total: int) -> Iterator[T]:
    """The results, with a progress bar on a terminal that is gone afterwards."""
    console = Console(stderr=True)
    yield from track(
        results,
        description=description,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
