"""The one exception for mistakes that the user can correct, and a sentence that many parts need."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any


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


def parameters(target: Callable[..., Any]) -> list[str]:
    """The names that a class or a function takes; of a class with ``**others``, those of its bases, too."""
    makers = [vars(base).get("__init__") for base in target.__mro__[:-1]] if isinstance(target, type) else [target]
    names: list[str] = []
    for maker in filter(None, makers):
        taken = inspect.signature(maker).parameters.values()
        names += [each.name for each in taken if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        if all(each.kind is not each.VAR_KEYWORD for each in taken):
            break
    return [name for name in dict.fromkeys(names) if name != "self"]


def refusal(error: Exception, kind: type, key: str, target: str, given_by_us: int = 0) -> UserError:
    """What is wrong with the arguments that a class refused.

    Args:
        error: of its constructor.
        kind: the class.
        key: of the config that has the arguments.
        target: what the class is called there.
        given_by_us: how many arguments, the first ones, do not come from the config.
    """
    if found := re.search(r"unexpected keyword argument '(.+)'", str(error)):
        return UserError(unknown_key(f"{key}.{found[1]}", parameters(kind)[given_by_us:], target))
    return UserError(f"{key} ({target}) does not take what is given: {str(error).rstrip('.!')}.")


def check_name(registry: Mapping[str, type], name: str, kind: type, what: str) -> None:
    """Check that no other class has a name already; one that is imported again takes its own place.

    Raises:
        UserError: another one has.
    """
    known = registry.get(name, kind)
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise UserError(f"{kind.__module__} and {known.__module__} both have a {what} {name}: rename one.")
