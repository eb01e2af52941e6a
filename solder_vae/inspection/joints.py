"""The joints to inspect: files by folder, pattern or table, or cut out of a board's picture (imports no torch)."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from solder_vae.data.component_types import relative
from solder_vae.data.image_files import Image
from solder_vae.data.listing import Listing, list_images
from solder_vae.data.names import SUFFIXES, UNREAD_SUFFIXES, is_system
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import path_to_read, read_table
from solder_vae.utils.text import cell_safe, printable

if TYPE_CHECKING:
    from solder_vae.inspection.boards.board import Board


class Joint(NamedTuple):
    """A joint to inspect: its picture as a file's path or as ``(H, W, 3)`` uint8 RGB, the name it goes by, the type of
    its component as a table tells it, and the path in which a type may be looked for, relative to what was given."""

    name: str
    image: Path | Image
    type: str = ""
    place: str = ""


def find_joints(images: str, key: str = "images", listing: Listing | None = None) -> list[Joint]:
    """The joints that ``images=`` names, each a file by its path; the log says what was left out.

    Args:
        images: a folder, with the images of all sub-folders; a CSV file with a column ``path``; any other file, taken
            as an image; or a pattern with ``*``, ``?``, ``[...]`` or ``**``, of which only images count.
        key: the option's name, for messages.
        listing: what to fill with what was found and left out.

    Raises:
        UserError: nothing is there.
    """
    path = Path(images)
    root, types = path.parent, dict[Path, str]()
    listing = Listing() if listing is None else listing
    if path.is_dir():
        root = path
        list_images(path, listing)
    elif path.suffix.lower() == ".csv" and path.is_file():
        types = dict(listed(path))
        listing.images += [file for file, _ in listed(path)]
    elif path.is_file():
        listing.images.append(path)
    elif glob.has_magic(images):
        root = fixed_part(path)
        _match(images, listing)
    else:
        raise UserError(f"{key}={images} does not exist: give a folder, an image, a pattern in quotes or a CSV file.")
    listing.tell()
    if not listing.images:
        left_out = "".join(f" {sentence}" for sentence in listing.sentences())
        raise UserError(f"{key}={images} has no images ({' '.join(sorted(SUFFIXES))}).{left_out}")
    return [
        Joint(cell_safe(printable(str(path))), path, types.get(path, ""), relative(path, root))
        for path in listing.images
    ]


def fixed_part(pattern: Path) -> Path:
    """The folder that a pattern begins with, as far as it has no ``*``, ``?`` or ``[``."""
    return next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))


def _match(pattern: str, listing: Listing) -> None:
    """The files that a pattern matches, but for those in folders of systems that it doesn't name itself."""
    named = set(Path(pattern).parts)
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - also absolute patterns
        path = Path(name)
        if any(is_system(part) for part in set(path.parts) - named - {".", ".."}) or path.is_dir():
            continue
        if path.suffix.lower() in SUFFIXES:
            listing.images.append(path)
        elif path.suffix.lower() in UNREAD_SUFFIXES:
            listing.unread.append(path)
    listing.images.sort()


def board_joints(board: Board) -> list[Joint]:
    """The joints of a board's picture, by their names."""
    return [
        Joint(cell_safe(printable(joint.name)), crop, joint.type)
        for joint, crop in zip(board.joints, board.crops(), strict=True)
    ]


def listed(table: Path) -> list[tuple[Path, str]]:
    """The files that a CSV table's column ``path`` names, absolute or below the table's folder, and their types.

    The column ``type`` may be missing.

    Raises:
        UserError: the table can't be read, has no such column, or leads elsewhere by ``..``.
    """
    files = []
    for line, row in read_table(table, ["path"]):
        try:
            files.append((path_to_read(table.parent, row["path"]), row.get("type", "")))
        except UserError as error:
            raise UserError(f"{table}, line {line}: {error}.") from error
    return files


def named_joints(images: Any) -> list[Joint]:
    """What :meth:`solder_vae.inspection.inspector.Inspector.score` takes as a list of named joints."""
    if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3):
        images = [images]
    if not isinstance(images, Iterable):
        raise UserError(f"score takes files or arrays of pixels, not {type(images).__name__}.")
    return [
        Joint(printable(str(image)), Path(image), place=Path(image).as_posix())
        if isinstance(image, str | Path)
        else Joint(f"image {index}", image)
        for index, image in enumerate(images)
    ]
