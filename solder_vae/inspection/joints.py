"""The joints to inspect: files by folder, pattern or table, or cut out of a board's picture; and their pictures, which
are read ahead of the network (imports no torch).
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from solder_vae.data.component_types import relative, type_in
from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import MAX_PIXELS, MIN_SIDE, Image, read_image
from solder_vae.data.listing import Listing, list_images
from solder_vae.data.names import NORMAL_NAMES, SUFFIXES, UNREAD_SUFFIXES, class_of, is_system
from solder_vae.data.transforms import apply_view
from solder_vae.inspection.boards.crops import file_names
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL, UNDECIDED, by_a_model
from solder_vae.utils.tables import path_to_read, read_table
from solder_vae.utils.text import cell_safe, printable
from solder_vae.utils.threads import in_threads

if TYPE_CHECKING:
    from solder_vae.inspection.boards.board import Board


class Source(NamedTuple):
    """Where a joint's picture comes from, for records.

    Attributes:
        path: of the file.
        serial: of the board, "" if not known.
        designator: of the joint in a board's picture, "" in a picture of one joint.
        x, y: its centre in the board's picture in pixels.
        side: of the board, "" if not known.
    """

    path: Path
    serial: str = ""
    designator: str = ""
    x: float | None = None
    y: float | None = None
    side: str = ""


class Joint(NamedTuple):
    """A joint to inspect.

    Attributes:
        name: that it goes by.
        image: its picture as a file's path or as ``(H, W, 3)`` uint8 RGB; or why there is none.
        type: of its component, as a table tells it.
        place: the path in which a type may be looked for, relative to what was given.
        truth: what it really is, "normal" or a type of defect, where its path or a table tells it; "undecided" where a
            table says so; else "".
        file: of a picture that is given as pixels, the file that has them, too, if there is one.
        source: where its picture comes from, if that is recorded.
    """

    name: str
    image: Path | Image | UserError
    type: str = ""
    place: str = ""
    truth: str = ""
    file: Path | None = None
    source: Source | None = None


def check_named(key: str, images: str) -> None:
    """Check that there is what an option for images names, which may be a pattern.

    Raises:
        UserError: there is nothing.
    """
    if not Path(images).exists() and not glob.has_magic(images):
        raise UserError(f"{key}={images} does not exist: give a folder, an image, a pattern in quotes or a CSV file.")


def check_labelled(root: str) -> None:
    """The same of a labelled set.

    Raises:
        UserError: there is nothing.
    """
    if not Path(root).exists():
        raise UserError(f"labelled={root} does not exist: give a folder with good and bad joints, or a CSV file.")


def find_joints(
    images: str, key: str = "images", listing: Listing | None = None, normal: Collection[str] = NORMAL_NAMES
) -> list[Joint]:
    """The joints that ``images=`` names, each a file by its path; the log says what was left out.

    Args:
        images: a folder, with the images of all sub-folders; a CSV file with a column ``path``; any other file, taken
            as an image; or a pattern with ``*``, ``?``, ``[...]`` or ``**``, of which only images count.
        key: the option's name, for messages.
        listing: what to fill with what was found and left out.
        normal: names of the normal class, in lower case.

    Raises:
        UserError: nothing is there.
    """
    check_named(key, images)
    path = Path(images)
    root, told = path.parent, dict[Path, tuple[str, str]]()
    listing = Listing() if listing is None else listing
    if path.is_dir():
        root = path
        list_images(path, listing)
    elif path.suffix.lower() == ".csv" and path.is_file():
        rows = listed(path, normal)
        told = {file: (kind, truth) for file, kind, truth in rows}
        listing.images += [file for file, *_ in rows]
    elif path.is_file():
        listing.images.append(path)
    else:
        root = fixed_part(path)
        _match(images, listing)
    listing.tell()
    if not listing.images:
        left_out = "".join(f" {sentence}" for sentence in listing.sentences())
        raise UserError(f"{key}={images} has no images ({' '.join(sorted(SUFFIXES))}).{left_out}")
    places = [relative(path, root) for path in listing.images]
    truths = classes(places, root.absolute().name, normal) if not told else [""] * len(places)
    return [
        Joint(cell_safe(printable(str(path))), path, kind, place, truth)
        for path, place, by_path in zip(listing.images, places, truths, strict=True)
        for kind, truth in [told.get(path, ("", by_path))]
    ]


def classes(places: Sequence[str], root: str, normal: Collection[str] = NORMAL_NAMES) -> list[str]:
    """What images are by their folders, "" where these do not say.

    They say it as in :func:`~solder_vae.data.names.class_of`, below a folder that has one for good joints in it.

    Args:
        places: their paths relative to the folder that was given.
        root: that folder's name.
        normal: names of the normal class, in lower case.
    """
    folders = [tuple(place.split("/")[:-1]) for place in places]
    sorted_below = {
        parts[:depth] for parts in set(folders) for depth in range(len(parts)) if parts[depth].lower() in normal
    }
    told = {
        parts: class_of(parts, normal) if any(parts[:depth] in sorted_below for depth in range(len(parts))) else ""
        for parts in set(folders)
    }
    given = NORMAL if root.lower() in normal else ""
    return [told[parts] or given for parts in folders]


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


def board_joints(
    board: Board, source: Source | None = None, folder: Path | None = None, prefix: str = ""
) -> list[Joint]:
    """The joints of a board's picture, by their names.

    Args:
        board: with its joints.
        source: the picture's, if it is recorded.
        folder: that they are written to, if they are.
        prefix: of each name, for the joints of several boards.
    """
    return [
        Joint(
            cell_safe(printable(prefix + box.name)),
            crop,
            box.type,
            file=folder and folder / file,
            source=source and source._replace(designator=box.name, x=box.x + box.width / 2, y=box.y + box.height / 2),
        )
        for box, crop, file in zip(
            board.joints, board.crops(), file_names(box.name for box in board.joints), strict=True
        )
    ]


def board_source(path: Path, regex: str, side: str) -> Source:
    """What is recorded of a board's picture; without a regular expression its name says the serial number.

    Raises:
        UserError: it has no serial number.
    """
    return Source(path, serial_of(path, regex, path.stem), side=side)


def serial_of(path: Path, regex: str, default: str = "") -> str:
    """A board's serial number in a file's path: what the first parentheses match.

    Args:
        path: of the picture.
        regex: of the option ``serial=``, "" where it is not given.
        default: without a regular expression.

    Raises:
        UserError: it matches nothing.
    """
    if not regex:
        return default
    if serial := type_in(path.as_posix(), regex):
        return serial
    raise UserError(f"{printable(str(path))}: doesn't match serial={regex}; mend that or rename the file.")


def listed(table: Path, normal: Collection[str] = NORMAL_NAMES) -> list[tuple[Path, str, str]]:
    """The files that a CSV table's column ``path`` names, absolute or below the table's folder, with types and truths.

    The columns may be missing: ``type``, of the component; ``label``, normal or the type of defect. What predict itself
    called a joint is no truth.

    Raises:
        UserError: the table can't be read, has no such column, or leads elsewhere by ``..``.
    """
    files = []
    for line, row in read_table(table, ["path"]):
        try:
            truth = "" if by_a_model(row) else row.get("label", "")
            truth = NORMAL if truth.lower() in normal else UNDECIDED if truth.lower() == UNDECIDED else truth
            files.append((path_to_read(table.parent, row["path"]), row.get("type", ""), truth))
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


BATCH = 32  # larger batches are not faster on a CPU, and their results come later


class Picture(NamedTuple):
    """A joint's picture as the network sees it, ``(S, S, 3)`` uint8, and its height and width before that in pixels."""

    image: Image
    native_size: tuple[int, int]


