"""Whether a batch of joints looks like the good joints that a model was set by.

Each statistic of the batch is compared with a reference sample by Kolmogorov and Smirnov's distance, the largest
difference between two distribution functions. Two things must hold before a statistic is told:

* it is significant, over all statistics of the batch together (Holm). :data:`TOLERATED` of the batch may be anything,
  defects for example: of a mixture with such a share, the distance is at most the share plus (1 - share) times that of
  the rest, so what exceeds it is tested as the rest's own;
* the change is large enough to matter, see :class:`Statistic`. The joints of one board are alike, and so a board
  differs a little from all boards together, however many joints it has: no test for independent joints sees that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import smirnov  # type: ignore[import-untyped]

from solder_vae.metrics.paired import holm

ALPHA = 0.01
"""Probability at most of telling anything of a batch of independent joints in which there is nothing to tell."""

TOLERATED = 0.1

FEWEST = 50
"""Joints. Of fewer, those of one corner of a board would be called others (docs/use/line.md has the figures)."""

KEPT = 1000
"""Values that a reference keeps of each statistic."""

Floats = NDArray[np.float64]

_LEAST = 1e-3  # so that nothing is divided by 0


@dataclass(frozen=True)
class Statistic:
    """How a statistic's change is measured and told.

    Attributes:
        name: of the statistic, as a reader knows it.
        kind: "ratio" of the medians; "difference" of the medians, of shares from 0 to 1; or "rank": three quarters of
            the batch lie beyond this share of the reference. A share e of defects takes it to 0.25 / (1 - e) at most.
        least: the change from which on it is told; a ratio of r or 1/r.
    """

    name: str
    kind: str
    least: float

    def change(self, batch: Floats, reference: Floats) -> float:
        """The batch's change against the reference: above 1 or 0 means more; of a rank from -1 to 1."""
        if self.kind == "rank":
            low, high = np.quantile(batch, [0.25, 0.75])
            above, below = np.mean(np.asarray(reference) < low), np.mean(np.asarray(reference) > high)
            return float(above if above >= below else -below)
        now, then = float(np.median(batch)), float(np.median(reference))
        if self.kind == "ratio":
            return max(now, _LEAST) / max(then, _LEAST)
        return now - then

    def matters(self, change: float) -> bool:
        """Whether a change is large enough to be told."""
        return max(change, 1 / change) >= self.least if self.kind == "ratio" else abs(change) >= self.least


@dataclass(frozen=True)
class Compared:
    """A statistic of a batch beside its reference.

    Attributes:
        statistic: which.
        then, now: medians of the reference and of the batch.
        change: see :class:`Statistic`.
        distance: Kolmogorov and Smirnov's.
        p: adjusted for all statistics of the batch.
    """

    statistic: Statistic
    then: float
    now: float
    change: float
    distance: float
    p: float

    @property
    def told(self) -> bool:
        return self.p < ALPHA and self.statistic.matters(self.change)

    @property
    def words(self) -> str:
        """The change for a reader."""
        name, change = self.statistic.name, self.change
        if self.statistic.kind == "ratio":
            return f"{name} {change:.2f} times the training's"
        if self.statistic.kind == "difference":
            return f"{name} {100 * self.now:.0f} % instead of {100 * self.then:.0f} %"
        return (
            f"{name} of three quarters of them {'above' if change > 0 else 'below'} "
            f"{100 * abs(change):.0f} % of the training's"
        )


@dataclass(frozen=True)
class Drift:
    """How a batch differs from what a model was set by.

    Attributes:
        joints: of the batch.
        compared: each statistic, where there was something to compare.
        untested: why nothing was compared, "" if it was.
    """

    joints: int
    compared: list[Compared] = field(default_factory=list)
    untested: str = ""

    @property
    def found(self) -> list[Compared]:
        """What is told: what the photographs show first, and the clearest first."""
        told = [each for each in self.compared if each.told]
        return sorted(told, key=lambda each: (each.statistic.kind == "rank", -each.distance))

    @property
    def told(self) -> bool:
        return bool(self.found)

    @property
    def sentence(self) -> str:
        """What is told, as one sentence; "" if nothing is."""
        if not self.found:
            return ""
        return (
            f"These {self.joints} joints do not look like those the model was trained on: "
            f"{'; '.join(each.words for each in self.found)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """In plain values, for JSON."""
        if self.untested:
            return {"tested": False, "why": self.untested}
        return {
            "tested": True,
            "told": self.told,
            "sentence": self.sentence,
            "alpha": ALPHA,
            "statistics": {
                each.statistic.name: {
                    "training_median": each.then,
                    "median": each.now,
                    each.statistic.kind: each.change,
                    "distance": each.distance,
                    "p": each.p,
                    "told": each.told,
                }
                for each in self.compared
            },
        }


def compare(batch: Mapping[Statistic, Floats], reference: Mapping[Statistic, Floats], joints: int) -> Drift:
    """Compare a batch with a reference.

    Args:
        batch: values ``(joints,)`` of each statistic.
        reference: values ``(m,)`` of the same or fewer statistics, m >= 1; the others are not compared.
        joints: number of the batch.
    """
    if not reference:
        return Drift(joints, untested="the checkpoint keeps nothing to compare with: it is of an earlier version")
    if joints < FEWEST:
        return Drift(joints, untested=f"too few joints ({joints}): it takes {FEWEST}")
    tested = [exceeding(batch[statistic], reference[statistic]) for statistic in reference]
    adjusted = holm([p for _, p in tested])
    return Drift(
        joints,
        [
            Compared(
                statistic,
                float(np.median(reference[statistic])),
                float(np.median(batch[statistic])),
                statistic.change(batch[statistic], reference[statistic]),
                distance,
                p,
            )
            for statistic, (distance, _), p in zip(reference, tested, adjusted, strict=True)
        ],
    )


def exceeding(batch: Floats, reference: Floats, tolerated: float = TOLERATED) -> tuple[float, float]:
    """Kolmogorov and Smirnov's distance, and the probability of one as large if no more than a share was replaced.

    The probability is twice that of the one-sided test (exact: Birnbaum and Tingey 1951), which is never below that of
    the two-sided one, and above it by less than 1 in 10,000 where it is below 0.05.

    Args:
        batch: ``(n,)``.
        reference: ``(m,)``.
        tolerated: the share of the batch that may be anything, from 0 to below 1; 0 is the ordinary two-sample test,
            with the usual ``n m / (n + m)`` in the place of n.
    """
    n, m = np.size(batch), np.size(reference)
    both = np.concatenate([batch, reference])
    below = (np.searchsorted(np.sort(values), both, side="right") / len(values) for values in (batch, reference))
    distance = float(np.abs(np.subtract(*below)).max())
    rest = max(0.0, (distance - tolerated) / (1 - tolerated))
    kept = (1 - tolerated) * n
    # scipy.stats has the two-sided probability, too, but takes half a second to import: a fifth of an inspection.
    return distance, min(1.0, 2 * float(smirnov(max(1, round(kept * m / (kept + m))), rest)))


def sample(values: Floats) -> list[float]:
    """At most :data:`KEPT` of the values, evenly spaced in their order from the least to the greatest."""
    ordered = np.sort(np.asarray(values, np.float64))
    places = np.linspace(0, len(ordered) - 1, min(KEPT, len(ordered))).round().astype(int)
    return [float(value) for value in ordered[places]]
