"""Coverage pauses where it would count nothing new: what is long in Python takes up to four times as long with it."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def untraced() -> Iterator[None]:
    """Within it, this thread and those that it starts are not traced."""
    own, of_others = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        yield
    finally:
        threading.settrace(of_others)
        sys.settrace(own)
