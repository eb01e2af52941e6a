"""What a score is worth: counts and rates at the threshold, ranking quality without one, and the floors.

Terms (label 1 = abnormal = positive): a *false call* is a normal joint called abnormal, an *escape* an
abnormal joint called normal. docs/metrics.md says what each number means on a production line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_confusion_matrix,
    binary_precision_recall_curve,
    binary_roc,
)

from solder_vae.metrics.threshold import clopper_pearson, finite

Floats = NDArray[np.float64]

#: What :func:`evaluate` returns: flat, JSON-ready; None = undefined on this test set.
Metrics = dict[str, float | None]

_RESAMPLES_AT_ONCE = 100
_COUNTS_AT_ONCE = 1_000_000  # of distinct scores times resamples: bounds the bootstrap's memory to about 50 MB


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    defects: Sequence[str],
    threshold: float,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Metrics:
    """Every number that is reported of one score on the test set.

    The keys, always all there but for the last kind:

    - ``n``, ``n_normal``, ``n_abnormal``, ``prevalence`` (share of abnormal joints);
    - at the threshold: ``threshold``, ``tp``, ``fp``, ``fn``, ``tn``, ``precision``, ``recall``, ``f1``,
      ``false_call_rate`` = fp / normals and ``escape_rate`` = fn / abnormals, these two with ``_low`` and
      ``_high`` (95 % Clopper-Pearson);
    - without a threshold: ``auroc`` and ``average_precision``, each with ``_low`` and ``_high`` (95 %
      percentile bootstrap, normals and abnormals resampled apart), and ``oracle_f1max``, the best F1 that a
      threshold picked *on the test labels* reaches: an upper bound, not a result;
    - ``floor_precision``, ``floor_f1`` = 2p / (1 + p) of calling every joint abnormal, and
      ``floor_average_precision`` = p of a random order, p the prevalence;
    - of each defect type: ``defect/<type>/n``, ``/caught``, ``/recall``, ``/recall_low``, ``/recall_high``.

    None stands for what is undefined: rates of normals where the test set has none, every number about
    abnormals where it has none of them, the ranking numbers where either is missing. Precision and F1 are 0
    where nothing is called abnormal though there is something to call.

    Args:
        scores: ``(N,)``, higher = more anomalous.
        labels: ``(N,)``, 1 = abnormal, 0 = normal.
        defects: N defect types; those of normal joints are not looked at.
        threshold: abnormal is called iff ``score > threshold``.
        resamples: bootstrap resamples.
        seed: of the bootstrap; the same input gives the same bits.

    Raises:
        UserError: non-finite scores.
        ValueError: columns of different length, or labels other than 0 and 1.
    """
    values, truth = _columns(scores, labels)
    if len(defects) != len(values):
        raise ValueError(f"{len(values)} scores but {len(defects)} defect types")
    called = values > threshold
    positives, negatives = int(truth.sum()), int((1 - truth).sum())

    matrix = binary_confusion_matrix(torch.from_numpy(called).int(), torch.from_numpy(truth))
    (tn, fp), (fn, tp) = matrix.tolist()
    metrics: Metrics = {
        "n": positives + negatives,
        "n_normal": negatives,
        "n_abnormal": positives,
        "prevalence": _ratio(positives, positives + negatives),
        "threshold": float(threshold),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
        # From the integer counts, in float64: torchmetrics' ratios of the same counts carry float32 noise.
        "precision": tp / max(tp + fp, 1) if positives else None,
        "recall": _ratio(tp, positives),
        "f1": 2 * tp / (2 * tp + fp + fn) if positives else None,
        **_rate("false_call_rate", fp, negatives),
        **_rate("escape_rate", fn, positives),
    }
    metrics.update(_ranking(values, truth, resamples, seed))
    prevalence = positives / len(values) if positives else None
    metrics["floor_precision"] = prevalence
    metrics["floor_f1"] = None if prevalence is None else 2 * prevalence / (1 + prevalence)
    metrics["floor_average_precision"] = prevalence
    for defect in sorted({defect for defect, label in zip(defects, truth, strict=True) if label}):
        of_type = np.array([name == defect for name in defects]) & (truth == 1)
        caught, n = int((called & of_type).sum()), int(of_type.sum())
        metrics |= {f"defect/{defect}/n": n, f"defect/{defect}/caught": caught}
        metrics |= {f"defect/{defect}/{key}": rate for key, rate in _rate("recall", caught, n).items()}
    return metrics


class DefectRecall(NamedTuple):
    """How many of one defect type were caught, with the 95 % Clopper-Pearson interval of the recall."""

    defect: str
    n: int
    caught: int
    recall: float
    low: float
    high: float


def defect_recalls(metrics: Metrics) -> list[DefectRecall]:
    """The ``defect/...`` keys of :func:`evaluate` as rows, in the order of their names."""
    suffixes = ("n", "caught", "recall", "recall_low", "recall_high")
    rows = []
    for key in metrics:
        if not (key.startswith("defect/") and key.endswith("/n")):
            continue
        name = key.removeprefix("defect/").removesuffix("/n")
        n, caught, recall, low, high = (metrics[f"defect/{name}/{suffix}"] or 0 for suffix in suffixes)
        rows.append(DefectRecall(name, int(n), int(caught), recall, low, high))
    return rows


def roc_points(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """False-call rates and recalls at every threshold, from (0, 0) to (1, 1), ``(P,)`` each.

    Both classes must be there.
    """
    values, truth = _columns(scores, labels)
    fpr, tpr, _ = binary_roc(_order(values), torch.from_numpy(truth))
    return fpr.double().numpy(), tpr.double().numpy()


def pr_points(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Recalls and precisions at every threshold, from recall 1 to the conventional end (0, 1), ``(P,)`` each.

    Both classes must be there.
    """
    values, truth = _columns(scores, labels)
    precision, recall, _ = binary_precision_recall_curve(_order(values), torch.from_numpy(truth))
    return recall.double().numpy(), precision.double().numpy()


