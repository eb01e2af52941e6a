"""What a score is worth: counts and rates at the threshold, ranking quality without one, and the floors.

Terms (label 1 = abnormal = positive): a *false call* is a normal joint called abnormal, an *escape* an
abnormal joint called normal. docs/research/metrics.md says what each number means on a production line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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

from solder_vae.metrics.intervals import bootstrap_intervals, clopper_pearson, finite

Floats = NDArray[np.float64]

#: What :func:`evaluate` returns: flat, JSON-ready; None = undefined on this test set.
Metrics = dict[str, float | None]


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    defects: Sequence[str],
    threshold: float,
    *,
    limits: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Metrics:
    """All numbers that are reported for one score on the test set.

    The keys, of which only the last kind may be missing:

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

    Undefined numbers are None: rates of normals if the test set has no normals, numbers about abnormals if it has
    no abnormals, ranking numbers if it lacks either. Precision and F1 are 0 if nothing is called abnormal although
    there are abnormal joints.

    Args:
        scores: ``(N,)``, higher = more anomalous.
        labels: ``(N,)``, 1 = abnormal, 0 = normal.
        defects: N defect types; those of normal joints are ignored.
        threshold: abnormal is called iff ``score > threshold``.
        limits: ``(N,)`` each joint's own threshold, where not all have the same one.
        resamples: bootstrap resamples.
        seed: of the bootstrap; the same input gives the same bits.

    Raises:
        UserError: non-finite scores.
        ValueError: columns of different length, or labels other than 0 and 1.
    """
    values, truth = _columns(scores, labels)
    if len(defects) != len(values):
        raise ValueError(f"{len(values)} scores but {len(defects)} defect types")
    called = values > (threshold if limits is None else np.asarray(limits, np.float64))
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


FEW = 10
"""An AUROC of fewer joints of a class says little: of 9 it can be off by 0.1 and more. Tables mark it."""

SHOWN = 20
"""So many defect types are drawn and printed: more take long, and nobody reads them. metrics.json has all."""


def of_few(metrics: Mapping[str, Any]) -> bool:
    """Whether an AUROC comes from fewer than :data:`FEW` joints of a class."""
    counts = [metrics.get(key) for key in ("n_normal", "n_abnormal")]
    return metrics.get("auroc") is not None and any(count is not None and count < FEW for count in counts)


class DefectRecall(NamedTuple):
    """How many of one defect type were caught, with the 95 % Clopper-Pearson interval of the recall."""

    defect: str
    n: int
    caught: int
    recall: float
    low: float
    high: float


def worst(recalls: Sequence[DefectRecall], count: int = SHOWN) -> list[DefectRecall]:
    """The ``count`` types that were caught least, of equals those of most joints; all in the order that they had."""
    ranked = sorted(range(len(recalls)), key=lambda row: (recalls[row].recall, -recalls[row].n, row))
    return [recalls[row] for row in sorted(ranked[:count])]


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
    auroc_interval, ap_interval = bootstrap_intervals(values, truth, resamples, seed)
    recall, precision = pr_points(values, truth)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    auroc, average_precision = binary_auroc(order, target), binary_average_precision(order, target)
    numbers = [auroc.item(), *auroc_interval, average_precision.item(), *ap_interval, float(f1.max())]
    return dict(zip(keys, numbers, strict=True))


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
