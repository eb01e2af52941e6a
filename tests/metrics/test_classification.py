"""Metrics against oracles: pairs counted, thresholds swept by hand, torchmetrics, and properties."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_f1_score, binary_precision, binary_recall

from solder_vae.metrics.classification import defect_recalls, evaluate, pr_points, roc_points
from solder_vae.metrics.intervals import rank_statistics
from solder_vae.utils.errors import UserError

Case = tuple[NDArray[np.float64], NDArray[np.int64]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Scores with many ties, and labels with both classes."""
    labels = [0, 1, *draw(st.lists(st.integers(0, 1), max_size=40))]
    scores = draw(st.lists(st.integers(-5, 5), min_size=len(labels), max_size=len(labels)))
    return np.array(scores, dtype=np.float64) / 4, np.array(labels)


def types(labels: NDArray[np.int64]) -> list[str]:
    return ["bridge" if label else "normal" for label in labels]


def auroc_by_pairs(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    pairs = [(a > n) + 0.5 * (a == n) for a in scores[labels == 1] for n in scores[labels == 0]]
    return float(np.mean(pairs))


def sweep(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> list[tuple[float, float]]:
    """(recall, precision) when everything from each distinct score upwards is called, highest first."""
    points = []
    for lowest in sorted(set(scores.tolist()), reverse=True):
        called = scores >= lowest
        tp = int((called & (labels == 1)).sum())
        points.append((tp / int(labels.sum()), tp / int(called.sum())))
    return points


@pytest.mark.slow
@given(case=cases())
@settings(deadline=None)
def test_ranking_numbers_against_brute_force(case: Case) -> None:
    scores, labels = case
    metrics = evaluate(scores, labels, types(labels), 0.0, resamples=20)
    points = sweep(scores, labels)
    average_precision, before = 0.0, 0.0
    for recall, precision in points:
        average_precision += (recall - before) * precision
        before = recall
    assert metrics["auroc"] == pytest.approx(auroc_by_pairs(scores, labels), abs=1e-6)
    assert metrics["average_precision"] == pytest.approx(average_precision, abs=1e-6)
    best = max(2 * p * r / (p + r) if p + r else 0.0 for r, p in points)
    assert metrics["oracle_f1max"] == pytest.approx(best, abs=1e-6)
    _, level = np.unique(scores, return_inverse=True)
    counts = [np.bincount(level[labels == label], minlength=level.max() + 1) for label in (1, 0)]
    auroc, ap = rank_statistics(*counts)
    assert (float(auroc), float(ap)) == pytest.approx((auroc_by_pairs(scores, labels), average_precision), abs=1e-12)


@given(case=cases())
@settings(deadline=None)
def test_curves_pass_through_every_threshold(case: Case) -> None:
    scores, labels = case
    swept = {(round(r, 6), round(p, 6)) for r, p in sweep(scores, labels)}
    drawn = {(round(r, 6), round(p, 6)) for r, p in np.column_stack(pr_points(scores, labels)).tolist()}
    assert swept <= drawn
    false_call_rate, recall = roc_points(scores, labels)
    assert (false_call_rate[0], recall[0], false_call_rate[-1], recall[-1]) == (0, 0, 1, 1)
    assert (np.diff(false_call_rate) >= 0).all()
    assert (np.diff(recall) >= 0).all()
    area = float(np.trapezoid(recall, false_call_rate))
    assert area == pytest.approx(auroc_by_pairs(scores, labels), abs=1e-5)


@pytest.mark.slow
@given(case=cases())
@settings(deadline=None, max_examples=30)
def test_ranking_sees_order_only(case: Case) -> None:
    """Increasing maps change nothing; 1000 * score, far outside [0, 1], would tie under a sigmoid."""
    scores, labels = case
    keys = ("auroc", "auroc_low", "auroc_high", "average_precision", "oracle_f1max")
    plain, *mapped = (
        [evaluate(mapped, labels, types(labels), 0.0, resamples=20)[key] for key in keys]
        for mapped in (scores, 1000 * scores + 1e4, np.exp(scores), scores**3)
    )
    for other in mapped:
        assert other == plain


@pytest.mark.slow
@given(case=cases())
@settings(deadline=None)
def test_swapping_the_order_mirrors_auroc(case: Case) -> None:
    scores, labels = case
    forward, backward = (evaluate(sign * scores, labels, types(labels), 0.0, resamples=1) for sign in (1, -1))
    assert float(forward["auroc"] or 0) + float(backward["auroc"] or 0) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
@given(case=cases(), threshold=st.integers(-6, 6))
@settings(deadline=None)
def test_threshold_numbers_against_torchmetrics(case: Case, threshold: int) -> None:
    scores, labels = case
    metrics = evaluate(scores, labels, types(labels), threshold / 4, resamples=1)
    called, target = torch.tensor(scores > threshold / 4).int(), torch.tensor(labels)
    assert metrics["precision"] == pytest.approx(binary_precision(called, target).item(), abs=1e-6)
    assert metrics["recall"] == pytest.approx(binary_recall(called, target).item(), abs=1e-6)
    assert metrics["f1"] == pytest.approx(binary_f1_score(called, target).item(), abs=1e-6)
    assert float(metrics["f1"] or 0) <= float(metrics["oracle_f1max"] or 0) + 1e-6
    assert float(metrics["recall"] or 0) + float(metrics["escape_rate"] or 0) == pytest.approx(1)


def test_a_case_by_hand() -> None:
    scores = [0.05, 0.1, 0.2, 0.6, 0.5, 0.7, 0.4, 0.9, 0.3]
    defects = [*["normal"] * 5, "bridge", "bridge", "bridge/small", "void"]
    labels = [0, 0, 0, 0, 0, 1, 1, 1, 1]
    metrics = evaluate(scores, labels, defects, 0.5)
    assert [metrics[key] for key in ("tp", "fp", "fn", "tn")] == [2, 1, 2, 4], "0.5 is not above 0.5"
    assert metrics["precision"] == 2 / 3
    assert metrics["recall"] == metrics["escape_rate"] == 0.5
    assert metrics["f1"] == pytest.approx(4 / 7)
    assert metrics["false_call_rate"] == 0.2
    assert metrics["auroc"] == pytest.approx(16 / 20)
    assert (metrics["n"], metrics["n_normal"], metrics["n_abnormal"], metrics["prevalence"]) == (9, 5, 4, 4 / 9)
    rows = {row.defect: (row.n, row.caught, row.recall) for row in defect_recalls(metrics)}
    assert rows == {"bridge": (2, 1, 0.5), "bridge/small": (1, 1, 1.0), "void": (1, 0, 0.0)}


def test_floor_is_what_calling_everything_scores() -> None:
    """On the paper's test set, 66 abnormal of 150: F1 0.61."""
    labels = np.repeat([1, 0], [66, 84])
    everything = evaluate(np.arange(150.0), labels, types(labels), -1.0)
    assert everything["f1"] == everything["floor_f1"] == pytest.approx(0.6111, abs=1e-4)
    assert everything["precision"] == everything["floor_precision"] == everything["floor_average_precision"] == 0.44


def test_nothing_called_has_precision_zero() -> None:
    metrics = evaluate([1.0, 2.0], [0, 1], ["normal", "void"], 5.0)
    assert (metrics["precision"], metrics["recall"], metrics["f1"], metrics["false_call_rate"]) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("labels", "defined", "undefined"),
    [
        ([0, 0], {"false_call_rate": 0.5}, ["precision", "recall", "f1", "escape_rate", "auroc", "floor_f1"]),
        ([1, 1], {"recall": 0.5, "precision": 1.0}, ["false_call_rate", "auroc", "average_precision", "auroc_low"]),
        ([], {"n": 0}, ["prevalence", "false_call_rate", "recall", "auroc", "oracle_f1max", "floor_precision"]),
    ],
)
def test_undefined_is_none_and_the_keys_stay(
    labels: list[int], defined: dict[str, float], undefined: list[str]
) -> None:
    metrics = evaluate([1.0, 3.0][: len(labels)], labels, ["void"] * len(labels), 2.0)
    assert {key: metrics[key] for key in defined} == defined
    assert {key: metrics[key] for key in undefined} == dict.fromkeys(undefined)
    usual = evaluate([1.0, 2.0], [0, 1], ["normal", "void"], 1.5)
    assert [key for key in metrics if "/" not in key] == [key for key in usual if "/" not in key]
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("scores", [[5.0] * 6, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]])
def test_constant_and_perfect_scores(scores: list[float]) -> None:
    metrics = evaluate(scores, [0, 0, 0, 1, 1, 1], ["normal"] * 3 + ["void"] * 3, 1.5)
    expected = 0.5 if len(set(scores)) == 1 else 1.0
    assert metrics["auroc"] == metrics["auroc_low"] == metrics["auroc_high"] == expected


