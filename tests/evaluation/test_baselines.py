"""Trivial baselines against an independent Mahalanobis distance and images that differ in one way only."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import laplace
from scipy.spatial.distance import cdist
from torch import tensor
from torchmetrics.functional.classification import binary_auroc

from solder_vae.data.folder import FolderSource
from solder_vae.data.table import ImageTable
from solder_vae.evaluation import baselines
from solder_vae.evaluation.baselines import mahalanobis, nearest_pixels, trivial_features, trivial_scores
from solder_vae.utils.labels import NORMAL

SHARED = Path(os.environ.get("SOLDER_VAE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def table(images, native_size=(30, 40), defect=NORMAL):
    images = np.asarray(images, np.uint8)
    count = len(images)
    return ImageTable(
        images, [str(i) for i in range(count)], [defect] * count, np.array([native_size] * count).reshape(-1, 2)
    )


def noise(count, mean=120.0, spread=20.0, seed=0):
    return np.random.default_rng(seed).normal(mean, spread, (count, 16, 16, 3)).clip(0, 255)


@given(st.integers(1, 4), st.integers(6, 40), st.integers(0, 10))
def test_mahalanobis_agrees_with_scipy(dimensions, count, seed):
    rng = np.random.default_rng(seed)
    fitted_to = rng.normal(size=(count, dimensions)) * 10
    features = rng.normal(size=(7, dimensions)) * 10
    inverse = np.linalg.inv(np.atleast_2d(np.cov(fitted_to.T, bias=True)))
    expected = cdist(features, fitted_to.mean(axis=0)[None], "mahalanobis", VI=inverse)[:, 0]
    np.testing.assert_allclose(mahalanobis(fitted_to, features), expected, rtol=1e-3)


def test_features_are_what_they_say():
    images = noise(3)
    got = trivial_features(table(images, native_size=(32, 64)))
    pixels = np.asarray(images, np.uint8).reshape(3, -1, 3).astype(float)
    np.testing.assert_allclose(got["mean colour"], pixels.mean(axis=1))
    np.testing.assert_allclose(got["contrast"], np.hstack([pixels.mean(axis=1), pixels.std(axis=1)]))
    np.testing.assert_allclose(np.exp(got["size"]), [[32, 64]] * 3)


def test_sharpness_is_the_variance_of_scipy_s_laplacian():
    grey = np.asarray(noise(1), np.uint8)[0, ..., 0]
    expected = laplace(grey.astype(float), mode="mirror").var()
    got = trivial_features(table(np.repeat(grey[None, ..., None], 3, axis=3)))["sharpness"]
    np.testing.assert_allclose(np.exp(got) - 1, [[expected]], rtol=1e-9)


@pytest.mark.parametrize(
    ("feature", "odd"),
    [
        ("mean colour", table(noise(20, mean=150, seed=1))),
        ("contrast", table(noise(20, spread=45, seed=1))),
        ("sharpness", table(noise(20, spread=5, seed=1))),
        ("size", table(noise(20, seed=1), native_size=(31, 40))),
    ],
)
def test_each_baseline_finds_its_own_difference(feature, odd):
    train, normal = table(noise(100)), table(noise(20, seed=2))
    assert trivial_scores(train, odd)[feature].min() > trivial_scores(train, normal)[feature].max()


@given(st.integers(1, 5), st.integers(0, 255), st.integers(0, 3))
@settings(max_examples=20)
def test_constant_and_grey_images_give_finite_scores(count, value, others):
    train = table(np.full((count, 16, 16, 3), value))
    for scores in trivial_scores(train, table(noise(others))).values():
        assert scores.shape == (others,)
        assert np.isfinite(scores).all()
    assert all((scores == 0).all() for scores in trivial_scores(train, train).values())


def test_nearest_pixels_find_what_no_training_normal_looks_like_however_it_is_turned():
    """Copies, turned, mirrored and dimmed, have a distance of 0, pictures of other noise do not."""
    train = table(noise(30))
    turned = np.stack([np.rot90(image, place % 4)[:: (-1) ** place] for place, image in enumerate(train.images)])
    assert (nearest_pixels(train, table(turned)) == 0).all()
    np.testing.assert_allclose(nearest_pixels(train, table(turned * 0.5)), 0, atol=1e-3)
    assert nearest_pixels(train, table(noise(30, seed=1))).min() > 0.5


def test_nearest_pixels_look_at_each_image_once_and_at_a_subset_of_very_many(monkeypatch):
    seen = []
    small = baselines.unit_pictures
    monkeypatch.setattr(baselines, "unit_pictures", lambda images: seen.extend(images) or small(images))
    monkeypatch.setattr(baselines, "NEAREST_OF", 12)
    monkeypatch.setattr(baselines, "_PIXELS_AT_ONCE", 5 * 16 * 16)  # five images at a time
    train, other = table(noise(40)), table(noise(9, seed=1))
    first = nearest_pixels(train, other)
    assert len(seen) == 12 + 9
    np.testing.assert_array_equal(first, nearest_pixels(train, other))
    assert len(seen) == 12 + 9
    np.testing.assert_array_equal(first, nearest_pixels(table(noise(40)), other))  # the same subset
    assert ((nearest_pixels(train, train) == 0).sum()) == 12


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "solder_joints").is_dir(), reason=f"no photographs in {SHARED}")
def test_colour_alone_tells_the_published_defects_from_the_normals():
    """Other lighting for the defects: a Mahalanobis distance on mean RGB is known to reach 0.967."""
    tables = FolderSource(SHARED / "solder_joints").tables()
    scores = trivial_scores(tables["train"], tables["test"])
    aurocs = {name: float(binary_auroc(tensor(s), tensor(tables["test"].labels))) for name, s in scores.items()}
    assert aurocs["mean colour"] == pytest.approx(0.967, abs=0.02)
    assert aurocs["contrast"] == pytest.approx(0.983, abs=0.02)
    assert aurocs["sharpness"] == pytest.approx(0.69, abs=0.06)
    assert aurocs["size"] > 0.9
    assert aurocs["nearest pixels"] == pytest.approx(0.69, abs=0.1)