def read_ahead(
    joints: Iterable[Joint], image_size: int, view: str, crop: str = SQUARE
) -> Iterator[list[tuple[Joint, Picture | UserError]]]:
    """Batches of joints with their pictures, or what is wrong with them, decoded in other threads."""
    pictures = in_threads(lambda joint: (joint, read(joint.image, image_size, view, crop)), joints)
    while batch := list(islice(pictures, BATCH)):
        yield batch


def read(image: Path | Image | UserError, image_size: int, view: str, crop: str = SQUARE) -> Picture | UserError:
    """The view's picture, or what is wrong with it."""
    try:
        if isinstance(image, UserError):
            return image
        found = read_image(image) if isinstance(image, Path) else checked(image)
        return Picture(apply_view(found, image_size, view, crop), (found.shape[0], found.shape[1]))
    except UserError as error:
        return error


def checked(image: Any) -> Image:
    """The array, if it is an image.

    Raises:
        UserError: it is anything but ``(H, W, 3)`` uint8 of sensible size.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"An image must be a uint8 RGB array (H, W, 3), 0 to 255, got {found}: convert it.")
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE or height * width > MAX_PIXELS:
        raise UserError(
            f"An image of {width}x{height} px was given: a side needs {MIN_SIDE} px or more, "
            f"all together {MAX_PIXELS} at most."
        )
    return image
