"""Where a file ends, and what lies behind its end: of no concern to whether it can be read."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from solder_vae.data.decompression_bombs import is_bomb, is_whole
from solder_vae.data.image_files import read_image

RNG = np.random.default_rng(0)
PIXELS = cv2.resize(RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8), (160, 120))
SCANS = b"\xff\xda" * 1000


def jpeg(**options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


KINDS = [jpeg(), jpeg(progressive=True), jpeg(restart_marker_blocks=3), jpeg(exif=b"Exif\0\0" + b"MM\0*" + bytes(9))]
MOTION = b"\0\0\0\x18ftypmp42" + RNG.integers(0, 256, 1 << 20, dtype=np.uint8).tobytes() + SCANS


@pytest.mark.slow
@pytest.mark.parametrize("whole", KINDS, ids=range(len(KINDS)))
@pytest.mark.parametrize("behind", [SCANS, MOTION, jpeg() * 200], ids=["scans", "a film", "200 pictures"])
def test_what_is_appended_to_a_jpeg(tmp_path, whole, behind):
    """Raw data by cameras, a film by phones, more pictures of the same (MPO)."""
    (tmp_path / "plain.jpg").write_bytes(whole)
    (tmp_path / "more.jpg").write_bytes(whole + behind)
    np.testing.assert_array_equal(read_image(tmp_path / "more.jpg"), read_image(tmp_path / "plain.jpg"))
    assert is_whole(whole + behind)


@pytest.mark.parametrize("whole", KINDS)
def test_large_maker_notes(tmp_path, whole):
    """With whole pictures in them, or what looks like some."""
    notes = b"".join(b"\xff\xed" + struct.pack(">H", len(part) + 2) + part for part in (SCANS * 30, jpeg()[:60_000]))
    (tmp_path / "plain.jpg").write_bytes(whole)
    (tmp_path / "notes.jpg").write_bytes(whole[:2] + notes + whole[2:])
    np.testing.assert_array_equal(read_image(tmp_path / "notes.jpg"), read_image(tmp_path / "plain.jpg"))


@pytest.mark.parametrize("whole", KINDS)
def test_a_jpeg_that_is_cut_short(whole):
    assert is_whole(whole)
    assert not any(is_whole(whole[:-cut]) for cut in (1, 2, 10, 1000, len(whole) // 2))


def test_scans_without_end_are_a_bomb_whatever_follows():
    scan = KINDS[1].index(b"\xff\xda")
    one = KINDS[1][scan : scan + 2 + int.from_bytes(KINDS[1][scan + 2 : scan + 4], "big")] + b"\0"
    for between in (b"", b"\xff\xd0", b"\xff\x00\xff\xff", b"\xff\xfe\0\4ab"):
        assert is_bomb(KINDS[1][:scan] + (one + between) * 200 + b"\xff\xd9")
    assert not is_bomb(KINDS[1][:scan] + one + b"\xff\xd9" + one * 200)


def test_what_is_appended_to_a_png(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    whole = buffer.getvalue()
    (tmp_path / "a.png").write_bytes(whole + MOTION)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS)
    assert is_whole(whole + MOTION)
    assert not is_whole(whole[:-12])


@pytest.mark.parametrize("left", range(12))
def test_a_chunk_that_claims_more_than_follows_its_header(left):
    """OpenCV would allocate and fill what it claims; only an empty chunk, such as the end's, may lack its checksum."""
    start = cv2.imencode(".png", PIXELS)[1].tobytes()[:33]
    assert is_bomb(start + struct.pack(">I", 0x7FFFFFFF) + b"IDAT" + bytes(left))
    assert not is_bomb(start + struct.pack(">I", 0) + b"IEND"[:left])
