"""The one exception for mistakes that the user can correct, and a sentence that many parts need."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave: a path, an option, a file.

    The message is one clear sentence (a list may follow): what is wrong, where, and what to do. Commands print it
    without a traceback and exit with status 2.
    """

    def __str__(self) -> str:
        # An error of a worker process that prepares batches comes with the process's traceback before its message.
        return super().__str__().rpartition(f"{__name__}.{type(self).__name__}: ")[2].rstrip()


def unknown_key(key: str, keys: Iterable[str], of: str = "this command") -> str:
    """The sentence for a key, such as ``a.b.c``, that is none of the ``keys`` beside it, such as ``d``."""
    group, _, name = key.rpartition(".")
    close = difflib.get_close_matches(name, keys := list(keys), n=1)
    hint = f"did you mean {group + '.' if group else ''}{close[0]}?" if close else f"the keys are {', '.join(keys)}."
    return f"{key!r} is no option of {of}: {hint}"
