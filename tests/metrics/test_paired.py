"""Paired tests, Holm's correction, verdicts and bootstrap intervals, against scipy, closed testing and loops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from solder_vae.metrics.classification import evaluate
from solder_vae.metrics.paired import TestImages as Images
from solder_vae.metrics.paired import (
    all_of,
    auroc_difference,
    bootstrap_intervals,
    holm,
    paired_test,
    verdict,
    weighted_metrics,
)


def test_paired_test_is_students():
    rng = np.random.default_rng(0)
    for n in (2, 3, 50):
        a, b = rng.normal(0.8, 0.03, n), rng.normal(0.78, 0.03, n)
        mine, theirs = paired_test(a - b), stats.ttest_rel(a, b)
        interval = theirs.confidence_interval(0.95)
        assert mine.p == pytest.approx(theirs.pvalue, rel=1e-9)
        assert (mine.low, mine.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
        assert (mine.n, mine.mean) == (n, pytest.approx(np.mean(a - b)))


def test_differences_without_spread_and_too_few():
    assert paired_test([0.0] * 5).p == 1
    assert paired_test([0.1] * 5).p == pytest.approx(2 / 2**5)  # of the sign test: all five up, or all five down
    assert math.isnan(paired_test([0.1]).p)
    assert math.isnan(paired_test([]).mean)


def closed_testing(p_values):
    """Holm's correction from its definition: reject a hypothesis if Bonferroni rejects every set that it is in."""
    indices = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(indices, size)]
    return [max(min(1.0, len(s) * min(p_values[k] for k in s)) for s in sets if i in s) for i in indices]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    assert holm(p_values) == pytest.approx(closed_testing(p_values))


def test_a_test_that_could_not_be_made_counts():
    assert holm([0.01, math.nan]) == [0.02, pytest.approx(math.nan, nan_ok=True)]


def test_verdicts():
    clear = paired_test([0.1, 0.11, 0.12, 0.1])
    assert verdict(clear, 0.01) == "holds"
    assert verdict(paired_test([-0.1, -0.11, -0.12, -0.1]), 0.01) == "does not hold"
    assert verdict(clear, 0.06) == "not shown"
    assert verdict(clear, math.nan) == "not shown"
    assert verdict(paired_test([0.1, 0.1001]), 0.001) == "not shown"  # two seeds
    assert all_of(["holds", "holds"]) == "holds"
    assert all_of(["holds", "not shown"]) == "not shown"
    assert all_of(["holds", "not shown", "does not hold"]) == "does not hold"
    assert all_of([]) == "not shown"


def images(rng, n=40, name=""):
    labels = np.arange(n) % 2
    scores = np.round(rng.normal(labels, 1.0), 1)  # some tie
    return Images(scores, labels, 0.5, [f"{name}{index}" for index in range(n)])


def test_weights_stand_for_repeated_images():
    rng = np.random.default_rng(1)
    test = images(rng)
    even = weighted_metrics(test, np.ones((1, 40), np.float32))
    known = evaluate(test.scores, test.labels, ["normal" if y == 0 else "bridge" for y in test.labels], 0.5)
    assert even["f1"][0] == pytest.approx(known["f1"], abs=1e-6)
    assert even["auroc"][0] == pytest.approx(known["auroc"], abs=1e-6)

    counts = np.zeros(40, int)  # as many draws of each class as it has images, so that its part stays
    for label in (0, 1):
        counts += np.bincount(rng.choice(np.flatnonzero(test.labels == label), 20), minlength=40)
    scores, labels = np.repeat(test.scores, counts), np.repeat(test.labels, counts)
    called = scores > 0.5
    tp, fp, fn = (called & (labels == 1)).sum(), (called & (labels == 0)).sum(), (~called & (labels == 1)).sum()
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    weighted = weighted_metrics(test, counts[None].astype(np.float32))
    assert weighted["f1"][0] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-6)
    assert weighted["auroc"][0] == pytest.approx(np.mean(pairs), abs=1e-6)


def width(interval):
    return interval[1] - interval[0]


def test_images_that_seeds_share_are_no_new_evidence():
    rng = np.random.default_rng(2)
    test = images(rng)
    shared = bootstrap_intervals([test] * 10)
    own = bootstrap_intervals([test._replace(names=[f"{k}/{name}" for name in test.names]) for k in range(10)])
    one = bootstrap_intervals([test])
    for measure in ("f1", "auroc"):
        assert width(shared[measure]) == pytest.approx(width(one[measure]), rel=0.1)
        assert 0.9 < width(own[measure]) / (width(one[measure]) / np.sqrt(10)) < 1.1 * np.sqrt(2)


@pytest.mark.slow
def test_intervals_hold_the_mean_nineteen_times_in_twenty_or_more():
    """Over repetitions of the whole experiment: 20 seeds, each with a test set of its own and a quality of its own."""
    rng = np.random.default_rng(3)
    truth = []
    intervals = []
    for _ in range(150):
        tests = []
        for seed in range(20):
            test = images(rng, 60, f"{seed}/")
            tests.append(test._replace(scores=test.scores + test.labels * rng.normal(0, 0.5)))
        truth.append(np.mean([weighted_metrics(test, np.ones((1, 60), np.float32))["auroc"] for test in tests]))
        intervals.append(bootstrap_intervals(tests, resamples=300)["auroc"])
    hits = sum(low <= np.mean(truth) <= high for low, high in intervals)
    assert hits / 150 >= 0.93


def test_same_input_same_interval():
    test = images(np.random.default_rng(4))
    assert bootstrap_intervals([test], 200) == bootstrap_intervals([test], 200)


def delong_by_loops(first, second, labels):
    """Variance of the difference of two AUROCs from the placement of each image, one comparison at a time."""

    def above(one, other):
        return 1.0 if one > other else 0.5 if one == other else 0.0

    placements = []
    for scores in (first, second):
        bad, good = scores[labels == 1], scores[labels == 0]
        of_bad = [sum(above(one, other) for other in good) / len(good) for one in bad]
        of_good = [sum(above(other, one) for other in bad) / len(bad) for one in good]
        placements.append((of_bad, of_good))
    difference = np.mean(placements[0][0]) - np.mean(placements[1][0])
    variance = 0.0
    for side in (0, 1):
        covariance = np.cov(placements[0][side], placements[1][side])
        spread = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        variance += spread / len(placements[0][side])
    return difference, 1.959964 * np.sqrt(variance)


@pytest.mark.parametrize("decimals", [1, 6])
def test_the_difference_of_two_aurocs_is_delong_s(decimals):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [25, 15])
    shared = rng.normal(size=40) + labels
    first, second = (np.round(shared + 0.5 * rng.normal(size=40) + shift * labels, decimals) for shift in (0.8, 0))
    difference, low, high = auroc_difference(first, second, labels)
    expected, width = delong_by_loops(first, second, labels)
    assert (difference, high - difference) == pytest.approx((expected, width), rel=1e-6)
    assert high - difference == pytest.approx(difference - low)
    assert auroc_difference(first, 3 * first + 1, labels) == (0, 0, 0)


def test_its_interval_holds_the_true_difference_as_often_as_it_says():
    """Two scores equally good: of 400 test sets 95 %."""
    rng, labels = np.random.default_rng(1), np.repeat([0, 1], [60, 40])
    held = 0
    for _ in range(400):
        shared = rng.normal(size=100) + labels
        _, low, high = auroc_difference(shared + rng.normal(size=100), shared + rng.normal(size=100), labels)
        held += low <= 0 <= high
    assert 0.91 < held / 400 < 0.98
