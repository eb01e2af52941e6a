"""Thresholds within component types, where a type has normals enough; everything else is judged over all.

Joints of one type look alike, so their scores spread less than those of all together: a type that scores high by nature
would be called too often by a threshold over all, and one that scores low too seldom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solder_vae.metrics.intervals import finite_number
from solder_vae.metrics.threshold import FEW_NORMALS, Threshold
from solder_vae.utils.errors import UserError

ALL = "all types"
"""Among what a joint is judged whose type is unknown or has too few normals."""

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class OfType:
    """What is known of a type's validation normals, or of all.

    Attributes:
        scores: of these normals, by name of the score, each ``(n,)``.
        thresholds: by name of the score; empty where there are too few normals for a threshold of their own.
    """

    scores: Scores
    thresholds: dict[str, Threshold]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers only, as a checkpoint holds them."""
        return {
            "thresholds": {name: threshold.to_dict() for name, threshold in self.thresholds.items()},
            "validation_scores": {name: sorted(values.tolist()) for name, values in self.scores.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OfType:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: what should be a finite number is none, or thresholds and scores do not fit each other.
            KeyError, TypeError, AttributeError: an entry is missing or of another kind.
        """
        thresholds = {str(name): Threshold.from_dict(each) for name, each in data["thresholds"].items()}
        scores = {
            str(name): np.array(sorted(map(finite_number, values)), np.float64)
            for name, values in data["validation_scores"].items()
        }
        if thresholds and not (thresholds.keys() == scores.keys() and all(map(len, scores.values()))):
            raise ValueError("thresholds of other scores")
        return cls(scores, thresholds)


def group(scores: Scores, types: Sequence[str] | None) -> dict[str, Scores]:
    """Scores by type; those of no known type are in no group.

    Args:
        scores: by name of the score, ``(N,)`` or, of scores that lack the last ones, shorter.
        types: N types, "" for none; None where none is known.
    """
    if types is None:
        return {}
    of = np.array(types, dtype=object)
    return {
        kind: {name: values[of[: len(values)] == kind] for name, values in scores.items()}
        for kind in sorted(set(types))
        if kind
    }


def fit_by_type(groups: Mapping[str, Scores], fit: Callable[[str, Scores], dict[str, Threshold]]) -> dict[str, OfType]:
    """Thresholds within each type that has ``FEW_NORMALS`` normals or more, and as many as the rule needs.

    Args:
        groups: scores of normals by type, see :func:`group`.
        fit: sets every score's threshold from a type and its scores; a UserError says that these are too few.
    """
    fitted = {}
    for kind, scores in groups.items():
        thresholds: dict[str, Threshold] = {}
        if min(map(len, scores.values())) >= FEW_NORMALS:
            with suppress(UserError):
                thresholds = fit(kind, scores)
        fitted[kind] = OfType(scores, thresholds)
    return fitted


def limits(
    overall: Threshold, own: Mapping[str, Threshold], types: Sequence[str] | None, n: int
) -> NDArray[np.float64]:
    """The threshold that each of N joints is judged by: ``(N,)`` float64.

    Args:
        overall: of joints whose type has none of its own.
        own: by type.
        types: N types, or None.
        n: N.
    """
    if types is None:
        return np.full(n, overall.value)
    return np.array([own.get(kind, overall).value for kind in types], np.float64)


def own_thresholds(of_types: Mapping[str, OfType], name: str) -> dict[str, Threshold]:
    """A score's thresholds by type, of the types that have some."""
    return {kind: each.thresholds[name] for kind, each in of_types.items() if each.thresholds}


def types_sentence(of_types: Mapping[str, OfType], primary: str, shown: int = 12) -> str:
    """Which types are judged by themselves, by which threshold, with how many false calls to expect; else empty."""
    if not of_types:
        return ""
    own = own_thresholds(of_types, primary)
    told = [
        f"{kind} {each.value:.4g} ({each.n} normals, {100 * each.expected_false_call_rate:.1f} % false calls)"
        for kind, each in list(own.items())[:shown]
    ]
    told += [f"{len(own) - shown} more"] if len(own) > shown else []
    few = len(of_types) - len(own)
    rest = f" ({few} with too few normals)" if few else ""
    if not own:
        return f"No type has a threshold of its own, which takes {FEW_NORMALS} validation normals or more{rest}."
    return f"Within their type: {', '.join(told)}. By the threshold over all: joints of other types{rest}."
