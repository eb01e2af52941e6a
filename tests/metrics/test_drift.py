"""Drift: distances and probabilities against loops, scipy and simulation; what is told, and in which words."""

import json

import numpy as np
import pytest
from scipy import stats

from solder_vae.metrics.drift import ALPHA, FEWEST, KEPT, Drift, Statistic, compare, exceeding, sample

BRIGHTNESS = Statistic("brightness", "ratio", 1.12)
SHARE = Statistic("overexposed pixels", "difference", 0.1)
SCORE = Statistic("score (knn)", "rank", 0.75)


def loop_distance(one, other):
    return max(
        abs(sum(a <= x for a in one) / len(one) - sum(b <= x for b in other) / len(other)) for x in [*one, *other]
    )


@pytest.mark.parametrize(("n", "m"), [(50, 60), (7, 30), (160, 286)])
def test_nothing_tolerated_is_the_ordinary_test(n, m):
    generator = np.random.default_rng(n)
    one, other = generator.normal(0.3, 1, n).round(1), generator.normal(0, 1, m).round(1)
    distance, p = exceeding(one, other, 0)
    assert distance == pytest.approx(loop_distance(one, other))
    exact = stats.ks_2samp(one, other, method="asymp")
    assert distance == exact.statistic
    assert p >= exact.pvalue * (1 - 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("n", [25, 45, 73, 200, 1000])
def test_the_probability_is_the_two_sided_tests_where_it_matters(n):
    """A batch that lies apart from a share of the reference; n is the usual one of two samples of 2 n."""
    for apart in range(1, 2 * n):
        reference = np.arange(2 * n)
        batch = np.where(reference < apart, 2 * n + reference, reference)
        distance, p = exceeding(batch, reference, 0)
        exact = float(stats.kstwo.sf(distance, n))
        assert p >= exact * (1 - 1e-5)
        if p < 0.05:
            assert p == pytest.approx(exact, rel=1e-4)


def test_a_tolerated_share_may_be_anything():
    """Of batches of which a tenth lies far off, no more than 1 % have p < 0.01; without tolerance most have."""
    generator = np.random.default_rng(0)
    reference = generator.normal(size=300)
    tolerant, strict = [], []
    for _ in range(300):
        batch = np.r_[generator.normal(size=900), np.full(100, 50.0)]
        tolerant.append(exceeding(batch, generator.normal(size=300))[1])
        strict.append(exceeding(batch, generator.normal(size=300), 0)[1])
    assert np.mean(np.array(tolerant) < 0.01) <= 0.01
    assert np.mean(np.array(strict) < 0.01) > 0.2
    assert exceeding(np.full(50, 50.0), reference)[1] < 1e-6
    assert exceeding(reference, reference)[1] == 1


def test_false_alarms_are_rarer_than_promised():
    """Without a least change, over seven statistics and references of few normals."""
    statistics = [Statistic(str(number), "difference", 0.0) for number in range(7)]
    generator = np.random.default_rng(1)
    told = 0
    for _ in range(200):
        batch, reference = generator.normal(size=(7, 80)), generator.normal(size=(7, 40))
        told += compare(
            dict(zip(statistics, batch, strict=True)), dict(zip(statistics, reference, strict=True)), 80
        ).told
    assert told / 200 <= ALPHA


def test_what_changed_is_told_in_words():
    generator = np.random.default_rng(2)
    reference = {
        BRIGHTNESS: generator.normal(100, 20, 200),
        SHARE: generator.uniform(0.1, 0.2, 200),
        SCORE: generator.normal(size=200),
    }
    batch = {
        BRIGHTNESS: 1.4 * generator.normal(100, 20, 160),
        SHARE: generator.uniform(0.1, 0.2, 160) + 0.3,
        SCORE: generator.normal(2, 1, 160),
    }
    drift = compare(batch, reference, 160)
    assert drift.sentence.startswith("These 160 joints do not look like those the model was trained on: ")
    for words in (
        f"brightness {np.median(batch[BRIGHTNESS]) / np.median(reference[BRIGHTNESS]):.2f} times the training's",
        "overexposed pixels 45 % instead of 15 %",
        "score (knn) of three quarters of them above 9",
    ):
        assert words in drift.sentence
    said = json.loads(json.dumps(drift.to_dict(), allow_nan=False))
    assert said["told"]
    assert said["statistics"]["brightness"]["ratio"] == pytest.approx(1.4, abs=0.1)
    assert all(each["told"] for each in said["statistics"].values())
    low = compare({SCORE: -np.asarray(batch[SCORE])}, {SCORE: reference[SCORE]}, 160)
    assert "below 9" in low.sentence


def test_a_small_change_is_not_told_however_certain():
    generator = np.random.default_rng(3)
    reference, batch = generator.normal(100, 5, 1000), generator.normal(108, 5, 5000)
    drift = compare({BRIGHTNESS: batch}, {BRIGHTNESS: reference}, 5000)
    assert drift.compared[0].p < 1e-6
    assert not drift.told
    assert drift.sentence == ""
    assert drift.to_dict()["tested"]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_defects_alone_do_not_raise_scores(share):
    generator = np.random.default_rng(4)
    bad = round(160 * share)
    for _ in range(100):
        batch = np.r_[generator.normal(size=160 - bad), generator.normal(8, 1, bad)]
        assert not compare({SCORE: batch}, {SCORE: generator.normal(size=300)}, 160).told


def test_what_cannot_be_compared_is_said():
    values = np.ones(FEWEST - 1)
    few = compare({BRIGHTNESS: values}, {BRIGHTNESS: values}, len(values))
    assert few == Drift(FEWEST - 1, [], f"too few joints ({FEWEST - 1}): it takes {FEWEST}")
    assert few.to_dict() == {"tested": False, "why": few.untested}
    assert not few.told
    assert "earlier version" in compare({BRIGHTNESS: np.ones(FEWEST)}, {}, FEWEST).untested


def test_medians_of_nothing_but_zeros_do_no_harm():
    drift = compare({BRIGHTNESS: np.zeros(60)}, {BRIGHTNESS: np.full(60, 80.0)}, 60)
    assert drift.told
    assert drift.to_dict()["statistics"]["brightness"]["ratio"] > 0
    assert not compare({BRIGHTNESS: np.zeros(60)}, {BRIGHTNESS: np.zeros(60)}, 60).told


@pytest.mark.parametrize("count", [1, 2, KEPT, KEPT + 1, 5000])
def test_a_sample_keeps_the_distribution(count):
    values = np.random.default_rng(count).normal(size=count)
    kept = sample(values)
    assert len(kept) == min(count, KEPT)
    assert kept == sorted(kept)
    assert set(kept) <= set(values.tolist())
    assert (kept[0], kept[-1]) == (values.min(), values.max())
    assert loop_distance(kept[:: max(1, len(kept) // 50)], np.sort(values)[:: max(1, count // 50)]) < 0.06
