"""The files that say where a board's joints are: pixel boxes, or placement, footprints and fiducials.

All are CSV with a header, separated by commas, semicolons or tabs; columns come in any order and case, others are
ignored. docs/crop.md shows each.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solder_vae.inspection.boards.registration import Fiducial
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import printable

BOXES = ("name", "x", "y", "width", "height")  # pixels; x, y: the left upper corner
PLACEMENT = ("ref", "posx", "posy", "rot", "side")  # mm and degrees, y up; KiCad's names
FOOTPRINTS = ("package", "pad", "x", "y", "width", "height")  # mm from the centroid, unrotated, y up
FIDUCIALS = ("name", "board_x", "board_y", "pixel_x", "pixel_y")  # mm, y up; pixels, y down

TOP, BOTTOM = "top", "bottom"
_SIDES = {
    **dict.fromkeys(("top", "t", "front", "f", "f.cu", "toplayer", "component side"), TOP),
    **dict.fromkeys(("bottom", "bot", "b", "back", "b.cu", "bottomlayer", "solder side"), BOTTOM),
}
_LARGEST_FILE = 1 << 26  # bytes: a million rows

Row = dict[str, str]


@dataclass(frozen=True)
class PixelBox:
    """A joint's box in the picture: left upper corner and size, in pixels."""

    name: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Component:
    """A placed component: its centroid in millimetres (y up), rotation in degrees counter-clockwise, and side."""

    name: str
    package: str
    x: float
    y: float
    rotation: float
    side: str


@dataclass(frozen=True)
class FootprintPad:
    """A pad of a package: its centre from the centroid, y up, and its size, in millimetres."""

    name: str
    x: float
    y: float
    width: float
    height: float


def read_pads(path: Path) -> list[PixelBox] | list[Component]:
    """Read pixel boxes or a placement file; the header tells which.

    Raises:
        UserError: the file cannot be used; the message names file and row.
    """
    rows = read_table(path)
    columns = rows[0].keys()
    if set(PLACEMENT) <= columns:
        _check_names(path, [row["ref"] for row in rows])
        components = [_component(row, f"{path}, row {number}") for number, row in enumerate(rows, 2)]
        _check_rotations(path, [component.rotation for component in components])
        return components
    if set(BOXES) <= columns:
        _check_names(path, [row["name"] for row in rows])
        return [_box(row, f"{path}, row {number}") for number, row in enumerate(rows, 2)]
    raise UserError(
        f"{path} has the columns {', '.join(columns)}: it needs {', '.join(BOXES)} (pixels) "
        "or Ref, PosX, PosY, Rot, Side (millimetres, degrees)."
    )


def read_footprints(path: Path) -> dict[str, list[FootprintPad]]:
    """The pads of each package.

    Raises:
        UserError: the file cannot be used; the message names file and row.
    """
    footprints: dict[str, list[FootprintPad]] = {}
    for number, row in enumerate(read_table(path, FOOTPRINTS), 2):
        at = f"{path}, row {number}"
        x, y, width, height = (_number(row, column, at) for column in FOOTPRINTS[2:])
        _check_size(width, height, at)
        footprints.setdefault(row["package"], []).append(FootprintPad(row["pad"], x, y, width, height))
    return footprints


def read_fiducials(path: Path) -> list[Fiducial]:
    """The fiducials of a picture.

    Raises:
        UserError: the file cannot be used; the message names file and row.
    """
    fiducials = []
    for number, row in enumerate(read_table(path, FIDUCIALS), 2):
        board_x, board_y, pixel_x, pixel_y = (_number(row, key, f"{path}, row {number}") for key in FIDUCIALS[1:])
        fiducials.append(Fiducial(printable(row["name"]), (board_x, board_y), (pixel_x, pixel_y)))
    return fiducials


def read_table(path: Path, required: Sequence[str] = ()) -> list[Row]:
    """A CSV file's rows by column, names in lower case, everything stripped; at least one row.

    Raises:
        UserError: the file is missing, too large, not UTF-8 or not a table, or has no rows or not all columns.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path} has {path.stat().st_size / 1e6:.0f} MB: too large for a table of joints.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        raise UserError(f"{path} can't be read ({getattr(error, 'strerror', None) or 'not UTF-8'}).") from error
    header = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(line)]
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV table ({error}).") from error
    if len(lines) < 2:
        raise UserError(f"{path} has no rows: it needs a header and a line for each entry.")
    columns = [printable(name.strip().lower()) for name in lines[0]]
    if doubled := [name for name in columns if name and columns.count(name) > 1]:
        raise UserError(f"{path} has the column {doubled[0]} twice: drop one.")
    if missing := [name for name in required if name not in columns]:
        raise UserError(f"{path} has no column {', '.join(missing)}: it needs {', '.join(required)}.")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise UserError(f"{path}, row {number}: {len(line)} values for {len(columns)} columns.")
    return [dict(zip(columns, (value.strip() for value in line), strict=True)) for line in lines[1:]]


def _box(row: Row, at: str) -> PixelBox:
    x, y, width, height = (_number(row, column, at) for column in BOXES[1:])
    _check_size(width, height, at)
    return PixelBox(row["name"], x, y, width, height)


def _component(row: Row, at: str) -> Component:
    side = _SIDES.get(row["side"].lower())
    if side is None:
        raise UserError(f"{at}: Side is {printable(row['side'])!r}; use top or bottom.")
    x, y, rotation = (_number(row, column, at) for column in ("posx", "posy", "rot"))
    return Component(row["ref"], row.get("package", ""), x, y, rotation, side)


def _number(row: Row, column: str, at: str) -> float:
    try:
        number = math.nan if "_" in row[column] else float(row[column])  # Python would read 1_0 as 10
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{at}: {column} is {printable(row[column])!r}; use a plain number (point, no unit).")
    return number


def _check_names(path: Path, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for number, name in enumerate(names, 2):
        if not name:
            raise UserError(f"{path}, row {number}: the joint has no name; give it one.")
        if name in seen:
            raise UserError(
                f"{path}, row {number}: {printable(name)} is there twice; give each joint a name of its own."
            )
        seen.add(name)


def _check_rotations(path: Path, degrees: Sequence[float]) -> None:
    """Refuse rotations that are multiples of a quarter turn in radians and of nothing in degrees."""
    quarters = [abs(angle) / (math.pi / 2) for angle in degrees if angle]
    if quarters and all(part < 4.01 and abs(part - round(part)) < 1e-3 for part in quarters):
        raise UserError(f"{path}: Rot looks like radians (multiples of 1.5708); give degrees.")


def _check_size(width: float, height: float, at: str) -> None:
    if width <= 0 or height <= 0:
        raise UserError(f"{at}: width and height are {width:g} and {height:g}; both must be greater than 0.")
