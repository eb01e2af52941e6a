"""The image reader against files of every kind, and the geometry and scaling of what follows it."""

import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solder_vae.data.image_files import MAX_PIXELS, read_image
from solder_vae.data.transforms import augment, augmentation, centre_square, prepare, prepare_mask, to_images, to_tensor
from solder_vae.utils.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def write(path: Path, image: np.ndarray, *options: int) -> Path:
    """Encode an RGB, RGBA or grey image in the format of the suffix."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(path.suffix.lower(), image, list(options))
    assert done
    path.write_bytes(data.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".TIFF", ".bmp", ".webp"])
def test_lossless_formats_give_back_the_very_pixels(tmp_path, suffix):
    options = (cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()
    np.testing.assert_array_equal(read_image(write(tmp_path / f"a{suffix}", RGB, *options)), RGB)


def test_jpeg_keeps_channel_order(tmp_path):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    mean = read_image(write(tmp_path / "a.jpg", red)).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(mean, [200, 0, 0], atol=3)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp"])
def test_grey_is_repeated(tmp_path, suffix):
    grey = RGB[..., 0]
    np.testing.assert_array_equal(read_image(write(tmp_path / f"a{suffix}", grey)), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_is_scaled_not_cut(tmp_path, suffix, channels):
    deep = RNG.integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    deep[0, 0], deep[0, 1] = 65535, 0
    deep[..., 3:] = 65535
    got = read_image(write(tmp_path / f"a{suffix}", deep[..., 0] if channels == 1 else deep))
    expected = np.rint(deep[..., :3] / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(got, np.broadcast_to(expected, got.shape))


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_transparency_is_composited_over_black(tmp_path, suffix):
    rgba = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    expected = np.rint(rgba[..., :3].astype(float) * rgba[..., 3:] / 255)
    np.testing.assert_array_equal(read_image(write(tmp_path / f"a{suffix}", rgba)), expected)


def exif(orientation: int) -> bytes:
    """A JPEG's APP1 segment that holds nothing but the orientation."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff


