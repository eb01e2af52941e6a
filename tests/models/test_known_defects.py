"""Scores that learn from known defects: against scikit-learn and numpy, and what the combination promises."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from solder_vae.metrics.threshold import Quantile, fit_threshold
from solder_vae.models.classifier import STRENGTHS, Classifier
from solder_vae.models.combined import Combined, Surprise
from solder_vae.models.neighbours import Knn, Standard
from solder_vae.models.scores import FitData, ModelOutput, score_with
from solder_vae.utils.errors import UserError

WIDTH = 12


class Given:
    """Examples of given features; iterating gives the scores of those that are fitted already."""

    types = thumbnails = None

    def __init__(self, features, defects=None, scores=None):
        self.features = features
        self.defects = defects or ["normal"] * len(features)
        self.scores = scores or {}

    def __iter__(self):
        return (score_with(output_of(part), self.scores) for part in self.features.split(50))


def output_of(features):
    nothing = torch.empty(0)
    return ModelOutput(nothing, (nothing,), nothing, nothing, None, None, {}, features)


def normals(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, WIDTH), generator=generator) * torch.linspace(0.5, 3, WIDTH) + 2


def defects(count, axis, seed=0, shift=3.0):
    """Normals of another draw, shifted along one axis by so many of its deviations."""
    found = normals(count, seed + 100)
    found[:, axis] += shift * torch.linspace(0.5, 3, WIDTH)[axis]
    return found


def fitted(known=None, kinds=None, train=300, seed=0, **options):
    """Scores by name, fitted as a run fits them."""
    scores = {"knn": Knn(), "classifier": Classifier(**options), "combined": Combined()}
    examples = None if known is None else Given(known, kinds or ["bridge"] * len(known))
    for name in ("knn", "classifier", "combined"):
        ready = {other: score for other, score in scores.items() if other != "combined" and score.usable}
        data = FitData(Given(normals(train, seed)), Given(normals(400, seed + 1), scores=ready), examples)
        scores[name].fit(data)
    return {name: score for name, score in scores.items() if score.usable}


def scored(scores, features):
    return {name: values.numpy() for name, values in score_with(output_of(features), scores).scores.items()}


def test_the_classifier_is_scikit_learns_on_standardised_features():
    known, images = defects(30, 3), torch.cat([normals(50, 7), defects(50, 3, 7)])
    score = fitted(known, strength=0.1)["classifier"]
    standard = Standard.of(normals(300))
    features = torch.cat([standard(normals(300)), standard(known)]).double().numpy()
    oracle = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=10_000)
    oracle.fit(features, np.repeat([0, 1], [300, 30]))
    ours = scored({"classifier": score}, images)["classifier"]
    np.testing.assert_allclose(ours, oracle.decision_function(standard(images).double().numpy()), atol=0.02, rtol=0.02)


@pytest.mark.parametrize(("count", "how"), [(6, "fixed"), (40, "chosen by 5-fold")])
def test_the_strength_is_chosen_where_there_are_enough_defects(count, how, caplog):
    caplog.set_level("INFO")
    fitted(defects(count, 2))
    (line,) = [record.message for record in caplog.records if record.message.startswith("classifier:")]
    assert how in line
    assert any(f"C={strength:g} " in line for strength in STRENGTHS)


@pytest.mark.slow
def test_types_are_told_apart_with_a_probability():
    kinds = ["bridge"] * 12 + ["shift"] * 9 + ["missing"] * 7 + ["rare"] * 2
    axes = {"bridge": 1, "shift": 4, "missing": 8, "rare": 10}
    known = torch.cat([defects(1, axes[kind], seed, 6.0) for seed, kind in enumerate(kinds)])
    score = fitted(known, kinds)["classifier"]
    for kind in ("bridge", "shift", "missing"):
        found = score.likeness(defects(40, axes[kind], 3, 6.0))
        assert np.mean([likeness.type == kind for likeness in found]) > 0.9
        assert all(1 / 3 <= likeness.probability <= 1 for likeness in found)
    assert score.defects == ["bridge", "missing", "shift", "rare"]
    assert score.nearest_known(known) == list(range(len(known)))
    assert [score.defects[place] for place in score.known_types.tolist()] == kinds


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [["bridge"] * 20, ["bridge"] * 16 + ["shift"] * 4])
def test_a_single_type_is_not_told_from_anything(kinds):
    assert not fitted(defects(20, 2), kinds)["classifier"].tells_types


@pytest.mark.slow
def test_two_types_are_told_apart_too():
    kinds = ["one"] * 8 + ["two"] * 8
    score = fitted(torch.cat([defects(8, 1, 0, 6.0), defects(8, 5, 0, 6.0)]), kinds)["classifier"]
    assert {likeness.type for likeness in score.likeness(defects(9, 5, 4, 6.0))} == {"two"}


@pytest.mark.slow
def test_what_is_fitted_survives_its_state():
    kinds, images = ["über"] * 8 + ["two"] * 8, normals(20, 5)
    before = fitted(torch.cat([defects(8, 1), defects(8, 5)]), kinds)
    after = {"knn": Knn(), "classifier": Classifier(), "combined": Combined()}
    for name, score in after.items():
        score.load_state({key: value.clone() for key, value in before[name].state().items()})
    assert all(np.array_equal(values, scored(after, images)[name]) for name, values in scored(before, images).items())
    assert after["classifier"].likeness(images) == before["classifier"].likeness(images)


def test_a_strength_that_does_not_fit_is_told():
    with pytest.raises(UserError, match=r"score\.strength=0 does not fit"):
        Classifier(0)


@pytest.mark.parametrize("draw", ["normal", "exponential", "ties", "few", "one", "constant"])
def test_the_surprise_is_the_logarithm_of_the_share_above_and_never_stops_rising(draw):
    rng = np.random.default_rng(0)
    values = {
        "normal": rng.normal(5, 2, 600),
        "exponential": rng.exponential(1, 600),
        "ties": rng.integers(0, 4, 600).astype(float),
        "few": rng.normal(5, 2, 12),
        "one": np.array([3.0]),
        "constant": np.full(50, 2.0),
    }[draw]
    surprise = Surprise.of(torch.from_numpy(values))
    span = max(float(np.ptp(values)), 1.0)
    at = torch.linspace(float(values.min()) - span, float(values.max()) + 10 * span, 2000, dtype=torch.float64)
    found = surprise(at).numpy()
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    if draw in ("normal", "exponential"):
        for share in (0.9, 0.5, 0.2, 0.1, 0.02):
            place = torch.tensor([np.quantile(values, 1 - share)])
            assert float(surprise(place)) == pytest.approx(-np.log(share), abs=0.25)
    if draw == "exponential":  # whose tail is the one that is fitted
        np.testing.assert_allclose(surprise(torch.tensor([8.0, 12.0])).numpy(), [8, 12], rtol=0.25)


def test_combined_is_the_larger_surprise():
    scores = fitted(defects(30, 3))
    found = scored(scores, torch.cat([normals(30, 9), defects(30, 3, 9)]))
    alone = [scores["combined"].surprises[name](torch.from_numpy(found[name])).numpy() for name in Combined.beside]
    np.testing.assert_array_equal(found["combined"], np.maximum(*alone))


def test_without_known_defects_combined_ranks_as_knn_and_says_so(caplog):
    caplog.set_level("INFO")
    scores = fitted()
    assert set(scores) == {"knn", "combined"}
    assert "decides by knn alone" in caplog.text
    found = scored(scores, torch.cat([normals(100, 9), defects(100, 3, 9, 9.0)]))
    assert np.array_equal(found["knn"].argsort(), found["combined"].argsort())


@pytest.mark.slow
def test_the_false_call_rate_is_what_the_threshold_promises_and_an_unknown_type_is_still_found():
    """Twelve draws: known defects of one axis, unknown ones of another."""
    rates, aurocs = [], {name: [] for name in ("classifier", "combined")}
    for seed in range(12):
        scores = fitted(defects(25, 3, seed), seed=10 * seed)
        val, good, bad = (
            scored(scores, images)
            for images in (normals(400, 10 * seed + 1), normals(2000, 10 * seed + 5), defects(300, 9, seed + 50, 6.0))
        )
        threshold = fit_threshold(val["combined"].astype(np.float64), Quantile(0.95))
        rates.append(float(threshold.predict(good["combined"]).mean()))
        for name, values in aurocs.items():
            values.append(roc_auc_score(np.repeat([0, 1], [2000, 300]), np.r_[good[name], bad[name]]))
    # Standard error of a rate: of 400 validation normals 0.011, so 0.003 of the mean of twelve.
    assert np.mean(rates) == pytest.approx(0.05, abs=0.01)
    assert np.mean(aurocs["combined"]) > np.mean(aurocs["classifier"]) + 0.2
