"""One image file read safely: bytes, decoding, RGB, 8 bit."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.decompression_bombs import is_bomb
from solder_vae.data.formats import as_declared, decode_tiff, is_tiff
from solder_vae.utils.errors import UserError

# A bad file is reported once, by UserError, and not by OpenCV on stderr as well.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

MAX_PIXELS = 1 << 26
"""Images of more pixels (8192 x 8192) are refused: few bytes on disk could fill the memory when decoded. OpenCV has the
same limit for a file's header (:mod:`solder_vae`)."""

MIN_SIDE = 2
"""Images with a shorter side are refused: a single row of pixels shows nothing."""

Image = NDArray[np.uint8]

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a grey image (ITU-R BT.601)."""


def read_image(path: str | Path) -> Image:
    """Read an image file as it is meant to be seen: upright, RGB, 8 bit.

    Grey is repeated over the three channels. 16 bit is scaled by 1/257, so that 65535 becomes 255.
    Transparency is composited over black, since the colour stored under it is arbitrary; a fourth channel is
    transparency only where the file says so and it doesn't hide everything. EXIF rotation is applied (except to
    images with transparency, which no camera writes). Of several pages or frames the first is taken.

    Args:
        path: PNG, JPEG, TIFF, BMP, WebP, JPEG 2000 or PNM file; its content decides, not its suffix. Any name will do.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        UserError: the file is missing, not a regular file, empty, corrupt, of more than ``MAX_PIXELS``
            pixels, of a side shorter than ``MIN_SIDE``, or neither of 8 nor of 16 bit. The message names it.
    """
    return decode_image(read_bytes(path), path)


def decode_image(data: Image, path: str | Path) -> Image:
    """What :func:`read_image` returns, from a file's bytes ``(N,)`` uint8; ``path`` names it in messages."""
    return to_rgb(decode_raw(data, path), data, path)


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image's pixels.

    Attributes:
        pixels: ``(H, W)``, ``(H, W, 3)`` BGR or ``(H, W, 4)`` BGRA, uint8 or uint16; a fourth channel only where the
            file declares it to be alpha, and it is not 0 everywhere.
        plain: whether OpenCV's colour modes give the same, turned upright.
    """

    pixels: NDArray[Any]
    plain: bool


def decode_raw(data: Image, path: str | Path) -> Decoded:
    """The pixels as the file means them; where they are plain, not turned upright yet.

    Raises:
        UserError: see :func:`read_image`.
    """
    content = data.tobytes()
    if is_bomb(content):
        raise UserError(f"{path}: is cut short or corrupt; copy it again or remove it.")
    if is_tiff(content):
        raw, plain = decode_tiff(content, partial(_decode_bytes, path=path), path)
    else:
        whole = _decode(data, cv2.IMREAD_UNCHANGED, path)
        raw = as_declared(whole, content, path)
        plain = raw is whole
    if raw.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: has {raw.dtype} pixels of unknown range; save it with 8 or 16 bits.")
    if min(raw.shape[:2]) < MIN_SIDE:
        height, width = raw.shape[:2]
        raise UserError(f"{path}: is {width}x{height} px, but a side needs at least {MIN_SIDE}; remove it.")
    if raw.ndim == 3 and raw.shape[2] == 4:
        plain = False
        if not raw[..., 3].any():  # then it hides all there is, which nobody means
            raw = np.ascontiguousarray(raw[..., :3])
    return Decoded(raw, plain)


def to_rgb(decoded: Decoded, data: Image, path: str | Path) -> Image:
    """What :func:`read_image` returns, from what :func:`decode_raw` made of the same bytes."""
    raw = decoded.pixels
    if raw.ndim == 3 and raw.shape[2] == 4:
        return _over_black(_to_8_bit(cv2.cvtColor(raw, cv2.COLOR_BGRA2RGBA)))
    if decoded.plain:
        # OpenCV turns EXIF-rotated images upright in its colour modes only; these drop alpha, hence the two ways.
        # IMREAD_COLOR_RGB would save the conversion, but scrambles TIFF of 16 bits (OpenCV 5.0).
        raw = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, path)
    return _to_8_bit(
        cv2.cvtColor(np.ascontiguousarray(raw), cv2.COLOR_GRAY2RGB if raw.ndim == 2 else cv2.COLOR_BGR2RGB)
    )


def read_bytes(path: str | Path) -> Image:
    """The file's bytes, for cv2.imdecode: cv2.imread can't open every name on every system.

    Raises:
        UserError: it is missing, empty, too large, or can't be read.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: is not a regular file; give an image file.")
        if status.st_size == 0:
            raise UserError(f"{path}: is empty (0 bytes); copy it again or remove it.")
        if status.st_size > 8 * MAX_PIXELS:  # the largest image allowed, 16-bit RGBA, stored raw
            size = f"{status.st_size / 2**30:.1f} GiB"
            raise UserError(f"{path}: has {size}, too large for an image; remove it.")
        return np.fromfile(path, dtype=np.uint8)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: can't be read ({reason}); check the path and the permissions.") from error


def _decode(data: Image, flags: int, path: str | Path) -> NDArray[Any]:
    """Decode a file's bytes with cv2.imdecode, which answers None or raises, depending on what is wrong."""
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        if "CV_IO_MAX" in str(error):
            raise UserError(
                f"{path}: claims more than {MAX_PIXELS / 1e6:.0f} million pixels, too many to decode; "
                "shrink it, or raise the limit with the environment variable OPENCV_IO_MAX_IMAGE_PIXELS."
            ) from error
        image = None
    if image is None:
        raise UserError(
            f"{path}: is no readable image (corrupt, cut short or of unknown format); copy it again, or save it as PNG."
        )
    return np.asarray(image)


def _decode_bytes(content: bytes, path: str | Path) -> NDArray[Any]:
    return _decode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED, path)


def _to_8_bit(image: NDArray[Any]) -> Image:
    """Scale the full range of 16 bits to that of 8 bits, rounding to nearest; leave 8 bits as they are."""
    if image.dtype == np.uint8:
        return image
    result = np.empty(image.shape, np.uint8)
    source, target = image.reshape(-1), result.reshape(-1)
    for part in _parts(len(source)):
        target[part] = (source[part].astype(np.uint32) + 128) // 257
    return result


def _over_black(rgba: Image) -> Image:
    """Composite ``(H, W, 4)`` over black: colour * alpha / 255, rounded to nearest."""
    result = np.empty((*rgba.shape[:2], 3), np.uint8)
    source, target = rgba.reshape(-1, 4), result.reshape(-1, 3)
    for part in _parts(len(source)):
        colour, alpha = source[part, :3].astype(np.uint16), source[part, 3:].astype(np.uint16)
        target[part] = (colour * alpha + 127) // 255
    return result


def _parts(length: int) -> Iterator[slice]:
    """Slices that cover ``length``: arithmetic in wider types then needs little memory, however large the image."""
    return (slice(start, start + (1 << 20)) for start in range(0, length, 1 << 20))


def write_png(path: Path, image: Image) -> None:
    """Write a picture ``(H, W, 3)``, or ``(H, W)`` in grey; any name will do."""
    path.write_bytes(png_bytes(image))


def png_bytes(image: Image) -> bytes:
    """A picture ``(H, W, 3)``, or ``(H, W)`` in grey, as the content of a PNG file."""
    return cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


def base64_of_jpeg(image: NDArray[Any]) -> str:
    """A picture ``(H, W, 3)`` uint8 for an HTML page. WebP takes half the room, but twenty times the time."""
    colours = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # a heat map is colours
    _, packed = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90, *colours])
    return base64.b64encode(packed.tobytes()).decode()
