"""The files that say where a board's joints are: pixel boxes, or placement, footprints and fiducials.

All are CSV with a header, separated by commas, semicolons or tabs; columns come in any order and case, others are
ignored. docs/use/crop.md shows each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from solder_vae.inspection.boards.registration import Fiducial
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import Row, read_table
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
    """A placed component: its centroid in millimetres (y up), rotation in degrees counter-clockwise, and side.

    Attributes:
        line: where it is in its file.
    """

    name: str
    package: str
    x: float
    y: float
    rotation: float
    side: str
    line: int = 0


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

    The names of a placement file are not checked here: of its rows, some are no joints (see :func:`check_names`).

    Raises:
        UserError: the file cannot be used; the message names file and line.
    """
    rows = read_table(path)
    columns = rows[0][1].keys()
    if set(PLACEMENT) <= columns:
        components = [_component(row, path, number) for number, row in rows]
        _check_rotations(path, [component.rotation for component in components])
        return components
    if set(BOXES) <= columns:
        check_names(path, [(number, row["name"]) for number, row in rows])
        return [_box(row, f"{path}, line {number}") for number, row in rows]
    raise UserError(
        f"{path} has the columns {', '.join(columns)}: it needs {', '.join(BOXES)} (pixels) "
        "or Ref, PosX, PosY, Rot, Side (millimetres, degrees)."
    )


def read_footprints(path: Path) -> dict[str, list[FootprintPad]]:
    """The pads of each package.

    Raises:
        UserError: the file cannot be used; the message names file and line.
    """
    footprints: dict[str, list[FootprintPad]] = {}
    for number, row in read_table(path, FOOTPRINTS):
        at = f"{path}, line {number}"
        x, y, width, height = (_number(row, column, at) for column in FOOTPRINTS[2:])
        _check_size(width, height, at)
        footprints.setdefault(row["package"], []).append(FootprintPad(row["pad"], x, y, width, height))
    return footprints


def read_fiducials(path: Path) -> list[Fiducial]:
    """The fiducials of a picture.

    Raises:
        UserError: the file cannot be used; the message names file and line.
    """
    fiducials = []
    for number, row in read_table(path, FIDUCIALS):
        board_x, board_y, pixel_x, pixel_y = (_number(row, key, f"{path}, line {number}") for key in FIDUCIALS[1:])
        fiducials.append(Fiducial(printable(row["name"]), (board_x, board_y), (pixel_x, pixel_y)))
    return fiducials


def _box(row: Row, at: str) -> PixelBox:
    x, y, width, height = (_number(row, column, at) for column in BOXES[1:])
    _check_size(width, height, at)
    return PixelBox(row["name"], x, y, width, height)


def _component(row: Row, path: Path, number: int) -> Component:
    at = f"{path}, line {number}"
    side = _SIDES.get(row["side"].lower())
    if side is None:
        raise UserError(f"{at}: Side is {printable(row['side'])!r}; use top or bottom.")
    x, y, rotation = (_number(row, column, at) for column in ("posx", "posy", "rot"))
    return Component(row["ref"], row.get("package", ""), x, y, rotation, side, number)


def _number(row: Row, column: str, at: str) -> float:
    try:
        number = math.nan if "_" in row[column] else float(row[column])  # Python would read 1_0 as 10
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{at}: {column} is {printable(row[column])!r}; use a plain number (point, no unit).")
    return number


def check_names(path: Path, names: Iterable[tuple[int, str]]) -> None:
    """Check that joints or components, each ``(line, name)``, can be told apart.

    Raises:
        UserError: one has no name, or two have the same.
    """
    seen: set[str] = set()
    for number, name in names:
        if not name:
            raise UserError(f"{path}, line {number}: the joint has no name; give it one.")
        if name in seen:
            raise UserError(
                f"{path}, line {number}: {printable(name)} is there twice; give each joint a name of its own."
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
