"""What headers say of pixels and OpenCV ignores: those of TIFF, and of BMP, PNM and JPEG 2000.

What OpenCV gets wrong of TIFF, with no word about it: 16 bit where 0 is white, 16 bit stored plane by plane, grey with
alpha, and pixels compressed in ways that it does not know. The tags of the first page tell all of these (TIFF 6.0).
Where the samples lie in an order that OpenCV doesn't know, the page is described to it as one that it knows.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solder_vae.utils.errors import UserError

Pixels = NDArray[Any]

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS, PLANAR, PREDICTOR = 273, 274, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
READ_PHOTOMETRICS = {WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, 3, 5, 6}  # and a palette, CMYK, YCbCr
READ_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946}
"""None, fax, LZW, JPEG, deflate, PackBits: what OpenCV's libtiff has."""

JPEGS = {6, 7}
_NAMES = {34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "zstd", 50001: "WebP", 50002: "JPEG XL"}
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # of whole numbers; the others are of no use here
_MOST_VALUES = 1 << 22  # of strips or tiles: a strip of one row each of an image of the largest size


class Tags(dict[int, tuple[int, ...]]):
    """The whole numbers in the first page's directory, by tag.

    Attributes:
        order: of the bytes, "<" or ">".
        big: whether it is BigTIFF.
        at: where in the file each tag's values are.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = struct.unpack_from(self.order + "H", data, 2)[0] == 43
        self.at: dict[int, int] = {}
        word, counter, inline = ("Q", "Q", 8) if self.big else ("I", "H", 4)
        (start,) = struct.unpack_from(self.order + word, data, 8 if self.big else 4)
        (entries,) = struct.unpack_from(self.order + counter, data, start)
        start += struct.calcsize(self.order + counter)
        size = 4 + 2 * inline
        for entry in range(start, start + min(entries, 4096) * size, size):
            code, kind, count = struct.unpack_from(f"{self.order}HH{word}", data, entry)
            if kind not in _TYPES or count > _MOST_VALUES or code in self:
                continue
            layout = f"{self.order}{count}{_TYPES[kind]}"
            at = entry + 4 + inline
            if struct.calcsize(layout) > inline:
                (at,) = struct.unpack_from(self.order + word, data, at)
            self.at[code] = at
            self[code] = struct.unpack_from(layout, data, at)

    def one(self, code: int, default: int) -> int:
        """The first value of a tag."""
        values = self.get(code)
        return values[0] if values else default


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins so is a TIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def decode_tiff(data: bytes, decode: Callable[[bytes], Pixels], path: str | Path) -> tuple[Pixels, bool]:
    """The first page's pixels, as its tags mean them.

    Args:
        data: the file's bytes.
        decode: cv2.imdecode of bytes, unchanged, which raises UserError where it can't.
        path: the file's, for messages.

    Returns:
        Pixels ``(H, W)``, ``(H, W, 3)`` BGR or ``(H, W, 4)`` BGRA, with a fourth channel only where it is alpha that
        the colour is not multiplied with yet; and whether they can be had from OpenCV alone in the same way.

    Raises:
        UserError: they can't be told for sure.
    """
    try:
        return _meant(data, Tags(data), decode, path)
    except (struct.error, OverflowError) as error:
        raise UserError(f"{path}: is no readable image (its TIFF directory is cut short or corrupt).") from error


def _meant(data: bytes, tags: Tags, decode: Callable[[bytes], Pixels], path: str | Path) -> tuple[Pixels, bool]:
    samples, photometric = tags.one(SAMPLES, 1), tags.one(PHOTOMETRIC, BLACK_IS_ZERO)
    bits, compression = max(tags.get(BITS, (1,)), default=1), tags.one(COMPRESSION, 1)
    if compression not in READ_COMPRESSIONS:
        name = _NAMES.get(compression, f"method {compression}")
        raise UserError(f"{path}: is a TIFF compressed with {name}, which is not read; save it with LZW or none.")
    if photometric not in READ_PHOTOMETRICS or (photometric == 5 and bits != 8):
        raise UserError(f"{path}: is a TIFF of colours that are not read (Lab, for example); save it as RGB or grey.")
    grey, wide = photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO), bits > 8
    planes = samples > 1 and tags.one(PLANAR, 1) == 2
    alpha = tags.get(EXTRA, ())[:1] == (2,)  # 0: not said what it is; 1: alpha, multiplied with already
    if samples not in ((1, 2) if grey else (1, 3, 4)):
        raise UserError(f"{path}: is a TIFF of {samples} samples a pixel, which is not read; save it as RGB or grey.")
    if (grey and samples == 2) or (planes and wide):
        return _by_samples(data, tags, decode, path, alpha=alpha), False
    if samples == 1:
        pixels = decode(data)
        white = photometric == WHITE_IS_ZERO and pixels.dtype == np.uint16
        return (np.iinfo(np.uint16).max - pixels, False) if white else (pixels, True)
    if photometric != RGB or samples == 3:
        pixels = decode(data)
        plain = pixels.ndim < 3 or pixels.shape[2] < 4
        return (pixels if plain else pixels[..., :3]), plain  # a fourth channel of CMYK is none
    if alpha and not wide:
        # 8 bit would come multiplied with alpha, and black where that is 0: called something else, it comes as it is.
        at = tags.at[EXTRA]
        data = data[:at] + b"\0\0" + data[at + 2 :]
    pixels = decode(data)
    return (pixels if alpha else pixels[..., :3]), False


def _by_samples(data: bytes, tags: Tags, decode: Callable[[bytes], Pixels], path: str | Path, *, alpha: bool) -> Pixels:
    """Grey or RGB, with or without alpha, from its samples, each plane decoded as a grey picture.

    Samples that lie pixel by pixel are decoded as a grey picture that is as many times as wide.
    """
    samples, bits = tags.one(SAMPLES, 1), tags.get(BITS, (1,))
    unsigned = set(tags.get(FORMAT, (1,))) == {1}
    tiled = TILE_OFFSETS in tags
    together = tags.one(PLANAR, 1) != 2
    differences = together and tags.one(PREDICTOR, 1) == 2
    known = set(bits) in ({8}, {16}) and unsigned and tags.one(COMPRESSION, 1) not in JPEGS
    if not known or tags.one(PREDICTOR, 1) not in (1, 2) or (differences and tiled):
        raise UserError(f"{path}: is a TIFF whose samples are stored in a way that is not read; save it as PNG.")
    offsets, counts = (TILE_OFFSETS, TILE_COUNTS) if tiled else (OFFSETS, COUNTS)
    kept = (WIDTH, HEIGHT, COMPRESSION, FILL_ORDER, ROWS, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, offsets, counts)
    page = {code: tags[code] for code in kept if tags.get(code)}
    page |= {BITS: bits[:1], PHOTOMETRIC: (BLACK_IS_ZERO,), SAMPLES: (1,)}
    if together:
        for code in (WIDTH, TILE_WIDTH):
            if code in page:
                page[code] = (samples * page[code][0],)
        if differences:
            page[PREDICTOR] = (1,)
        flat = decode(_described(data, tags, page))
        if flat.ndim != 2 or flat.shape[1] % samples:
            raise UserError(f"{path}: is no readable image (its TIFF directory is corrupt); copy it again.")
        pixels = flat.reshape(flat.shape[0], -1, samples)
        if differences:  # of each sample to that of the pixel on its left, whatever it overflows
            pixels = np.cumsum(pixels, axis=1, dtype=pixels.dtype)
    else:
        each = len(tags.get(offsets, ())) // samples
        if not each or len(tags.get(counts, ())) != samples * each or len(tags[offsets]) != samples * each:
            raise UserError(f"{path}: is no readable image (its planes are incomplete); copy it again.")
        parts = [slice(plane * each, (plane + 1) * each) for plane in range(samples)]
        planes = [{**page, offsets: tags[offsets][part], counts: tags[counts][part]} for part in parts]
        pixels = np.dstack([decode(_described(data, tags, plane)) for plane in planes])
    if tags.one(PHOTOMETRIC, BLACK_IS_ZERO) == WHITE_IS_ZERO:
        pixels[..., 0] = np.iinfo(pixels.dtype).max - pixels[..., 0]
    colour = pixels[..., :3][..., ::-1] if samples > 2 else pixels[..., :1].repeat(3, axis=2)
    pixels = np.dstack([colour, pixels[..., -1:]]) if alpha else colour
    return np.ascontiguousarray(_turned(pixels, tags.one(ORIENTATION, 1)))


def _described(data: bytes, tags: Tags, page: dict[int, tuple[int, ...]]) -> bytes:
    """The file with another first directory, at its end, of these tags alone."""
    word, kind, counter = ("Q", 16, "Q") if tags.big else ("I", 4, "H")
    body = bytearray(data) + bytes(-len(data) % 8)
    entries = b""
    for code, values in sorted(page.items()):
        packed = struct.pack(f"{tags.order}{len(values)}{word}", *values)
        if len(values) > 1:
            at = len(body)
            body += packed
            packed = struct.pack(tags.order + word, at)
        entries += struct.pack(f"{tags.order}HH{word}", code, kind, len(values)) + packed
    struct.pack_into(tags.order + word, body, 8 if tags.big else 4, len(body))
    return bytes(body + struct.pack(tags.order + counter, len(page)) + entries + struct.pack(tags.order + word, 0))


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Upright: the eight orientations name the corner and the side where the first row and column are."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


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
