"""What headers of BMP, PNM and JPEG 2000 say about the pixels and OpenCV ignores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solder_vae.utils.errors import UserError

Pixels = NDArray[Any]

BITFIELDS = 3
_BYTES = {0xFF: 0, 0xFF00: 1, 0xFF0000: 2, 0xFF000000: 3}
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P([2356])" + _GAP + rb"\d+" + _GAP + rb"\d+" + _GAP + rb"(\d+)")
_CODESTREAM = b"\xff\x4f\xff\x51"
_HEADER = 1 << 16  # bytes in which PNM and JPEG 2000 tell what they are


def as_declared(pixels: Pixels, data: bytes, path: str | Path) -> Pixels:
    """Decoded pixels as the file's header means them: alpha only where it is declared, the full range in use.

    Args:
        pixels: ``(H, W)`` or ``(H, W, C)``, BGR or BGRA, from cv2.imdecode unchanged.
        data: the file's bytes.
        path: the file's, for messages.

    Raises:
        UserError: the header means something that is not known here.
    """
    if data.startswith(b"BM"):
        return _bmp(pixels, data, path)
    if data.startswith(b"P7"):
        raise UserError(f"{path}: is a PAM picture, which is not read; save it as PNG.")
    if match := _PNM.match(data[:_HEADER]):
        most = int(match[2])
        ready = most < 256 and match[1] in b"23"  # OpenCV scales these
        return pixels if ready else _full_range(pixels, most)
    if data.startswith((_CODESTREAM, b"\0\0\0\x0cjP  ")):
        head = data[:_HEADER]
        at = head.find(_CODESTREAM)
        bits = (head[at + 42] & 0x7F) + 1 if 0 <= at < len(head) - 42 else 8
        if pixels.ndim == 3 and pixels.shape[2] == 4 and b"cdef" not in head[:at]:
            pixels = pixels[..., :3]
        return _full_range(pixels, (1 << bits) - 1)
    return pixels


def _bmp(pixels: Pixels, data: bytes, path: str | Path) -> Pixels:
    """Header versions before the third have no mask for alpha, and OpenCV doesn't look at those they have."""
    version, compression = (int.from_bytes(data[at : at + 4], "little") for at in (14, 30))
    if pixels.ndim < 3 or pixels.shape[2] < 4 or version >= 56 or compression != BITFIELDS:
        return pixels
    red, green, blue = (int.from_bytes(data[at : at + 4], "little") for at in (54, 58, 62))
    if not {red, green, blue} <= _BYTES.keys():
        raise UserError(f"{path}: is a BMP whose colours don't have 8 bits each, which is not read; save it as PNG.")
    return np.ascontiguousarray(pixels[..., [_BYTES[blue], _BYTES[green], _BYTES[red]]])


def _full_range(pixels: Pixels, most: int) -> Pixels:
    """Scale what goes up to ``most`` so that it goes up to 255 or 65535."""
    top = np.iinfo(pixels.dtype).max
    if most == top or most < 1:
        return pixels
    scaled = (pixels.astype(np.uint32) * int(top) + most // 2) // most
    return np.minimum(scaled, top).astype(pixels.dtype)
