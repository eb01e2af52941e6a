"""CSV tables: one way to read what users give, one way to write."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_file
from solder_vae.utils.text import printable

_LARGEST_FILE = 1 << 27  # bytes: more than a million lines
_HEADER_WITHIN = 100  # lines: no preamble is longer
_NO_TEXT = {
    b"PK\x03\x04": "an Excel or zip file",
    b"\xd0\xcf\x11\xe0": "an old Excel or a CAD tool's binary file",
    b"%PDF": "a PDF file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}

Row = dict[str, str]


class Table(NamedTuple):
    """A table as it stands in a file.

    Attributes:
        preamble: the lines before the header.
        columns: as the header writes them.
        rows: each with the number of its line in the file; by column, in lower case.
    """

    preamble: str
    columns: list[str]
    rows: list[tuple[int, Row]]


def read_table(path: Path, required: Sequence[str] = ()) -> list[tuple[int, Row]]:
    """The rows of a CSV file with a header, each with the number of its line in the file; at least one.

    Commas, semicolons or tabs separate the columns, whichever the header has most of, unless a line ``sep=;`` before it
    says which. The columns' names are put in lower case and all cells are stripped. Cells missing at the end of a line
    are empty; blank lines are left out.

    Args:
        path: the file; UTF-8, UTF-16 with its mark, else Windows-1252.
        required: columns that it must have.

    Raises:
        UserError: the file is missing, too large, no text or not a table, or has no rows or not all columns.
    """
    table = parse_table(path, read_text(path))
    columns = [column.lower() for column in table.columns]
    if not set(required) <= set(columns):
        raise UserError(
            f"{path}: needs the column{'s' * (len(required) > 1)} {', '.join(required)} in its first line; it has: "
            f"{', '.join(columns) or 'nothing'}."
        )
    if not table.rows:
        raise UserError(f"{path}: has no rows; it needs a header and a line for each entry.")
    return table.rows


def read_text(path: Path) -> str:
    """A text file that a table may be in.

    Raises:
        UserError: it is missing, too large or no text.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path}: has {path.stat().st_size / 1e6:.0f} MB, too large for a table; split it.")
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error}).") from error
    for start, what in _NO_TEXT.items():
        if content.startswith(start):
            raise UserError(f"{path}: is {what}, no text; save or export it as CSV.")
    high = content[1:200:2]
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    elif high.count(0) > len(high) / 2:
        encodings = ("utf-16-le",)  # without its mark
    else:
        encodings = ("utf-8-sig", "cp1252", "latin-1")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise UserError(f"{path}: is no text; save or export it as CSV.")


def parse_table(path: Path, text: str, is_header: Callable[[list[str]], bool] = any) -> Table:
    """The table in a text: its header is the first line that ``is_header`` takes, by its cells.

    Raises:
        UserError: a column is there twice, or a line has more values than the header. A table without header is empty.
    """
    marked = re.match(r"\s*\"?sep=([,;\t|])\"?\s*?(?:\n|$)", text, re.IGNORECASE)
    offset = line = 0
    for start in text.splitlines(keepends=True)[:_HEADER_WITHIN]:
        mark = marked[1] if marked else max(",;\t", key=start.count)
        if not (marked and offset < marked.end()) and is_header(_cells(start, mark)):
            break
        offset, line = offset + len(start), line + 1
    else:
        return Table(text, [], [])
    reader = csv.reader(io.StringIO(text[offset:], newline=""), delimiter=mark, skipinitialspace=True)
    try:
        lines = [(line + reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except csv.Error as error:
        raise UserError(f"{path}: can't be read as a CSV file ({error}).") from error
    columns = [printable(name) for name in lines[0][1]]
    lower = [name.lower() for name in columns]
    if doubled := [name for name in lower if name and lower.count(name) > 1]:
        raise UserError(f"{path}: has the column {doubled[0]} twice; drop one.")
    for number, cells in lines[1:]:
        if len(cells) > len(columns) and any(cells[len(columns) :]):
            raise UserError(f"{path}, line {number}: {len(cells)} values for {len(columns)} columns.")
    rows = [(number, dict(zip(lower, cells + [""] * len(lower), strict=False))) for number, cells in lines[1:]]
    return Table(text[:offset], columns, rows)


def _cells(line: str, mark: str) -> list[str]:
    try:
        return [printable(cell.strip()) for cell in next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])]
    except csv.Error:
        return []


def path_to_read(folder: Path, name: str) -> Path:
    """The path of a file to read that the user's own table names: absolute, or below the table's folder.

    Raises:
        UserError: it is empty, leads out of the folder by .., or is another system's; the message does not name the
            table.
    """
    if not name:
        raise UserError("the path is missing")
    if Path(name).is_absolute():
        return Path(name)
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise UserError(f"{name} is a path of another system; write the table anew, with paths of this one")
    if ".." in re.split(r"[/\\]", name):
        raise UserError(f"{name} leads out of the table's folder; give paths below it without .., or absolute ones")
    if "\\" in name and not (folder / name).exists():  # written on Windows
        name = name.replace("\\", "/")
    return folder / name


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a table whole or not at all; the first row is the header."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
