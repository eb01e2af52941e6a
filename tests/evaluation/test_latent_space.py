"""Latent codes, t-SNE, silhouette and purity against loops, known cases and properties."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from checkpoints import pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.manifold import TSNE

from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation.latent_space import posterior_kl, posterior_means, strongest_channels, strongest_units
from solder_vae.evaluation.tsne import embed
from solder_vae.metrics.latent_separation import chance_purity, knn_purity, silhouette
from solder_vae.models.autoencoder import CAE
from solder_vae.models.losses import kl_divergence
from solder_vae.models.vae import VAE
from solder_vae.utils.errors import UserError

TWO = np.concatenate([np.zeros((12, 3)), np.full((12, 3), 9.0)]) + np.random.default_rng(0).normal(0, 0.1, (24, 3))
CLASSES = np.repeat([0, 1], 12)


def purity_by_loop(codes, labels, k):
    """Expected purity: every way of breaking ties equally likely, by the share of tied points taken."""
    shares = []
    for i in range(len(codes)):
        distances = sorted((float(np.linalg.norm(codes[i] - codes[j])), j) for j in range(len(codes)) if j != i)
        limit = distances[k - 1][0]
        inner = [j for distance, j in distances if distance < limit]
        rim = [j for distance, j in distances if distance == limit]
        hits = sum(labels[j] == labels[i] for j in inner)
        hits += (k - len(inner)) * sum(labels[j] == labels[i] for j in rim) / len(rim)
        shares.append(hits / k)
    return sum(shares) / len(shares)


def silhouette_by_loop(codes, labels):
    scores = []
    for i in range(len(codes)):
        to = {
            c: [math.dist(codes[i], codes[j]) for j in range(len(codes)) if labels[j] == c and j != i]
            for c in set(labels)
        }
        own = sum(to[labels[i]]) / len(to[labels[i]])
        other = min(sum(distances) / len(distances) for c, distances in to.items() if c != labels[i])
        scores.append((other - own) / max(own, other))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("model", [CAE(), VAE()])
def test_means_are_the_encoders_flattened_and_leave_the_mode_alone(model):
    images = pictures(300)
    model.train()
    means = posterior_means(model, images)
    assert model.training
    with torch.no_grad():
        expected = model.eval().encoder(to_tensor(images))[0].flatten(1).double().numpy()
    assert means.shape == (300, 40)
    assert means.dtype == np.float64
    np.testing.assert_allclose(means, expected, atol=1e-5)


def test_dimension_is_640_at_64_pixels():
    assert posterior_means(VAE(), pictures(2, size=64)).shape == (2, 640)


def test_kl_is_the_mean_over_images():
    model, images = VAE().eval(), pictures(300)
    with torch.no_grad():
        mu, logvar = model.encoder(to_tensor(images))
    expected = kl_divergence(mu, logvar).mean(0).numpy()
    np.testing.assert_allclose(posterior_kl(model, images), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="no posterior"):
        posterior_kl(CAE(), images)


def test_strongest_units_and_channels():
    kl = np.zeros((3, 2, 2))
    kl[2, 0, 1], kl[0, 1, 0], kl[0, 1, 1] = 5.0, 3.0, 4.0
    assert strongest_units(kl, 2) == [(2, 0, 1), (0, 1, 1)]
    assert strongest_channels(kl, 2) == [(0,), (2,)]


@pytest.mark.slow
def test_embedding_keeps_the_best_run():
    found = embed(TWO, runs=4, seed=7, jobs=1, progress=False)
    runs = [TSNE(perplexity=5, init="random", random_state=7 + i) for i in range(4)]
    placed = [run.fit_transform(TWO) for run in runs]
    divergences = [run.kl_divergence_ for run in runs]
    np.testing.assert_allclose(found.kls, divergences, rtol=1e-6)
    assert found.kl == found.kls.min()
    assert len(set(found.kls)) == 4  # starts of their own
    best = placed[int(np.argmin(divergences))]
    np.testing.assert_allclose(found.points, (best - best.min(0)) / np.ptp(best, axis=0), atol=1e-5)
    assert found.points.min(0).tolist() == [0, 0]
    assert found.points.max(0).tolist() == [1, 1]


def test_two_clusters_lie_apart_in_the_embedding():
    assert knn_purity(embed(TWO, runs=2, jobs=1).points, CLASSES) > 0.9


@pytest.mark.slow
def test_processes_change_nothing():
    alone, together = embed(TWO, runs=4, jobs=1), embed(TWO, runs=4, jobs=2)
    assert (alone.points == together.points).all()
    assert (alone.kls == together.kls).all()


@pytest.mark.slow
def test_worker_processes_import_no_torch():
    code = "import sys, solder_vae.evaluation.tsne; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("codes", [np.zeros((20, 8)), TWO[:4], TWO[:6, :1]], ids=["collapsed", "four", "one unit"])
def test_odd_codes_still_get_a_picture(codes):
    found = embed(codes, runs=2, jobs=1)
    assert found.points.shape == (len(codes), 2)
    assert ((found.points >= 0) & (found.points <= 1)).all()


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        (TWO[:3], {}, "3 images"),
        (TWO, {"runs": 0}, "0 runs"),
        (TWO, {"perplexity": 0.0}, "perplexity"),
        (np.full((9, 2), np.nan), {}, "not all finite"),
    ],
)
def test_refusals(codes, options, message):
    with pytest.raises(UserError, match=message):
        embed(codes, jobs=1, **options)


def test_progress_bar_on_terminals_only(capfd, monkeypatch):
    embed(TWO, runs=1, jobs=1)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    embed(TWO, runs=1, jobs=1)
    assert "t-SNE" in capfd.readouterr().err
    embed(TWO, runs=1, jobs=1, progress=False)
    assert capfd.readouterr() == ("", "")


def test_silhouette_against_a_loop():
    codes = np.random.default_rng(1).normal(size=(15, 4)) + CLASSES[3:18, None]
    labels = CLASSES[3:18].tolist()
    assert silhouette(codes, labels) == pytest.approx(silhouette_by_loop(codes.tolist(), labels))
    assert silhouette(TWO, CLASSES) > 0.95


def test_silhouette_where_undefined():
    assert math.isnan(silhouette(TWO, np.zeros(24)))
    assert math.isnan(silhouette(TWO[:2], [0, 1]))


@st.composite
def cases(draw):
    n = draw(st.integers(2, 14))
    # Whole numbers: many points equally far.
    codes = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    return np.array(codes, dtype=float), np.array(labels), draw(st.integers(1, n - 1))


@pytest.mark.slow
@given(cases())
@settings(deadline=None)
def test_purity_against_a_loop(case):
    codes, labels, k = case
    assert knn_purity(codes, labels, k) == pytest.approx(purity_by_loop(codes, labels, k))


@given(cases(), st.integers(0, 99))
@settings(deadline=None)
def test_purity_knows_no_order(case, seed):
    codes, labels, k = case
    order = np.random.default_rng(seed).permutation(len(labels))
    assert knn_purity(codes[order], labels[order], k) == pytest.approx(knn_purity(codes, labels, k))


@pytest.mark.slow
@given(cases())
def test_collapsed_codes_and_all_neighbours_have_the_chance_level(case):
    codes, labels, k = case
    assert knn_purity(np.zeros_like(codes), labels, k) == pytest.approx(chance_purity(labels))
    assert knn_purity(codes, labels, k=99) == pytest.approx(chance_purity(labels))


def test_chance_is_the_mean_over_shuffled_labels():
    labels, generator = np.repeat([0, 1], [8, 16]), np.random.default_rng(0)
    shuffled = [knn_purity(TWO, generator.permutation(labels)) for _ in range(2000)]
    assert np.mean(shuffled) == pytest.approx(chance_purity(labels), abs=0.005)
    assert chance_purity([0, 0, 1]) == pytest.approx(1 / 3)


def test_separated_classes_are_pure():
    assert knn_purity(TWO, CLASSES) == 1.0


def test_purity_refusals():
    with pytest.raises(UserError, match="k=1"):
        knn_purity(TWO, CLASSES, k=0)
    with pytest.raises(UserError, match="2 or more"):
        chance_purity([1])
