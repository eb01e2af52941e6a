"""Image files one by one: what they are, what is wrong or odd with them, what can be measured of their pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solder_vae.data.decompression_bombs import is_whole
from solder_vae.data.folder import FolderSource
from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import Image, decode_raw, read_bytes, to_rgb
from solder_vae.data.layouts import Record
from solder_vae.data.photos import Photo, photo_of
from solder_vae.data.transforms import CONTROLLED, PLAIN, apply_view
from solder_vae.evaluation.baselines import Floats, colour_and_edges
from solder_vae.studies.audit.duplicates import perceptual_hash
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import printable
from solder_vae.utils.threads import in_threads, tracked

LARGE = 1 << 24
"""Images of more pixels (4096 x 4096) show more than one joint."""

TINY = 8
"""Images with a shorter side show no joint."""

ASPECT = 4.0
"""From this ratio of sides on, the central square, which alone is used, is a quarter of the image or less."""

_SUFFIXES = {
    "png": {".png", ".apng"},
    "jpeg": {".jpg", ".jpeg", ".jpe", ".jfif", ".jif"},
    "tiff": {".tif", ".tiff"},
    "bmp": {".bmp", ".dib"},
    "webp": {".webp"},
    "jpeg 2000": {".jp2", ".j2k", ".j2c", ".jpc"},
    "pnm": {".pbm", ".pgm", ".ppm", ".pnm"},
    "sun raster": {".ras", ".sr"},
}
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"BM": "bmp",
    b"\0\0\0\x0cjP  ": "jpeg 2000",
    b"\xff\x4f\xff\x51": "jpeg 2000",
    b"\x59\xa6\x6a\x95": "sun raster",
    b"GIF8": "gif",
    **{b"P%d" % kind: "pnm" for kind in range(1, 7)},
}


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """Measurements of a picture, so that the picture need not be kept.

    Attributes:
        plain, controlled: :func:`solder_vae.evaluation.baselines.colour_and_edges` of both views.
        contrast: standard deviation of the plain view's grey levels.
        hash: of the controlled view, see :func:`solder_vae.studies.audit.duplicates.perceptual_hash`.
    """

    plain: Floats
    controlled: Floats
    contrast: float
    hash: np.uint64


def looks_of(plain: Image, controlled: Image) -> ImageFeatures:
    """Measure a picture ``(S, S, 3)`` uint8, given in both views."""
    return ImageFeatures(
        colour_and_edges(plain),
        colour_and_edges(controlled),
        float(plain.mean(axis=2).std()),
        perceptual_hash(controlled[..., 0]),
    )


@dataclass(frozen=True, slots=True)
class ExaminedFile:
    """What is known about a file that has been opened.

    Attributes:
        record: path, class, split and group.
        format: by its content: "png", "jpeg", ..., or "unknown".
        photo: size and digest; None if it can't be read.
        looks: None likewise.
        error: why it can't be read.
        warnings: what is suspicious about it, in words.
    """

    record: Record
    format: str
    photo: Photo | None
    looks: ImageFeatures | None
    error: str | None
    warnings: tuple[str, ...]


def examine_all(source: FolderSource) -> tuple[list[ExaminedFile], dict[str, Image]]:
    """Open every image of a source once, in threads, with a progress bar on a terminal; bad ones raise nothing.

    Returns:
        What is known of each; and, by digest, grey pictures ``(S, S, 1)`` in the controlled view, as many as the
        source's ``cache_mb`` hold.
    """
    records = source.records()
    keep = int(source.cache_mb * 1e6 / source.image_size**2)
    files: list[ExaminedFile] = []
    kept: dict[str, Image] = {}
    work = in_threads(partial(examine, image_size=source.image_size, crop=source.crop), records)
    for file, controlled in tracked(work, "Examining images", len(records)):
        files.append(file)
        if file.photo is not None and controlled is not None and len(kept) < keep:
            kept[file.photo.digest] = controlled[..., :1].copy()
    return files, kept


def examine(record: Record, image_size: int, crop: str = SQUARE) -> tuple[ExaminedFile, Image | None]:
    """Open one image; what is known of it, and its picture ``(S, S, 3)`` in the controlled view."""
    data: Image = np.empty(0, np.uint8)
    try:
        data = read_bytes(record.path)
        decoded = decode_raw(data, record.path)
        image = to_rgb(decoded, data, record.path)
    except UserError as error:
        return ExaminedFile(record, format_of(data), None, None, printable(str(error)), ()), None
    controlled = apply_view(image, image_size, CONTROLLED, crop)
    looks = looks_of(apply_view(image, image_size, PLAIN, crop), controlled)
    odd = tuple(file_warnings(data, decoded.pixels, image, record.path, crop))
    return ExaminedFile(record, format_of(data), photo_of(record, image), looks, None, odd), controlled


def format_of(data: Image) -> str:
    """The format that the file's first bytes tell."""
    head = data[:16].tobytes()
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "unknown")


def file_warnings(data: Image, raw: NDArray[Any], image: Image, path: Path, crop: str = SQUARE) -> list[str]:
    """What is suspicious about a readable image, in words.

    Args:
        data: the file's bytes.
        raw: see :class:`solder_vae.data.image_files.Decoded`.
        image: ``(H, W, 3)`` uint8.
        path: the file's.
        crop: the source's.
    """
    found = []
    height, width = image.shape[:2]
    kind = format_of(data)
    if path.suffix.lower() not in _SUFFIXES.get(kind, {path.suffix.lower()}):
        found.append(f"content is {kind}, but the name ends in {printable(path.suffix)}")
    if cut_short(data, kind):
        found.append("the file's end is missing: cut short")
    if height * width > LARGE:
        found.append(f"very large: {width}x{height} px, surely more than one joint")
    if min(height, width) < TINY:
        found.append(f"very small: {width}x{height} px")
    if max(height, width) >= ASPECT * min(height, width):
        used = ", of which only the central square is used" if crop == SQUARE else ""
        found.append(f"very long: {width}x{height} px{used}")
    deviation = float(image.std(axis=(0, 1)).max())
    if deviation == 0:
        found.append("constant: every pixel has the same colour")
    elif deviation < 1:
        found.append("nearly constant: colours vary by less than one of 256 grey levels")
    if raw.dtype == np.uint16:
        dark = int(raw.max()) < 1 << 12
        found.append("16 bit" + (", but its values need only 12 bits, so it becomes nearly black" if dark else ""))
    if raw.ndim == 3 and raw.shape[2] == 4:
        opaque = bool((raw[..., 3] == np.iinfo(raw.dtype).max).all())
        found.append("has an alpha channel, opaque all over" if opaque else "transparent in places: black there")
    return found


def cut_short(data: Image, kind: str) -> bool:
    """Whether the end of a file that decodes is missing, as its format tells (of TIFF it doesn't)."""
    if kind in ("png", "jpeg"):
        return not is_whole(data.tobytes())
    if kind in ("bmp", "webp"):
        start, more = (2, 0) if kind == "bmp" else (4, 8)
        return len(data) < int.from_bytes(data[start : start + 4].tobytes(), "little") + more
    return False