UPRIGHT = {  # what turns the stored pixels upright, by the EXIF standard
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_applied(tmp_path, orientation):
    plain = write(tmp_path / "plain.jpg", cv2.resize(RGB, (24, 16), interpolation=cv2.INTER_NEAREST))
    stored = read_image(plain)
    data = plain.read_bytes()
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(data[:2] + exif(orientation) + data[2:])
    np.testing.assert_array_equal(read_image(turned), UPRIGHT[orientation](stored))


@pytest.mark.parametrize("name", ["Lötstelle 焊点 🔥.png", "new\nline.png", "'quote\".png", "x" * 251 + ".png"])
def test_any_file_name(tmp_path, name):
    np.testing.assert_array_equal(read_image(write(tmp_path / name, RGB)), RGB)


def test_file_name_that_is_not_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png"))
    np.testing.assert_array_equal(read_image(write(path, RGB)), RGB)


def png_file(width: int, height: int, pixels: bytes = bytes(1000)) -> bytes:
    """An RGB PNG that claims a size, whatever pixels it holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"not an image", "no readable image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no readable image"),
        (png_file(64, 64), "no readable image"),
        (png_file(1 << 18, 1 << 18), "million pixels"),
    ],
)
def test_bad_content_is_one_sentence_that_names_the_file(tmp_path, content, says):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp"])
def test_cut_files_are_refused(tmp_path, suffix):
    whole = write(tmp_path / f"a{suffix}", RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"no readable image|cut short"):
        read_image(cut)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_less_than_two_pixels_are_refused(tmp_path, shape):
    with pytest.raises(UserError, match="at least 2"):
        read_image(write(tmp_path / "a.png", np.zeros((*shape, 3), np.uint8)))


def test_two_pixels_are_enough(tmp_path):
    image = read_image(write(tmp_path / "a.png", RGB[:2, :2]))
    assert prepare(image, 64).shape == (64, 64, 3)


def test_float_pixels_are_refused(tmp_path):
    with pytest.raises(UserError, match="float32"):
        read_image(write(tmp_path / "a.tiff", np.zeros((4, 4), np.float32)))


def test_what_is_no_file_is_refused(tmp_path):
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    for path in (
        fifo,
        tmp_path / "dangling.png",
        tmp_path / "endless.png",
        tmp_path,
        tmp_path / "missing",
        "\0",
    ):
        with pytest.raises(UserError):
            read_image(path)


def test_file_larger_than_any_allowed_image_is_not_read(tmp_path):
    path = tmp_path / "huge.tiff"
    with path.open("wb") as file:
        file.truncate(9 * MAX_PIXELS)  # sparse: takes no space on disk
    with pytest.raises(UserError, match="too large"):
        read_image(path)


def read_in_a_fresh_process(path: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import resource, sys\n"
        "from solder_vae.data.image_files import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_image(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_decompression_bomb_is_refused_by_its_header(tmp_path):
    """In a process of its own: OpenCV takes the limit when it is first imported, as this file does."""
    path = tmp_path / "bomb.png"
    side = math.isqrt(MAX_PIXELS) + 1
    path.write_bytes(png_file(side, side, bytes(side * (3 * side + 1))))
    assert path.stat().st_size < 1_000_000  # for 200 MB of pixels
    error, megabytes = read_in_a_fresh_process(path).stdout.splitlines()
    assert error.startswith("UserError")
    assert "67 million pixels" in error
    assert int(megabytes) < 50


def test_opencv_is_silent_about_bad_files(tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    done = read_in_a_fresh_process(path)
    assert done.stdout.startswith("UserError")
    assert done.stderr == ""


@given(st.integers(2, 40), st.integers(2, 40))
def test_centre_square_is_square_and_central(height, width):
    rows, columns = np.mgrid[:height, :width]
    square = centre_square(np.stack([rows, columns], axis=-1))
    side = min(height, width)
    assert square.shape == (side, side, 2)
    for axis, length in enumerate((height, width)):
        before, after = square[..., axis].min(), length - 1 - square[..., axis].max()
        assert after - before in (0, 1)


def test_prepare_leaves_a_square_of_the_right_size_alone():
    image = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(prepare(image, 64), image)


def test_prepare_averages_over_areas_when_shrinking():
    image = RNG.integers(0, 256, (192, 214, 3), dtype=np.uint8)  # three times as large: at twice, bilinear is the same
    blocks = image[:, 11:203].reshape(64, 3, 64, 3, 3).mean(axis=(1, 3))
    assert np.abs(prepare(image, 64) - blocks).max() <= 0.5


@given(st.integers(2, 90), st.sampled_from([8, 16, 64]))
def test_prepare_resizes_as_albumentations_does(side, size):
    image = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    theirs = A.Resize(size, size, interpolation=cv2.INTER_LINEAR, area_for_downscale="image").apply(image)
    np.testing.assert_array_equal(prepare(image, size), theirs)


@given(st.integers(2, 90), st.integers(2, 90), st.integers(0, 255))
def test_prepare_keeps_plain_colour(height, width, value):
    image = np.full((height, width, 3), value, np.uint8)
    assert (prepare(image, 16) == value).all()


def test_mask_follows_the_image():
    mask = RNG.random((30, 45)) < 0.3
    mask[5:20, 10:30] = True
    image = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    for size in (12, 30, 64):
        np.testing.assert_array_equal(prepare_mask(mask, size), prepare(image, size)[..., 0] > 127)


def test_to_tensor_scales_to_the_range_and_keeps_channels_last():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    tensor = to_tensor(ramp)
    assert tensor.shape == (1, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    expected = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    torch.testing.assert_close(tensor[0, 1].flatten().double(), expected, atol=1e-7, rtol=0)
    assert (tensor.min(), tensor.max()) == (-1, 1)


def test_to_images_inverts_to_tensor_and_clips():
    images = RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_images(to_tensor(images)), images)
    np.testing.assert_array_equal(to_images(torch.tensor([-7.0, 7.0]).expand(1, 3, 1, 2))[0, 0, :, 0], [0, 255])


def flips(images: np.ndarray, augmented: np.ndarray) -> np.ndarray:
    """Which images are mirrored; every image must be either mirrored or as it was."""
    same = (images == augmented).all(axis=(1, 2, 3))
    mirrored = (images[:, :, ::-1] == augmented).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    return mirrored


def keys(seed: int, epoch: int, count: int) -> list[tuple[int, int, int]]:
    return [(seed, epoch, image) for image in range(count)]


def test_default_augmentation_mirrors_half_of_the_images():
    images = RNG.integers(0, 256, (1000, 4, 4, 3), dtype=np.uint8)
    assert 440 < flips(images, augment(images, augmentation(), keys(0, 0, 1000))).sum() < 560


def test_augmentation_depends_on_its_key_alone():
    images = RNG.integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
    compose = augmentation()
    first = augment(images, compose, keys(0, 0, 64))
    others = [augment(images, compose, keys(seed, epoch, 64)) for seed, epoch in [(1, 0), (0, 1)]]
    assert all((first != other).any() for other in others)
    some = [7, 3, 60]  # whatever else is in the batch, in whatever order
    np.testing.assert_array_equal(augment(images[some], augmentation(), [(0, 0, i) for i in some]), first[some])


def test_both_generators_of_a_transform_are_set_by_the_key():
    """Those that draw numbers for pixels use NumPy's, the others Python's."""
    images = RNG.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    compose = augmentation([A.GaussNoise(p=0.5), A.RandomBrightnessContrast(p=0.5)])
    first, again = (augment(images, compose, keys(0, 0, 8)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    noise = first.astype(int) - images
    assert len({part.tobytes() for part in noise}) >= 4, "images share their noise"


def test_transforms_of_a_list_decide_independently():
    images = RNG.integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
    both = augment(images, augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]), keys(0, 0, 200))
    kinds = [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    assert all((kind == both).all(axis=(1, 2, 3)).sum() > 25 for kind in kinds)


@pytest.mark.parametrize("transform", [A.Normalize(), A.CenterCrop(64, 64), A.ToFloat()])
def test_augmentations_that_change_size_or_type_are_refused(transform):
    with pytest.raises(UserError, match="keep size and type"):
        augmentation([transform])


def test_empty_list_switches_augmentation_off():
    images = RNG.integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(augment(images, augmentation([]), keys(0, 0, 50)), images)
