"""What a threshold costs on a production line: false calls against escapes, at every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solder_vae.metrics.intervals import clopper_pearson, finite

Floats = NDArray[np.float64]

#: False calls per 1000 good joints that the table steps through.
FALSE_CALL_STEPS = (1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class OperatingPoint:
    """What one threshold does.

    Attributes:
        threshold: abnormal iff score > threshold.
        false_calls: per 1000 good joints, with its 95 % Clopper-Pearson interval.
        escapes: per 1000 bad joints, with its interval; None where no bad joints are known.
        chosen: whether this is the threshold that was set.
    """

    threshold: float
    false_calls: float
    false_calls_interval: tuple[float, float]
    escapes: float | None
    escapes_interval: tuple[float, float] | None
    chosen: bool


def operations(normals: ArrayLike, abnormals: ArrayLike, chosen: float) -> list[OperatingPoint]:
    """The trade-off in steps of :data:`FALSE_CALL_STEPS`, and at the chosen threshold, by falling false calls.

    Args:
        normals: ``(n,)`` scores of good joints, n >= 1. Steps with less than one of these joints above the
            threshold are left out.
        abnormals: ``(m,)`` scores of bad joints, or none.
        chosen: the threshold that was set.
    """
    good, bad = finite(normals, "normals"), finite(abnormals, "abnormals")
    steps = {float(np.quantile(good, 1 - rate / 1000)) for rate in FALSE_CALL_STEPS if rate * good.size >= 1000}
    return [operating_point(good, bad, threshold, chosen) for threshold in sorted(steps | {chosen})]


def operating_point(good: Floats, bad: Floats, threshold: float, chosen: float) -> OperatingPoint:
    false_calls, escapes = int((good > threshold).sum()), int((bad <= threshold).sum())
    return OperatingPoint(
        threshold=threshold,
        false_calls=1000 * false_calls / good.size,
        false_calls_interval=_per_1000(false_calls, good.size),
        escapes=1000 * escapes / bad.size if bad.size else None,
        escapes_interval=_per_1000(escapes, bad.size) if bad.size else None,
        chosen=threshold == chosen,
    )


def _per_1000(count: int, n: int) -> tuple[float, float]:
    low, high = clopper_pearson(count, n)
    return 1000 * low, 1000 * high


def expected_cost(
    thresholds: ArrayLike, normals: ArrayLike, abnormals: ArrayLike, escape_cost: float, prevalence: float
) -> Floats:
    """Expected cost of a joint at each threshold, a false call costing 1.

        cost(t) = (1 - prevalence) * P(false call at t) + prevalence * escape_cost * P(escape at t)

    Args:
        thresholds: ``(T,)``.
        normals: ``(n,)`` scores of good joints, n >= 1.
        abnormals: ``(m,)`` scores of bad joints, m >= 1.
        escape_cost: of one escape.
        prevalence: share of bad joints on the line, in (0, 1).
    """
    cuts = np.asarray(thresholds, dtype=np.float64)
    good, bad = np.sort(np.asarray(normals, np.float64)), np.sort(np.asarray(abnormals, np.float64))
    false_call_rate = 1 - np.searchsorted(good, cuts, side="right") / good.size
    escape_rate = np.searchsorted(bad, cuts, side="right") / bad.size
    cost: Floats = (1 - prevalence) * false_call_rate + prevalence * escape_cost * escape_rate
    return cost


def least_cost(normals: Floats, abnormals: Floats, escape_cost: float, prevalence: float) -> float:
    """The threshold of the least expected cost on a labelled set.

    It lies halfway between neighbouring scores; where several cost the same, the lowest is taken, since an escape
    is worse than its estimate more often than a false call is.

    Args:
        normals, abnormals, escape_cost, prevalence: as for :func:`expected_cost`.
    """
    levels = np.unique(np.concatenate([normals, abnormals]))
    ends = np.nextafter(levels[0], -np.inf), levels[-1]
    candidates = np.concatenate([[ends[0]], (levels[:-1] + levels[1:]) / 2, [ends[1]]])
    best = int(np.argmin(expected_cost(candidates, normals, abnormals, escape_cost, prevalence)))
    return float(candidates[best])


def trade_off_rows(steps: Sequence[OperatingPoint]) -> list[list[str]]:
    """Header and a row a threshold, for CSV: plain numbers."""
    header = ["threshold", "false_calls_per_1000_good", "low", "high", "escapes_per_1000_bad", "low", "high", "chosen"]
    rows = [
        [
            repr(step.threshold),
            *(f"{value:.6g}" for value in (step.false_calls, *step.false_calls_interval)),
            *(
                "" if value is None else f"{value:.6g}"
                for value in (step.escapes, *(step.escapes_interval or (None,) * 2))
            ),
            str(int(step.chosen)),
        ]
        for step in steps
    ]
    return [header, *rows]
