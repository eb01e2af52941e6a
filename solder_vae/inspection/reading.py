"""Reading joints' pictures ahead of the network: files or arrays in, prepared images out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import MAX_PIXELS, MIN_SIDE, Image, read_image
from solder_vae.data.view import apply_view
from solder_vae.inspection.joints import Joint
from solder_vae.utils.errors import UserError
from solder_vae.utils.threads import in_threads

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
