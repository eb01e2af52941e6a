"""The files that say where a board's joints are: pixel boxes, or placement, footprints and fiducials.

All are tables with a header; columns come in any order and case, others are ignored. docs/use/crop.md shows each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from solder_vae.inspection.boards.cad_tables import Component, length, number, read_components
from solder_vae.inspection.boards.registration import Fiducial
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import Row, parse_table, read_table, read_text
from solder_vae.utils.text import printable

BOXES = ("name", "x", "y", "width", "height")  # pixels; x, y: the left upper corner
FOOTPRINTS = ("package", "pad", "x", "y", "width", "height")  # mm from the centroid, unrotated, y up
FIDUCIALS = ("name", "board_x", "board_y", "pixel_x", "pixel_y")  # mm, y up; pixels, y down


@dataclass(frozen=True)
class PixelBox:
    """A joint's box in the picture: left upper corner and size, in pixels, and the component's type."""

    name: str
    x: float
    y: float
    width: float
    height: float
    type: str = ""


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
    text = read_text(path)
    table = parse_table(path, text, lambda cells: set(BOXES) <= {cell.lower() for cell in cells})
    if table.rows:
        check_names(path, [(line, row["name"]) for line, row in table.rows])
        return [_box(row, f"{path}, line {line}") for line, row in table.rows]
    if components := read_components(path, text):
        _check_rotations(path, [component.rotation for component in components])
        return components
    if table.columns:
        raise UserError(f"{path}: has no rows; it needs a header and a line for each entry.")
    columns = ", ".join(name for name in parse_table(path, text.strip().partition("\n")[0]).columns)
    raise UserError(
        f"{path}: has the columns {printable(columns)[:200] or 'of no table'}; it needs {', '.join(BOXES)} (pixels) "
        "or Ref, PosX, PosY, Rot, Side (millimetres, degrees; docs/use/crop.md has other tools' names)."
    )


def read_footprints(path: Path) -> dict[str, list[FootprintPad]]:
    """The pads of each package.

    Raises:
        UserError: the file cannot be used; the message names file and line.
    """
    footprints: dict[str, list[FootprintPad]] = {}
    for line, row in read_table(path, FOOTPRINTS):
        at = f"{path}, line {line}"
        x, y, width, height = (length(row[column], column, at) for column in FOOTPRINTS[2:])
        _check_size(width, height, at)
        footprints.setdefault(row["package"], []).append(FootprintPad(row["pad"], x, y, width, height))
    return footprints


def read_fiducials(path: Path) -> list[Fiducial]:
    """The fiducials of a picture.

    Raises:
        UserError: the file cannot be used; the message names file and line.
    """
    fiducials = []
    for line, row in read_table(path, FIDUCIALS):
        at = f"{path}, line {line}"
        board_x, board_y = (length(row[column], column, at) for column in FIDUCIALS[1:3])
        pixel_x, pixel_y = (number(row[column], column, at) for column in FIDUCIALS[3:])
        fiducials.append(Fiducial(printable(row["name"]), (board_x, board_y), (pixel_x, pixel_y)))
    return fiducials


def _box(row: Row, at: str) -> PixelBox:
    x, y, width, height = (number(row[column], column, at) for column in BOXES[1:])
    _check_size(width, height, at)
    return PixelBox(row["name"], x, y, width, height, row.get("type") or row.get("package", ""))


def check_names(path: Path, names: Iterable[tuple[int, str]]) -> None:
    """Check that joints or components, each ``(line, name)``, can be told apart.

    Raises:
        UserError: one has no name, or two have the same.
    """
    seen: set[str] = set()
    for line, name in names:
        if not name:
            raise UserError(f"{path}, line {line}: the joint has no name; give it one.")
        if name in seen:
            raise UserError(
                f"{path}, line {line}: {printable(name)} is there twice; give each joint a name of its own."
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
