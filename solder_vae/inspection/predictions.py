"""What an inspection keeps of a joint: a row of the tables and the report's picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from solder_vae.inspection.inspector import Inspector, Joint, Unreadable, Verdict
from solder_vae.inspection.report import picture


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of predictions.csv.

    Attributes:
        path: the joint's file, or its name.
        score: the primary score; higher = more anomalous.
        threshold: abnormal iff ``score > threshold``.
        margin: score minus threshold.
        label: "normal" or "abnormal".
        rank: share of the validation normals that score lower, in [0, 1].
        scores: every score by name.
    """

    path: str
    score: float
    threshold: float
    margin: float
    label: str
    rank: float
    scores: dict[str, float]

    @classmethod
    def of(cls, verdict: Verdict) -> Prediction:
        """The verdict without its pictures."""
        return cls(
            verdict.name,
            verdict.score,
            verdict.threshold,
            verdict.margin,
            verdict.label,
            verdict.rank,
            verdict.scores,
        )


Row = tuple[Prediction, Callable[[], str]] | Unreadable
"""What comes of a joint: its prediction with what draws the report's picture (few are shown), or why there is none."""


def inspect_rows(inspector: Inspector, joints: Iterable[Joint]) -> Iterator[Row]:
    """Inspect joints one by one, see :meth:`Inspector.inspect`."""
    for result in inspector.inspect(joints):
        yield result if isinstance(result, Unreadable) else (Prediction.of(result), partial(picture, result))
