"""Files of few bytes that would take gigabytes or hours to decode, found by their structure before they are decoded.

The number of pixels is checked elsewhere (``OPENCV_IO_MAX_IMAGE_PIXELS``). This module checks files whose header is
harmless.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
START_OF_SCAN = b"\xff\xda"
SCAN, END = 0xDA, 0xD9
_BARE = {0x01, 0xD8}  # markers that nothing belongs to
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # between pixels are 0xff00 and 0xffd0 to 0xffd7

MAX_SCANS = 100
"""Scans of a JPEG file. Cameras write 1, progressive files have about 10. An empty scan has few bytes but costs a pass
over all pixels."""

INFLATED_UNCHECKED = 1 << 18
"""PNG data of fewer bytes are not inflated for the check: decoding them takes a second at most."""


def is_bomb(data: bytes) -> bool:
    """Whether a PNG or JPEG file is not what its header says (False for other formats)."""
    if data.startswith(PNG):
        return not _chunks_fit(data) or _inflates_too_much(data)
    # What looks like the start of a scan may be a thumbnail's or lie behind the end: only many are looked at closely.
    return (
        data.startswith(JPEG)
        and data.count(START_OF_SCAN) > MAX_SCANS
        and sum(kind == SCAN for kind, _ in _segments(data)) > MAX_SCANS
    )


def is_whole(data: bytes) -> bool:
    """Whether a PNG or JPEG file is complete; data after its end are ignored (True for other formats)."""
    if data.startswith(PNG):
        return any(kind == b"IEND" and end + 4 <= len(data) for kind, _, end in _chunks(data))
    return not data.startswith(JPEG) or any(kind == END for kind, _ in _segments(data))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment of a JPEG up to its end; cameras append raw data behind that, and phones a film.

    As libjpeg does: a segment is as long as it says, and what lies between segments is passed over, as are the pixels
    behind the header of a scan.
    """
    found = _MARKER.search(data, len(JPEG))
    while found:
        kind, at = found[0][-1], found.end()
        yield kind, at
        if kind == END:
            return
        length = 0 if kind in _BARE else max(2, int.from_bytes(data[at : at + 2], "big"))
        found = _MARKER.search(data, at + length)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the content of each chunk of a PNG; the last one may end behind the file's end."""
    at = len(PNG)
    while at + 8 <= len(data):
        kind, begin = data[at + 4 : at + 8], at + 8
        end = begin + int.from_bytes(data[at : at + 4], "big")
        yield kind, begin, end
        if kind == b"IEND":
            return
        at = end + 4


def _chunks_fit(data: bytes) -> bool:
    """Whether chunks are as long as they say: OpenCV allocates that length, up to 4 GiB, before it reads them."""
    return all(end + 4 <= len(data) or begin == end for _, begin, end in _chunks(data))


def _inflates_too_much(data: bytes) -> bool:
    """Whether data follow the last pixel: libpng inflates them, too, to up to a thousand times the file's size."""
    pixels = [slice(begin, end) for kind, begin, end in _chunks(data) if kind == b"IDAT"]
    if sum(part.stop - part.start for part in pixels) <= INFLATED_UNCHECKED:
        return False
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    left = height * (8 * width + 16)  # 16 bits, four channels; a byte for each row's filter, more if interlaced
    stream = zlib.decompressobj()
    try:
        for part in pixels:
            content = data[part]
            while content:
                left -= len(stream.decompress(content, 1 << 20))
                content = stream.unconsumed_tail
                if left < 0:
                    return True
    except zlib.error:
        return False  # damaged: the decoder will say so
    return False
