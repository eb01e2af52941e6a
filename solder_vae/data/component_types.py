"""Component types: what an image's path says of the part that it shows.

Joints of one type look alike, so thresholds and nearest neighbours are best kept within a type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from solder_vae.data.layouts import Record
from solder_vae.utils.errors import UserError


def check_regex(key: str, regex: object, example: str) -> None:
    """Check a regular expression that an option gives.

    Raises:
        UserError: it is none, or has no parentheses around what it is to find.
    """
    try:
        if regex is not None and re.compile(str(regex)).groups < 1:
            raise UserError(f"{key}={regex} needs parentheses around what it is to find: '{example}'.")
    except re.error as error:
        raise UserError(f"{key}={regex} is no regular expression ({error}).") from error


def relative(path: Path, root: Path) -> str:
    """A path relative to the folder it was found in, with slashes; the whole path if it lies elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def type_in(path: str, regex: str | None) -> str:
    """What the first parentheses match in a path; "", no type, where they match nothing."""
    match = re.search(regex, path) if regex is not None else None
    return (match[1] or "").strip() if match else ""


def with_types(records: Sequence[Record], folder: Path, regex: str | None) -> list[Record]:
    """The records with the types that their paths relative to a folder tell; a type that is known comes first."""
    return [replace(record, type=record.type or type_in(relative(record.path, folder), regex)) for record in records]
