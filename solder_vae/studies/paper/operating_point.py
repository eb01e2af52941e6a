"""The operating point that the paper's figures imply, and what our stored scores give there, without training anew.

Precision, recall and the numbers of test images say how many good joints were called. That false-call rate is another
one in each column of the paper's tables, and F1 depends on it. So a comparison needs our scores at the same rate, and
a number that does not depend on it.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solder_vae.metrics.paired import TestImages
from solder_vae.metrics.threshold import Quantile
from solder_vae.studies.paper import published as paper
from solder_vae.studies.paper.plan import TABLE_2, TABLE_3, Comparison, Row
from solder_vae.studies.paper.runs import Run

PRINTED = {**TABLE_3, **TABLE_2}

PAPER_RATE, MEAN_RULE = "paper_rate", "mean_rule"  # two ways to set a threshold from validation normals
POINTS = (PAPER_RATE, MEAN_RULE)
KEYS = ("false_call_rate", "recall", "precision", "f1", "f1_here")

RATE_ERROR = 0.04
"""So far an implied rate may be off: it is computed from means over runs and from three digits."""

CLOSE = 0.02
"""What :data:`RATE_ERROR` makes of an implied AUROC: at d' = 1.8 and a rate of 0.18 the slope is 0.5."""

Origin = Literal["ability", "operating point", "too close to tell"]

_STANDARD = NormalDist()


class Implied(NamedTuple):
    """What a column of the paper implies.

    Attributes:
        false_call_rate: share of its 84 normal test images that were called abnormal.
        auroc: of two normal distributions of equal variance that give its recall at that rate.
    """

    false_call_rate: float
    auroc: float


def implied(cell: paper.Cell) -> Implied:
    """The false-call rate behind a column's precision and recall, and the AUROC of an equal-variance binormal model.

    With recall R and precision P of 66 abnormal and 84 normal images, 66 R (1 / P - 1) normals were called. In the
    binormal model d' = z(recall) - z(rate), and AUROC = Phi(d' / sqrt(2)) (Green and Swets 1966).
    """
    recall, precision = cell.recall.mean, cell.precision.mean
    rate = paper.ABNORMAL * recall * (1 / precision - 1) / paper.NORMAL
    return Implied(rate, _STANDARD.cdf(_separation(recall, rate) / 2**0.5))


def f1_of(recall: float, rate: float, abnormal: int = paper.ABNORMAL, normal: int = paper.NORMAL) -> float:
    """F1 of a recall and a false-call rate in a test set of so many images; the paper's by default."""
    hits = abnormal * recall
    return 2 * hits / (hits + normal * rate + abnormal)


def f1_at(cell: paper.Cell, rate: float) -> float:
    """The F1 that a column of the paper would have at another false-call rate, by the binormal model."""
    separation = _separation(cell.recall.mean, implied(cell).false_call_rate)
    return f1_of(_STANDARD.cdf(separation + _STANDARD.inv_cdf(rate)), rate)


def _separation(recall: float, rate: float) -> float:
    return _STANDARD.inv_cdf(recall) - _STANDARD.inv_cdf(rate)


def origin(comparison: Comparison) -> Origin:
    """What the order of two columns of the paper by F1 comes from.

    "operating point" if the implied AUROC orders them the other way, "ability" if it agrees by more than :data:`CLOSE`.
    """
    difference = ability(comparison)
    if difference <= 0:
        return "operating point"
    return "ability" if difference > CLOSE else "too close to tell"


def ability(comparison: Comparison) -> float:
    """Implied AUROC of the better column minus that of the worse."""
    better, worse = (implied(PRINTED[row]).auroc for row in comparison)
    return better - worse


def threshold(normals: NDArray[np.float64], row: Row, point: str) -> float:
    """A threshold from validation normals alone.

    Args:
        normals: their scores ``(n,)``.
        row: whose column of the paper.
        point: PAPER_RATE: the quantile that gives the column's implied false-call rate; MEAN_RULE: the mean, as the
            authors' published script takes it.
    """
    if point == MEAN_RULE:
        return float(normals.mean())
    return Quantile(1 - implied(PRINTED[row]).false_call_rate).cut(normals)


def at_point(
    scores: NDArray[np.float64], labels: NDArray[np.int64], normals: NDArray[np.float64], row: Row, point: str
) -> dict[str, float | None]:
    """False-call rate, recall, precision and F1 of a test.

    Args:
        scores: of the test images ``(N,)``.
        labels: ``(N,)``, 1 = abnormal.
        normals: scores of the validation normals ``(n,)``.
        row: whose column of the paper.
        point: see :func:`threshold`.

    Returns:
        By :data:`KEYS`. Precision and F1 are those of the paper's mix, 66 abnormal to 84 normal, so that they can be
        held against its figures; ``f1_here`` is of this test set. None where the test set lacks a class.
    """
    called = scores > threshold(normals, row, point)
    good, bad = called[labels == 0], called[labels == 1]
    if not good.size or not bad.size:
        return dict.fromkeys(KEYS)
    rate, recall = float(good.mean()), float(bad.mean())
    hits, false_calls = paper.ABNORMAL * recall, paper.NORMAL * rate
    return {
        "false_call_rate": rate,
        "recall": recall,
        "precision": hits / (hits + false_calls) if hits + false_calls else 0.0,
        "f1": f1_of(recall, rate),
        "f1_here": f1_of(recall, rate, bad.size, good.size),
    }


def values_at_points(run: Run, row: Row) -> dict[str, float | None]:
    """:func:`at_point` of a run at both points, by ``<point>/<key>``."""
    scores = run.scores[row.score], run.labels, run.normals[row.score]
    return {f"{point}/{key}": value for point in POINTS for key, value in at_point(*scores, row, point).items()}


def images_at_paper_rate(run: Run, row: Row) -> TestImages:
    """The run's test at the paper's rate and mix, for intervals."""
    images = run.test_images(row.score)
    limit = threshold(run.normals[row.score], row, PAPER_RATE)
    return images._replace(threshold=limit, mix=(paper.ABNORMAL, paper.NORMAL))