def test_bootstrap_agrees_with_resampling_by_hand() -> None:
    generator = np.random.default_rng(2)
    labels = np.repeat([0, 1], [84, 66])
    scores = np.round(np.concatenate([generator.normal(0, 1, 84), generator.normal(1.2, 1, 66)]), 1)
    metrics = evaluate(scores, labels, types(labels), 0.0, resamples=2000)
    normal, abnormal = scores[:84], scores[84:]
    aurocs = []
    for _ in range(2000):
        n, a = generator.choice(normal, 84), generator.choice(abnormal, 66)
        aurocs.append(float(((a[:, None] > n) + 0.5 * (a[:, None] == n)).mean()))
    low, high = np.quantile(aurocs, [0.025, 0.975])
    assert (metrics["auroc_low"], metrics["auroc_high"]) == pytest.approx((low, high), abs=0.01)
    assert float(metrics["auroc_low"] or 0) < float(metrics["auroc"] or 0) < float(metrics["auroc_high"] or 0)
    ap = [float(metrics[f"average_precision{end}"] or 0) for end in ("_low", "", "_high")]
    assert ap == sorted(ap)


def test_same_input_same_bits_other_seed_other_bits() -> None:
    labels = np.repeat([0, 1], [30, 30])
    scores = np.random.default_rng(0).normal(labels, 1)
    first, again, other = (evaluate(scores, labels, types(labels), 0.5, seed=seed) for seed in (0, 0, 1))
    assert json.dumps(first) == json.dumps(again)
    assert first["auroc_low"] != other["auroc_low"]
    assert first["auroc"] == other["auroc"]


