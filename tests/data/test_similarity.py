"""How alike pictures are, against loops that correlate one pair at a time."""

import itertools

import cv2
import numpy as np
import pytest

from solder_vae.data import similarity
from solder_vae.data.similarity import lookalikes, nearest_correlations, orientations, unit_pictures


def images(count, side=32, seed=0):
    """Smooth random pictures, so that some are alike."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) for image in small])


def small_grey(image):
    grey = 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
    side = min(24, len(image))
    return cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)


def correlation(one, other):
    """The greatest of eight, by numpy's own coefficient."""
    one, other = small_grey(one), small_grey(other)
    if one.std() < 0.5 or other.std() < 0.5:
        return float(one.std() < 0.5 and other.std() < 0.5)
    turned = [np.rot90(side, turns) for side in (one, one[:, ::-1]) for turns in range(4)]
    return max(np.corrcoef(each.ravel(), other.ravel())[0, 1] for each in turned)


@pytest.mark.parametrize("side", [8, 24, 37])
def test_the_nearest_is_the_one_that_loops_find(side, monkeypatch):
    monkeypatch.setattr(similarity, "_AT_ONCE", 8 * 7 * 3)  # three rows at a time
    some, others = images(10, side), images(7, side, seed=1)
    some[3] = 90
    others[2], others[5] = 200, np.rot90(some[0])[::-1]
    expected = [max(correlation(one, other) for other in others) for one in some]
    got = nearest_correlations(unit_pictures(some), unit_pictures(others))
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert got[3] == 1  # two constant pictures are alike
    if side <= 24:  # a smaller picture of a turned one is the turned smaller one only where nothing is averaged
        assert got[0] == 1


def test_light_and_contrast_do_not_matter_and_constant_pictures_are_unlike_others():
    some = images(5)
    dim = (some * 0.5 + 60).astype(np.uint8)
    assert nearest_correlations(unit_pictures(some), unit_pictures(dim)).min() > 0.999
    constant = np.full((1, 32, 32, 3), 77, np.uint8)
    np.testing.assert_array_equal(nearest_correlations(unit_pictures(constant), unit_pictures(some)), [0])


def test_there_are_eight_different_orientations_and_the_first_is_the_picture():
    units = unit_pictures(images(1))
    turned = orientations(units)
    assert len({each.tobytes() for each in turned}) == 8
    np.testing.assert_array_equal(turned[0], units)


@pytest.mark.slow
@pytest.mark.parametrize("above", [0.6, 0.8, 0.95])
def test_groups_are_what_links_connect(above, monkeypatch):
    """By Warshall's closure of the links that loops find."""
    monkeypatch.setattr(similarity, "_AT_ONCE", 8 * 30 * 4)
    some = images(30, seed=3)
    some[10:20] = (0.6 * some[:10] + 0.4 * some[20:]).astype(np.uint8)
    linked = np.array([[correlation(one, other) >= above for other in some] for one in some])
    for middle, first, second in itertools.product(range(30), repeat=3):
        linked[first, second] |= linked[first, middle] and linked[middle, second]
    groups = lookalikes(unit_pictures(some), above)
    np.testing.assert_array_equal(groups[:, None] == groups[None, :], linked)
    assert 1 < len(set(groups.tolist())) < 30 or above == 0.95


def test_no_pictures_have_no_groups():
    assert lookalikes(np.empty((0, 577), np.float32), 0.85).shape == (0,)
