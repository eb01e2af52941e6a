"""CSV tables: one way to read what users give, one way to write."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_file
from solder_vae.utils.text import printable

_LARGEST_FILE = 1 << 27  # bytes: more than a million lines

Row = dict[str, str]


def read_table(path: Path, required: Sequence[str] = ()) -> list[tuple[int, Row]]:
    """The rows of a CSV file in UTF-8 with a header, each with the number of its line in the file; at least one.

    Commas, semicolons or tabs separate the columns, whichever the header has most of. The columns' names are put in
    lower case and all cells are stripped. Cells missing at the end of a line are empty; blank lines are left out.

    Args:
        path: the file.
        required: columns that it must have.

    Raises:
        UserError: the file is missing, too large, not UTF-8 or not a table, or has no rows or not all columns.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path}: has {path.stat().st_size / 1e6:.0f} MB, too large for a table; split it.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"{path}: can't be read as a CSV file in UTF-8 ({reason}).") from error
    header = text.lstrip().partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if any(line)]
    except csv.Error as error:
        raise UserError(f"{path}: can't be read as a CSV file in UTF-8 ({error}).") from error
    columns = [printable(name.lower()) for name in lines[0][1]] if lines else []
    if doubled := [name for name in columns if name and columns.count(name) > 1]:
        raise UserError(f"{path}: has the column {doubled[0]} twice; drop one.")
    if not set(required) <= set(columns):
        raise UserError(
            f"{path}: needs the column{'s' * (len(required) > 1)} {', '.join(required)} in its first line; it has: "
            f"{', '.join(columns) or 'nothing'}."
        )
    if len(lines) < 2:
        raise UserError(f"{path}: has no rows; it needs a header and a line for each entry.")
    for number, line in lines[1:]:
        if len(line) > len(columns):
            raise UserError(f"{path}, line {number}: {len(line)} values for {len(columns)} columns.")
    return [
        (number, dict(zip(columns, line + [""] * (len(columns) - len(line)), strict=True)))
        for number, line in lines[1:]
    ]


def path_inside(folder: Path, name: str) -> Path:
    """The path that a table names, relative to the table's folder. So no table can make a command read other files.

    Raises:
        UserError: it is empty or leads out of the folder; the message does not name the table.
    """
    if not name:
        raise UserError("the path is missing")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in re.split(r"[/\\]", name):
        raise UserError(f"{name} leads out of the table's folder; paths are relative to it and without ..")
    return folder / name


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a table whole or not at all; the first row is the header."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
