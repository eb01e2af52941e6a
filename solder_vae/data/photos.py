"""Photographs on disk that have been decoded once: size and digest of each, and the pictures, kept or decoded again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import Image, read_image
from solder_vae.data.layouts import Record
from solder_vae.data.transforms import PLAIN, apply_view
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.threads import in_threads, tracked

_AT_ONCE = 256  # pictures at a time, in a pass through all


@dataclass(frozen=True, slots=True)
class Photo(Record):
    """A record of an image that could be decoded.

    Attributes:
        native_size: height and width in pixels.
        digest: of all decoded pixels; equal for copies, whatever their files' names and formats.
    """

    native_size: tuple[int, int]
    digest: str

    def sort_key(self) -> tuple[bool, str, str, Path]:
        """By defect type, normals first, then by content; the path only orders copies."""
        return (self.defect != NORMAL, self.defect, self.digest, self.path)


def photo_of(record: Record, image: Image) -> Photo:
    """What is known of a record's image ``(H, W, 3)`` uint8."""
    height, width = image.shape[:2]
    known = record.path, record.defect, record.split, record.group
    return Photo(*known, (height, width), digest_of(image), type=record.type)


def digest_of(image: Image) -> str:
    """The digest of the pixels ``(H, W, 3)`` uint8: equal for copies."""
    height, width = image.shape[:2]
    digest = blake2b(f"{height}x{width}".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def decode(record: Record, image_size: int, view: str, crop: str = SQUARE) -> tuple[Photo, Image]:
    """Read one image; what is known of it, and its picture ``(S, S, 3)`` uint8 in a view.

    Raises:
        UserError: see :func:`solder_vae.data.image_files.read_image`.
    """
    image = read_image(record.path)
    return photo_of(record, image), apply_view(image, image_size, view, crop)


def decode_all(
    records: Sequence[Record], image_size: int, view: str = PLAIN, keep: int = 0, crop: str = SQUARE
) -> tuple[list[Photo | UserError], dict[str, Image]]:
    """Decode every image once, in threads, with a progress bar on a terminal.

    Returns:
        The photos in the records' order, an error in the place of what can't be used; and the pictures of the
        first ``keep`` different ones, by digest.
    """
    photos: list[Photo | UserError] = []
    kept: dict[str, Image] = {}
    work = partial(_decode_or_error, image_size=image_size, view=view, crop=crop)
    for result in tracked(in_threads(work, records), "Reading images", len(records)):
        if isinstance(result, UserError):
            photos.append(result)
            continue
        photo, picture = result
        photos.append(photo)
        if len(kept) < keep:
            kept[photo.digest] = picture
    return photos, kept


def _decode_or_error(record: Record, image_size: int, view: str, crop: str) -> tuple[Photo, Image] | UserError:
    try:
        return decode(record, image_size, view, crop)
    except UserError as error:
        return error


class PhotoImages:
    """Pictures of photos, indexed like an array ``(N, S, S, 3)`` uint8; those that aren't kept are decoded each time.

    Going through all of them takes the memory of a few hundred.

    Args:
        photos: N of them.
        image_size: side S.
        view: see :mod:`solder_vae.data.transforms`.
        kept: pictures by digest.
        crop: see :mod:`solder_vae.data.framing`.
    """

    def __init__(
        self, photos: Sequence[Photo], image_size: int, view: str, kept: Mapping[str, Image], crop: str = SQUARE
    ) -> None:
        self.photos = photos
        self.view, self.crop = view, crop
        self.kept = kept
        self.shape = (len(photos), image_size, image_size, 3)
        self._rows = np.arange(len(photos))

    def __len__(self) -> int:
        return len(self.photos)

    def __iter__(self) -> Iterator[Image]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self[start : start + _AT_ONCE]

    def __getitem__(self, rows: Any) -> Image:
        """The pictures ``(n, S, S, 3)`` of rows given in any of numpy's ways, or the one ``(S, S, 3)`` of a number.

        Raises:
            UserError: a file has gone or changed.
        """
        chosen = self._rows[rows]
        photos = [self.photos[row] for row in np.atleast_1d(chosen)]
        pictures = np.empty((len(photos), *self.shape[1:]), np.uint8)
        again = [place for place, photo in enumerate(photos) if photo.digest not in self.kept]
        for place, picture in zip(again, in_threads(self._again, [photos[place] for place in again]), strict=True):
            pictures[place] = picture
        for place, photo in enumerate(photos):
            if photo.digest in self.kept:
                pictures[place] = self.kept[photo.digest]
        return pictures if chosen.ndim else pictures[0]

    def _again(self, photo: Photo) -> Image:
        now, picture = decode(photo, self.shape[1], self.view, self.crop)
        if now.digest != photo.digest:
            raise UserError(
                f"{photo.name}: has changed since this run began; start again, and leave the images alone meanwhile."
            )
        return picture
