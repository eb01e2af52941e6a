"""TIFF files of every kind of samples, written by tifffile, against what a careful reader sees."""

import struct

import cv2
import numpy as np
import pytest
import tifffile

from solder_vae.data.image_files import read_image
from solder_vae.utils.errors import UserError

RNG = np.random.default_rng(0)
KINDS = [
    ("minisblack", 1, ()),
    ("miniswhite", 1, ()),
    ("minisblack", 2, ("unassalpha",)),
    ("minisblack", 2, ("assocalpha",)),
    ("minisblack", 2, ("unspecified",)),
    ("miniswhite", 2, ("unassalpha",)),
    ("rgb", 3, ()),
    ("rgb", 4, ("unassalpha",)),
    ("rgb", 4, ("assocalpha",)),
    ("rgb", 4, ("unspecified",)),
]


def seen(samples, photometric, extra):
    """What the samples ``(H, W, C)`` show, ``(H, W, 3)`` uint8, by the TIFF standard and over black."""
    colours = 3 if photometric == "rgb" else 1
    full = np.iinfo(samples.dtype).max
    eight = samples if samples.dtype == np.uint8 else np.rint(samples / 257).astype(np.uint8)
    colour = eight[..., :colours].astype(float)
    if photometric == "miniswhite":
        colour = 255 - colour
    if extra == ("unassalpha",) and samples[..., -1].any():
        colour = np.rint(colour * eight[..., -1:] / 255)
    assert full in (255, 65535)
    return np.broadcast_to(colour, (*samples.shape[:2], 3))


def tiff(path, samples, photometric, extra=(), planar="contig", **options):
    """Write samples ``(H, W, C)``."""
    channels = samples.shape[2]
    stored = samples[..., 0] if channels == 1 else samples if planar == "contig" else np.moveaxis(samples, 2, 0)
    more = {"planarconfig": planar, "extrasamples": extra} if channels > 1 else {}
    tifffile.imwrite(path, np.ascontiguousarray(stored), photometric=photometric, metadata=None, **more, **options)
    return path


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(("photometric", "channels", "extra"), KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_every_kind_of_samples(tmp_path, photometric, channels, extra, dtype, planar):
    samples = RNG.integers(0, np.iinfo(dtype).max + 1, (33, 21, channels)).astype(dtype)
    expected = seen(samples, photometric, extra)
    for number, options in enumerate(
        [
            {},
            {"byteorder": ">"},
            {"bigtiff": True},
            {"rowsperstrip": 5},
            {"compression": "zlib", "rowsperstrip": 8},
            {"compression": "zlib", "predictor": True},
            {"compression": "zlib", "tile": (16, 16)},
        ]
    ):
        path = tiff(tmp_path / f"{number}.tif", samples, photometric, extra, planar, **options)
        np.testing.assert_array_equal(read_image(path), expected, err_msg=str(options))


def test_colour_under_alpha_that_is_zero_everywhere(tmp_path):
    for dtype in (np.uint8, np.uint16):
        samples = RNG.integers(0, np.iinfo(dtype).max + 1, (12, 10, 4)).astype(dtype)
        samples[..., 3] = 0
        path = tiff(tmp_path / "a.tif", samples, "rgb", ("unassalpha",))
        np.testing.assert_array_equal(read_image(path), seen(samples, "rgb", ()))


def test_fourth_sample_without_a_word(tmp_path):
    """As OpenCV itself writes four channels."""
    samples = RNG.integers(0, 256, (12, 10, 4), dtype=np.uint8)
    path = tmp_path / "a.tif"
    path.write_bytes(cv2.imencode(".tif", cv2.cvtColor(samples, cv2.COLOR_RGBA2BGRA))[1].tobytes())
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].extrasamples == ()
    np.testing.assert_array_equal(read_image(path), samples[..., :3])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    """The same for grey with alpha and for planes, which are decoded here, as for the rest."""
    rgb = RNG.integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    tag = {"extratags": [(274, 3, 1, orientation, True)]}
    expected = read_image(tiff(tmp_path / "a.tif", rgb, "rgb", **tag))
    np.testing.assert_array_equal(read_image(tiff(tmp_path / "b.tif", rgb, "rgb", (), "separate", **tag)), expected)
    grey = read_image(tiff(tmp_path / "c.tif", rgb[..., :1], "minisblack", **tag))
    opaque = np.dstack([rgb[..., 0], np.full((9, 7), 65535, np.uint16)])
    for planar in ("contig", "separate"):
        path = tiff(tmp_path / "d.tif", opaque, "minisblack", ("unassalpha",), planar, **tag)
        np.testing.assert_array_equal(read_image(path), grey)


def refused(path, says):
    with pytest.raises(UserError, match=says) as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert "remove" not in str(error.value)


@pytest.mark.parametrize(("code", "says"), [(50000, "zstd"), (34925, "LZMA"), (34712, "JPEG 2000"), (50002, "JPEG XL")])
def test_compressions_that_are_not_read_are_named(tmp_path, code, says):
    """OpenCV makes some of these black, with no word about it."""
    path = tiff(tmp_path / "a.tif", RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8), "rgb", compression="lzma")
    path.write_bytes(
        path.read_bytes().replace(struct.pack("<HHII", 259, 3, 1, 34925), struct.pack("<HHII", 259, 3, 1, code))
    )
    refused(path, f"compressed with {says}, which is not read; save it")


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        ((12, 10, 3), {"photometric": "cielab"}),
        ((12, 10, 5), {"photometric": "rgb", "extrasamples": ("unspecified", "unassalpha")}),
        ((12, 10, 3), {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": (0, 0)}),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path, samples, options):
    for dtype in (np.uint8, np.uint16):
        tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 256, samples).astype(dtype), metadata=None, **options)
        refused(tmp_path / "a.tif", "is not read|are not read")


def test_signed_samples_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((12, 10), np.int16), photometric="minisblack", metadata=None)
    refused(tmp_path / "a.tif", "int16 pixels")


@pytest.mark.parametrize("cut", [5, 9, 12, 40, 100])
def test_directories_that_are_cut_short(tmp_path, cut):
    whole = tiff(tmp_path / "a.tif", RNG.integers(0, 65536, (12, 10, 3)).astype(np.uint16), "rgb", (), "separate")
    whole.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(UserError, match="no readable image"):
        read_image(whole)
