"""BMP, PNM and JPEG 2000 whose headers say more than OpenCV listens to."""

import base64
import re
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from solder_vae.data.image_files import read_image
from solder_vae.utils.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (12, 10), dtype=np.uint8)
B, G, R, A = 0xFF, 0xFF00, 0xFF0000, 0xFF000000


def bmp(path, rgb, fourth, version, masks, compression=3):
    """A BMP of 32 bits as Windows describes it: masks of red, green, blue and, from the third version on, alpha."""
    values = np.zeros(rgb.shape[:2], np.uint32)
    used = 0
    for channel, mask in zip([*np.moveaxis(rgb, 2, 0)], masks[:3], strict=True):
        values |= channel.astype(np.uint32) << (mask.bit_length() - 8)
        used |= mask
    rest = masks[3] or (~used & 0xFFFFFFFF)
    values |= fourth.astype(np.uint32) << (rest.bit_length() - 8)
    body = values[::-1].astype("<u4").tobytes()
    told = struct.pack("<IIII", *masks) + bytes(200)
    more = told[:12] if version == 40 and compression == 3 else told[: version - 40]
    height, width = rgb.shape[:2]
    header = struct.pack("<IiiHHIIiiII", version, width, height, 1, 32, compression, len(body), 2835, 2835, 0, 0) + more
    start = 14 + len(header)
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + body)
    return path


@pytest.mark.parametrize("version", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("masks", [(R, G, B, 0), (B, G, R, 0)])
def test_bmp_alpha_that_nobody_declared(tmp_path, version, masks):
    for fourth in (ALPHA, np.zeros_like(ALPHA)):
        np.testing.assert_array_equal(read_image(bmp(tmp_path / "a.bmp", RGB, fourth, version, masks)), RGB)


@pytest.mark.parametrize("version", [40, 108, 124])
def test_bmp_without_masks_has_no_alpha(tmp_path, version):
    np.testing.assert_array_equal(read_image(bmp(tmp_path / "a.bmp", RGB, ALPHA, version, (R, G, B, 0), 0)), RGB)


@pytest.mark.parametrize("version", [56, 108, 124])
def test_bmp_alpha_that_is_declared(tmp_path, version):
    path = bmp(tmp_path / "a.bmp", RGB, ALPHA, version, (R, G, B, A))
    np.testing.assert_array_equal(read_image(path), np.rint(RGB * (ALPHA[..., None] / 255)))
    path = bmp(tmp_path / "a.bmp", RGB, np.zeros_like(ALPHA), version, (R, G, B, A))
    np.testing.assert_array_equal(read_image(path), RGB)


def test_bmp_of_other_masks_is_refused(tmp_path):
    path = bmp(tmp_path / "a.bmp", RGB, ALPHA, 40, (R, G, B, 0))
    path.write_bytes(path.read_bytes().replace(struct.pack("<III", R, G, B), struct.pack("<III", 0x3FF, 0x1FF, 7)))
    with pytest.raises(UserError, match="colours don't have 8 bits each"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_that_hides_everything_is_none(tmp_path, suffix):
    hidden = np.dstack([RGB, np.zeros_like(ALPHA)])
    Image.fromarray(hidden).save(tmp_path / f"a{suffix}", lossless=True, exact=True)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), RGB)


@pytest.mark.parametrize("most", [1, 15, 100, 255, 256, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_pnm_goes_up_to_what_it_says(tmp_path, most, kind):
    values = np.random.default_rng(2).integers(0, most + 1, (6, 5, 3 if kind in ("P3", "P6") else 1))
    values.flat[:2] = 0, most
    text = kind in ("P2", "P3")
    body = (" ".join(map(str, values.flat)) + "\n").encode() if text else values.astype("u1" if most < 256 else ">u2")
    content = f"{kind}\n# by hand\n5 6\n{most}\n".encode() + (body if text else body.tobytes())
    (tmp_path / "a.pnm").write_bytes(content)
    expected = np.broadcast_to(values / most * 255, (6, 5, 3))
    np.testing.assert_allclose(read_image(tmp_path / "a.pnm").astype(float), expected, atol=1.01 if text else 0.51)


def test_pbm_and_sun_raster(tmp_path):
    bits = RGB[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "a.pbm")
    np.testing.assert_array_equal(read_image(tmp_path / "a.pbm"), np.dstack([bits * np.uint8(255)] * 3))
    (tmp_path / "a.ras").write_bytes(cv2.imencode(".ras", RGB[..., ::-1])[1].tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.ras"), RGB)


def test_pam_is_refused(tmp_path):
    header = b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    (tmp_path / "a.pnm").write_bytes(header + bytes(16))
    with pytest.raises(UserError, match=re.escape("is a PAM picture")):
        read_image(tmp_path / "a.pnm")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_jpeg_2000(tmp_path, mode):
    """Lossless, as Pillow writes it."""
    image = {
        "L": RGB[..., 0],
        "RGB": RGB,
        "RGBA": np.dstack([RGB, ALPHA]),
        "I;16": RGB[..., 0].astype(np.uint16) * 257,
    }[mode]
    image = np.kron(image, np.ones((4, 4) + (1,) * (image.ndim - 2), image.dtype))
    Image.fromarray(image).save(tmp_path / "a.jp2")
    grey = mode in ("L", "I;16")
    expected = np.dstack([image // (257 if mode == "I;16" else 1)] * 3) if grey else image[..., :3]
    if mode == "RGBA":
        expected = np.rint(expected * (image[..., 3:] / 255))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jp2"), expected)


# 8 x 8, the left half 1000 and the right half 4095 of 12 bits, without loss; imagecodecs wrote it.
TWELVE_BITS = (
    "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABCwEB/1IADAAAAAEAAAQEAAH/XAAEQGD/ZA"
    "AlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAABbAAH/k8/lKBFQRwm/xHgwLR9iTqZ+"
    "AYEFPaUebD82H5sPzYfmw/Nh+bD82H5sPzYfmw/NiEJexGIAAX4nLqjatP2I5sPzYfmw/Nh+bD82H5sP/9k="
)


def test_jpeg_2000_of_12_bits(tmp_path):
    """Its header says 12 bits: 4095 is white."""
    (tmp_path / "a.jp2").write_bytes(base64.b64decode(TWELVE_BITS))
    assert np.unique(read_image(tmp_path / "a.jp2")).tolist() == [round(1000 / 4095 * 255), 255]
