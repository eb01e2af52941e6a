"""Pixel AUROC and AUPRO against constructed cases and against slow, obvious implementations."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae.evaluation.anomaly_map import anomaly_map, smooth
from solder_vae.metrics.localisation import CHANCE_AUPRO, aupro, evaluate_localisation, pixel_auroc, regions


def flood(mask):
    """The connected regions (8 neighbours) of one mask as sets of pixels, by flood fill."""
    left = {tuple(pixel) for pixel in np.argwhere(mask)}
    found = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            row, column = edge.pop()
            region.add((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(region)
    return found


def slow_aupro(maps, masks, limit):
    """Bergmann et al.'s definition, threshold by threshold; the area by a fine interpolation."""
    areas = [(index, region) for index, mask in enumerate(masks) for region in flood(mask)]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        called = maps >= threshold
        overlaps = [np.mean([called[index][pixel] for pixel in region]) for index, region in areas]
        points.append((called[~masks].mean(), np.mean(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            area += (end - x0) * (y0 + (y0 + (y1 - y0) * (end - x0) / (x1 - x0))) / 2
    return area / limit


@st.composite
def cases(draw):
    """A few small maps with many ties, and masks with defect and other pixels."""
    seed, levels = draw(st.integers(0, 10**6)), draw(st.integers(1, 12))
    generator = np.random.default_rng(seed)
    maps = generator.integers(0, levels, (3, 6, 6)).astype(np.float32)
    masks = generator.random((3, 6, 6)) < draw(st.floats(0.05, 0.6))
    masks[0, 0, 0], masks[0, 0, 1] = True, False
    return maps, masks


@settings(deadline=None, max_examples=40)
@given(cases(), st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_is_the_definitions(case, limit):
    maps, masks = case
    assert aupro(maps, masks, limit) == pytest.approx(slow_aupro(maps, masks, limit), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_pixel_auroc_counts_pairs(case):
    maps, masks = case
    inside, outside = maps[masks][:, None], maps[~masks][None]
    assert pixel_auroc(maps, masks) == pytest.approx(((inside > outside) + 0.5 * (inside == outside)).mean())


@settings(deadline=None, max_examples=20)
@given(cases())
def test_only_the_order_of_the_pixels_counts(case):
    maps, masks = case
    assert aupro(np.exp(maps), masks) == pytest.approx(aupro(maps, masks))
    assert pixel_auroc(1000 * maps + 7, masks) == pytest.approx(pixel_auroc(maps, masks))


def test_regions_touch_at_corners_and_end_with_the_image():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = True  # corner to corner: one region
    masks[0, 3, 3] = True
    masks[1, 3, 3] = True  # the same place in the next image: another
    assert regions(masks).max() == 3
    for index, mask in enumerate(masks):
        assert len(flood(mask)) == len(set(regions(masks)[index][mask]))


def test_known_areas():
    masks = np.zeros((1, 20, 20), bool)
    masks[0, :8, :8] = True
    masks[0, 15, 15] = True
    perfect = masks.astype(float)
    assert aupro(perfect, masks) == 1
    assert aupro(-perfect, masks) == 0
    assert aupro(np.zeros_like(perfect), masks) == pytest.approx(CHANCE_AUPRO)  # overlap = false-positive rate
    # The small region is missed: overlap 1/2 at once, then on a straight line to (1, 1).
    large_only = perfect.copy()
    large_only[0, 15, 15] = 0
    assert aupro(large_only, masks) == pytest.approx(0.5 + 0.5 * CHANCE_AUPRO)
    assert pixel_auroc(large_only, masks) == pytest.approx((64 + 0.5) / 65)


def test_a_type_is_measured_with_the_normals_alone():
    generator = np.random.default_rng(0)
    maps = generator.random((5, 8, 8))
    masks = np.zeros((5, 8, 8), bool)
    masks[1, 2:4, 2:4] = masks[2, 5, 5] = masks[3, :2] = True
    defects = ["normal", "void", "void", "bridge", "unseen"]
    metrics = evaluate_localisation(maps, masks, defects)
    rows = [0, 1, 2]
    assert metrics["defect/void/aupro"] == aupro(maps[rows], masks[rows])
    assert metrics["defect/void/pixel_auroc"] == pixel_auroc(maps[rows], masks[rows])
    assert (metrics["defect/void/n"], metrics["defect/void/regions"], metrics["regions"]) == (2, 2, 3)
    assert metrics["defect/unseen/aupro"] is None  # no pixel of it is marked
    assert metrics["aupro"] == aupro(maps, masks)
    nothing = evaluate_localisation(maps[:1], masks[:1], ["normal"])
    assert nothing == {"pixel_auroc": None, "aupro": None, "regions": 0}
    with pytest.raises(ValueError, match="defect types"):
        evaluate_localisation(maps, masks, defects[:2])


def test_smoothing_keeps_constants_and_sums():
    assert torch.allclose(smooth(torch.full((2, 64, 64), 3.0)), torch.tensor(3.0))
    point = torch.zeros(1, 64, 64)
    point[0, 30, 20] = 1
    blurred = smooth(point)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert blurred.argmax() == point.argmax()
    rows = torch.arange(64.0) - 30
    variance = (blurred[0].sum(1) * rows.square()).sum().item()
    assert variance == pytest.approx(2**2, rel=0.03)  # sigma = 64 / 32, cut at 3 sigma


def test_the_map_is_the_error_averaged_over_the_colours():
    x = torch.zeros(1, 3, 64, 64)
    recon = torch.zeros(1, 3, 64, 64)
    recon[0, :, 20:50, 20:50] = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    value = anomaly_map(x, recon)
    assert value.shape == (1, 64, 64)
    assert value[0, 35, 35].item() == pytest.approx((0.01 + 0.04 + 0.09) / 3, rel=1e-4)
    assert value[0, 5, 5] == 0
    assert value.mean().item() == pytest.approx((x - recon).square().mean().item(), rel=1e-4)
