"""What all processes that share a computation need: their share of the threads, and an end with their parent's."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def share_of_threads(processes: int) -> int:
    """How many threads each of ``processes`` may use, so that together they use those of this one."""
    return max(1, torch.get_num_threads() // processes)


@contextmanager
def ignore_interrupts() -> Iterator[None]:
    """Processes started inside the block ignore Ctrl-C. Their parent reacts to it and ends them."""
    if threading.current_thread() is not threading.main_thread():  # other threads may not set signals
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def end_with_parent() -> None:
    """Let this process end when its parent does, even if the parent is killed."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