def _ranking(values: Floats, truth: NDArray[np.int64], resamples: int, seed: int) -> Metrics:
    keys = [f"{name}{end}" for name in ("auroc", "average_precision") for end in ("", "_low", "_high")]
    keys += ["oracle_f1max"]
    if len(np.unique(truth)) < 2:
        return dict.fromkeys(keys)
    order, target = _order(values), torch.from_numpy(truth)
    auroc_interval, ap_interval = _bootstrap(values, truth, resamples, seed)
    recall, precision = pr_points(values, truth)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    auroc, average_precision = binary_auroc(order, target), binary_average_precision(order, target)
    numbers = [auroc.item(), *auroc_interval, average_precision.item(), *ap_interval, float(f1.max())]
    return dict(zip(keys, numbers, strict=True))


def _bootstrap(
    values: Floats, truth: NDArray[np.int64], resamples: int, seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % percentile intervals of AUROC and average precision, normals and abnormals resampled apart.

    Resampling with replacement draws multinomial counts over the distinct scores, so a whole block of
    resamples is one array and no score is sorted twice.
    """
    _, level = np.unique(values, return_inverse=True)
    levels = int(level.max()) + 1
    positive, negative = (np.bincount(level[truth == label], minlength=levels) for label in (1, 0))
    generator = np.random.default_rng(seed)
    aurocs, precisions = [], []
    at_once = min(_RESAMPLES_AT_ONCE, max(1, _COUNTS_AT_ONCE // levels))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        auroc, average_precision = rank_statistics(
            _resample(positive, size, generator), _resample(negative, size, generator)
        )
        aurocs.append(auroc)
        precisions.append(average_precision)
    auroc_low, auroc_high = np.quantile(np.concatenate(aurocs), [0.025, 0.975]).tolist()
    ap_low, ap_high = np.quantile(np.concatenate(precisions), [0.025, 0.975]).tolist()
    return (auroc_low, auroc_high), (ap_low, ap_high)


def rank_statistics(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """AUROC and average precision from counts of abnormals and normals at each distinct score.

    AUROC is the share of (abnormal, normal) pairs in the right order, ties counting half (Mann-Whitney).
    Average precision is the mean over abnormals of the precision when all from their score upwards is called.

    Args:
        positive, negative: ``(..., levels)`` counts, scores ascending; each row holds at least one of both.

    Returns:
        AUROC and average precision, ``(...)`` each.
    """
    n_positive, n_negative = positive.sum(-1), negative.sum(-1)
    below = np.cumsum(negative, -1) - negative
    auroc = (positive * (below + 0.5 * negative)).sum(-1) / (n_positive * n_negative)
    called_positive = np.cumsum(positive[..., ::-1], -1)[..., ::-1]
    called_negative = np.cumsum(negative[..., ::-1], -1)[..., ::-1]
    precision = called_positive / np.maximum(called_positive + called_negative, 1)
    return auroc, (positive * precision).sum(-1) / n_positive


def _resample(histogram: NDArray[np.int64], size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """``(size, levels)`` counts of resamples, with replacement, of the scores counted in ``histogram``."""
    counts = np.zeros((size, len(histogram)), dtype=np.int64)
    present = histogram > 0
    n = int(histogram.sum())
    counts[:, present] = generator.multinomial(n, histogram[present] / n, size=size)
    return counts


def _columns(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    values, truth = finite(scores, "test set"), np.asarray(labels, dtype=np.int64).reshape(-1)
    if len(values) != len(truth):
        raise ValueError(f"{len(values)} scores but {len(truth)} labels")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be 0 (normal) or 1 (abnormal)")
    return values, truth


def _order(values: Floats) -> Tensor:
    """The scores' dense ranks in [0, 1], order and ties kept.

    torchmetrics passes scores outside [0, 1] through a sigmoid, which makes all large ones equal.
    """
    distinct, level = np.unique(values, return_inverse=True)
    return torch.from_numpy(level / max(len(distinct) - 1, 1))


def _rate(name: str, count: int, n: int) -> Metrics:
    low, high = clopper_pearson(count, n) if n else (None, None)
    return {name: _ratio(count, n), f"{name}_low": low, f"{name}_high": high}


def _ratio(count: int, n: int) -> float | None:
    return count / n if n else None
