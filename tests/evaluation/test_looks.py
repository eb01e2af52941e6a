"""How pictures look: numbers against loops, and each change of a photograph moves its own statistic."""

import cv2
import numpy as np
import pytest

from solder_vae.data.table import ImageTable
from solder_vae.evaluation.looks import (
    BLUE,
    BRIGHTNESS,
    CONTRAST,
    LOOKS,
    OVEREXPOSED,
    RED,
    SHARPNESS,
    SIZE,
    kept_looks,
    looks_of,
    looks_of_table,
    looks_to_keep,
)
from solder_vae.metrics.drift import KEPT


def blotches(side=32, seed=0):
    coarse = np.random.default_rng(seed).integers(60, 180, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_NEAREST)


def named(image, native_size=(32, 32)):
    return dict(zip(LOOKS, looks_of(image, native_size), strict=True))


def test_the_numbers_are_those_of_a_loop():
    image = blotches()
    image[:4] = 255
    found = named(image, (40, 90))
    grey = [round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in image.reshape(-1, 3).tolist()]
    mean = sum(grey) / len(grey)
    assert found[BRIGHTNESS] == pytest.approx(mean, abs=0.1)
    assert found[CONTRAST] == pytest.approx((sum((g - mean) ** 2 for g in grey) / len(grey)) ** 0.5, abs=0.1)
    assert found[OVEREXPOSED] == pytest.approx(4 / 32, abs=0.01)
    red, green, blue = (sum(int(pixel[c]) for pixel in image.reshape(-1, 3)) for c in range(3))
    assert found[RED] == pytest.approx(red / (red + green + blue))
    assert found[BLUE] == pytest.approx(blue / (red + green + blue))
    assert found[SIZE] == pytest.approx(60)
    rows = np.array(grey, float).reshape(32, 32)
    wide = np.pad(rows, 1, mode="reflect")
    edges = [
        wide[y, x + 1] + wide[y + 2, x + 1] + wide[y + 1, x] + wide[y + 1, x + 2] - 4 * wide[y + 1, x + 1]
        for y in range(32)
        for x in range(32)
    ]
    assert found[SHARPNESS] == pytest.approx((np.std(edges) + 1) / (np.std(rows) + 1), rel=0.02)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda image: (image * 0.5).astype(np.uint8), {BRIGHTNESS, CONTRAST}),
        (lambda image: (image * [1.3, 1, 0.7]).astype(np.uint8), {RED, BLUE}),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 2), {SHARPNESS}),
        (lambda image: np.clip(image * 2.0, 0, 255).astype(np.uint8), {BRIGHTNESS, CONTRAST, OVEREXPOSED}),
        (lambda image: image[::-1], set()),
    ],
)
def test_each_change_moves_its_own(change, moved):
    before, after = named(blotches()), named(np.ascontiguousarray(change(blotches())))
    found = {each for each in LOOKS if each.matters(each.change(np.array([after[each]]), np.array([before[each]])))}
    assert found - {CONTRAST, OVEREXPOSED} == moved - {CONTRAST, OVEREXPOSED}
    assert moved <= found | {OVEREXPOSED}


def test_sharpness_is_that_of_the_photograph_not_of_its_enlargement():
    small = blotches(26)
    for side in (26, 64, 128):
        large = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        assert named(large, (26, 26))[SHARPNESS] == pytest.approx(named(small, (26, 26))[SHARPNESS], rel=0.35)


def test_odd_pictures_have_finite_numbers():
    for value in (0, 255):
        assert np.isfinite(looks_of(np.full((16, 16, 3), value, np.uint8), (2, 2))).all()


def test_a_table_gives_what_a_checkpoint_keeps():
    images = np.stack([blotches(16, seed) for seed in range(20)])
    table = ImageTable(images, [""] * 20, ["normal"] * 20, np.full((20, 2), 30))
    looks = looks_of_table(table)
    assert looks == [looks_of(image, (30, 30)) for image in images]
    kept = looks_to_keep(looks, {"view": "plain"})
    assert list(kept) == [each.name for each in LOOKS]
    assert kept["brightness"] == sorted(look[0] for look in looks)
    assert list(looks_to_keep(looks, {"view": "controlled"})) == ["sharpness", "size"]
    again = kept_looks({"looks": {**kept, "of a later version": [1.0]}})
    assert {each.name: values.tolist() for each, values in again.items()} == kept
    assert kept_looks({}) == {}
    for damaged in ({"brightness": ["x"]}, {"brightness": 3}, {"brightness": [float("nan")]}, [1]):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            kept_looks({"looks": damaged})


def test_of_many_images_some_are_kept():
    count = 2 * KEPT + 1
    images = np.broadcast_to(blotches(8), (count, 8, 8, 3))
    assert len(looks_of_table(ImageTable(images, [""] * count, ["normal"] * count, np.full((count, 2), 8)))) == KEPT
