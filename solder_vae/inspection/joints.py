"""The joints to inspect: files by folder, pattern or table, or cut out of a board's picture (imports no torch)."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from solder_vae.data.image_files import Image
from solder_vae.data.layouts import SUFFIXES, image_files
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import path_inside, read_table
from solder_vae.utils.text import cell_safe, printable

if TYPE_CHECKING:
    from solder_vae.inspection.boards.board import Board


class Joint(NamedTuple):
    """A joint to inspect: its picture as a file's path or as ``(H, W, 3)`` uint8 RGB, and the name it goes by."""

    name: str
    image: Path | Image


def find_joints(images: str, key: str = "images") -> list[Joint]:
    """The joints that ``images=`` names, each a file by its path.

    Args:
        images: a folder, with the images of all sub-folders; a CSV file with a column ``path``; any other file, taken
            as an image; or a pattern with ``*``, ``?``, ``[...]`` or ``**``, of which only images count.
        key: the option's name, for messages.

    Raises:
        UserError: nothing is there.
    """
    path = Path(images)
    if path.is_dir():
        paths = image_files(path)
    elif path.suffix.lower() == ".csv" and path.is_file():
        paths = listed(path)
    elif path.is_file():
        paths = [path]
    elif glob.has_magic(images):
        found = (Path(name) for name in glob.glob(images, recursive=True))  # noqa: PTH207 - also absolute patterns
        paths = sorted(file for file in found if file.suffix.lower() in SUFFIXES and not file.is_dir())
    else:
        raise UserError(f"{key}={images} does not exist: give a folder, an image, a pattern in quotes or a CSV file.")
    if not paths:
        raise UserError(f"{key}={images} has no images ({' '.join(sorted(SUFFIXES))}).")
    return [Joint(cell_safe(printable(str(path))), path) for path in paths]


def board_joints(board: Board) -> list[Joint]:
    """The joints of a board's picture, by their names."""
    return [
        Joint(cell_safe(printable(joint.name)), crop) for joint, crop in zip(board.joints, board.crops(), strict=True)
    ]


def listed(table: Path) -> list[Path]:
    """The files that a CSV table's column ``path`` names, relative to the table's folder, which they may not leave.

    Raises:
        UserError: the table can't be read, has no such column, or names a file elsewhere.
    """
    paths = []
    for line, row in read_table(table, ["path"]):
        try:
            paths.append(path_inside(table.parent, row["path"]))
        except UserError as error:
            raise UserError(f"{table}, line {line}: {error}.") from error
    return paths