def test_order_of_rows_does_not_matter() -> None:
    generator = np.random.default_rng(4)
    labels = np.repeat([0, 1], [30, 20])
    scores = generator.normal(labels, 1)
    defects = np.array(types(labels))
    defects[40:] = "void"
    shuffle = generator.permutation(50)
    one = evaluate(scores, labels, defects.tolist(), 0.5)
    assert one == evaluate(scores[shuffle], labels[shuffle], defects[shuffle].tolist(), 0.5)


@pytest.mark.slow
def test_thousand_resamples_of_ten_thousand_scores_are_quick() -> None:
    labels = np.repeat([0, 1], [8000, 2000])
    scores = np.random.default_rng(0).normal(labels, 1)
    start = time.process_time()
    evaluate(scores, labels, types(labels), 0.5)
    assert time.process_time() - start < 8


def test_bad_columns_are_refused() -> None:
    with pytest.raises(UserError, match="1 of 2 anomaly scores of the test set"):
        evaluate([1.0, math.nan], [0, 1], ["normal", "void"], 0.5)
    with pytest.raises(ValueError, match="2 scores but 1 labels"):
        evaluate([1.0, 2.0], [0], ["normal", "void"], 0.5)
    with pytest.raises(ValueError, match="2 scores but 1 defect"):
        evaluate([1.0, 2.0], [0, 1], ["normal"], 0.5)
    with pytest.raises(ValueError, match="labels must be"):
        evaluate([1.0, 2.0], [0, 2], ["normal", "void"], 0.5)
