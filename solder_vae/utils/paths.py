"""Options that are taken literally on a command line: paths and regular expressions with any characters.

Hydra reads values by a grammar of its own, in which brackets, commas, equals signs and quotes have a meaning and
``20240101`` is a number. Folders have such names. So the values of the options below are quoted before Hydra sees them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

#: Paths of all commands. A leading ``~`` is the home folder.
PATHS = frozenset(
    (
        *("data.root", "data.cache_dir", "out", "resume", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"),
        *("checkpoint", "images", "board", "pads", "fiducials", "footprints", "normals", "labelled"),
        *("boxes", "data.known", "labels"),
        *("database", "watch"),
    )
)
#: Texts in which commas never separate the values of a sweep; neither do they in Hydra's own options.
TEXTS = frozenset(("data.group_regex", "data.type_regex"))

#: Hydra's flags that a path follows, which may have an equals sign.
TAKE_PATHS = frozenset(("--config-path", "-cp", "--config-dir", "-cd", "--experimental-rerun"))

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_SWEEP = re.compile(r"(?:choice|range|interval|glob|shuffle|sort|tag)\(.*\)", re.DOTALL)  # Hydra's functions


def mean_themselves(arguments: Sequence[str]) -> list[str]:
    """A Hydra command line whose paths and texts are read as they were typed.

    What is quoted already, empty or ``null`` stays as it is, and so do interpolations (``${...}``) within a value. With
    ``-m``, commas separate a path's values and Hydra's ``choice(...)`` and the like keep their meaning.
    """
    multirun = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))
    return [_quoted_override(argument, multirun) for argument in _overrides_first(arguments)]


def _overrides_first(arguments: Sequence[str]) -> list[str]:
    """The same arguments in an order that Hydra reads: its parser takes overrides from one place alone.

    What is no override stays where it is beside the flags: it may be the value of one.
    """
    flags, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument in TAKE_PATHS:
            flags += [argument, *islice(rest, 1)]
        elif argument.startswith("-") or not ("=" in argument or argument.startswith(("~", "+"))):
            flags.append(argument)
        else:
            overrides.append(argument)
    return overrides + flags


def as_typed(override: str) -> str:
    """What one would type for an override of :func:`mean_themselves`: without its quotes, where these come back."""
    key, _, value = override.partition("=")
    plain = f"{key}={value[1:-1]}".replace("\\'", "'")
    return plain if _QUOTED.fullmatch(value) and mean_themselves([plain]) == [override] else override


def at_home(text: str) -> str:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder, where there is one."""
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError:  # no such user
        return text


def _quoted_override(argument: str, multirun: bool) -> str:
    key, equals, value = argument.partition("=")
    name = key.lstrip("+")
    if not equals or name not in PATHS | TEXTS or (multirun and _SWEEP.fullmatch(value)):
        return argument
    swept = multirun and name not in TEXTS and not name.startswith("hydra.")
    values = _split(value) if swept else [value]
    return f"{key}={','.join(_quoted(value, name) for value in values)}"


def _split(value: str) -> Iterator[str]:
    """The parts between commas; one that begins with a quoted text ends with it."""
    start = 0
    while start <= len(value):
        quoted = _QUOTED.match(value, start)
        end = quoted.end() if quoted and value[quoted.end() : quoted.end() + 1] in ("", ",") else value.find(",", start)
        end = len(value) if end < 0 else end
        yield value[start:end].strip()
        start = end + 1


def _quoted(value: str, name: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    if not value or value.lower() == "null" or _QUOTED.fullmatch(value):
        return value
    if name == "data.known" and (value.isdecimal() or value.lower() == "false"):
        return value  # a number of defects, not a folder's path
    return QuotedString(at_home(value) if name in PATHS else value, Quote.single).with_quotes()
