"""The decision rule (paper III-C): a joint is called abnormal iff its score is greater than the threshold.

A threshold is set from the scores of validation normals and from nothing else, so no abnormal joint is needed
to set it and the test set stays unseen. What can be promised from normals alone is the false-call rate, and
every :class:`Threshold` carries the one to expect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solder_vae.metrics.intervals import clopper_pearson, finite, finite_number
from solder_vae.utils.errors import UserError

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """A threshold and the false-call rate it is expected to give.

    Attributes:
        value: scores above it are called abnormal; in the score's own units.
        rule: name of the rule that set it, one of :data:`RULES`.
        params: the rule's parameter by name.
        expected_false_call_rate: share of the validation normals above ``value``, in [0, 1].
        interval: 95 % Clopper-Pearson interval ``(low, high)`` of the false-call rate. It holds although the
            threshold was set on these very scores: above a value between neighbouring order statistics the
            true rate lies between two Beta variables whose quantiles are the Clopper-Pearson bounds. (Under
            ``sigma``, whose place among the scores is itself random, it is approximate.)
        n: number of validation normals.
    """

    value: float
    rule: str
    params: dict[str, float]
    expected_false_call_rate: float
    interval: tuple[float, float]
    n: int

    def predict(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Call joints abnormal (True) or normal; compared in float64, as the threshold was set.

        Args:
            scores: ``(N,)``, higher = more anomalous.
        """
        called: NDArray[np.bool_] = np.asarray(scores, dtype=np.float64) > self.value
        return called

    def to_dict(self) -> dict[str, Any]:
        """Plain containers only, so that a checkpoint that holds it loads with ``weights_only=True``."""
        return {**asdict(self), "interval": list(self.interval)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Threshold:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: what should be a finite number is none.
            KeyError, TypeError: an entry is missing or of another kind.
        """
        low, high = map(finite_number, data["interval"])
        return cls(
            value=finite_number(data["value"]),
            rule=str(data["rule"]),
            params={str(name): finite_number(number) for name, number in data["params"].items()},
            expected_false_call_rate=finite_number(data["expected_false_call_rate"]),
            interval=(low, high),
            n=int(data["n"]),
        )


def check_rule(rule: str = "quantile", **params: object) -> float:
    """The rule's parameter, checked, so that a run can refuse a mistyped rule before it trains.

    Args:
        rule: one of :data:`RULES`.
        params: the rule's parameter (``q``, ``k``, ``rate`` or ``value``); left out, its default.

    Raises:
        UserError: an unknown rule or parameter, or a parameter out of range.
    """
    if rule not in RULES:
        *others, last = RULES
        raise UserError(f"Unknown threshold rule {rule!r}: choose threshold={', '.join(others)} or {last}.")
    parameter, default, accepts, domain, _ = RULES[rule]
    if surplus := sorted(set(params) - {parameter}):
        raise UserError(f"threshold={rule} has no parameter {surplus[0]!r}: it takes threshold.{parameter}=NUMBER.")
    number = params.get(parameter, default)
    if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number) and accepts(number):
        return float(number)
    raise UserError(f"threshold={rule} needs {domain}, got {number!r}: type threshold.{parameter}=NUMBER.")


def fit_threshold(scores: ArrayLike, rule: str = "quantile", **params: object) -> Threshold:
    """Set the threshold from validation normals.

    Args:
        scores: ``(n,)`` anomaly scores of the validation normals.
        rule, params: see :func:`check_rule`.

    Raises:
        UserError: what :func:`check_rule` refuses, no scores or non-finite ones, or too few normals.
    """
    number = check_rule(rule, **params)
    normals = finite(scores, "validation normals")
    if normals.size == 0:
        raise UserError("No validation normals to set the threshold from: put normal images into the validation split.")
    value = RULES[rule].cut(normals, number)
    false_calls = int((normals > value).sum())
    return Threshold(
        value=value,
        rule=rule,
        params={RULES[rule].parameter: number},
        expected_false_call_rate=false_calls / normals.size,
        interval=clopper_pearson(false_calls, normals.size),
        n=normals.size,
    )


def refit_rule(threshold: Threshold, scores: ArrayLike) -> Threshold:
    """The same rule on another score's validation normals, to compare the two scores fairly.

    A fixed value means nothing in another score's units, so there the quantile with the same expected
    false-call rate stands in for it.

    Args:
        threshold: the primary score's threshold.
        scores: ``(n,)`` the other score of the validation normals.
    """
    if threshold.rule == "fixed":
        return fit_threshold(scores, "quantile", q=1 - threshold.expected_false_call_rate)
    return fit_threshold(scores, threshold.rule, **threshold.params)


def _quantile(normals: Scores, q: float) -> float:
    return float(np.quantile(normals, q))


def _sigma(normals: Scores, k: float) -> float:
    if normals.size < 2:
        raise UserError("threshold=sigma needs 2 validation normals, there is 1: add some or use threshold=fixed.")
    return float(normals.mean() + k * normals.std(ddof=1))


def _false_call_rate(normals: Scores, rate: float) -> float:
    """Split-conformal order statistic: the ``ceil((1 - rate) (n + 1))``-th smallest of n scores.

    If a new normal is exchangeable with the n, its rank among all n + 1 is uniform, so it exceeds that order
    statistic with probability at most ``floor(rate (n + 1)) / (n + 1) <= rate``.
    """
    exact = Fraction(str(rate))  # the decimal that was typed: 0.29 * 100 is 28.999... in floating point
    above = math.floor(exact * (normals.size + 1))
    if above == 0:
        raise UserError(
            f"A false-call rate of {rate:g} needs at least {math.ceil(1 / exact) - 1} validation normals, "
            f"there are {normals.size}: add normals or raise threshold.rate."
        )
    return float(np.sort(normals)[normals.size - above])


def _fixed(normals: Scores, value: float) -> float:
    return value


class Rule(NamedTuple):
    """A threshold rule and its one parameter.

    Attributes:
        parameter: its name.
        default: None where it must be given.
        accepts: whether a number is in its domain.
        domain: the domain in words.
        cut: ``(normals' scores, parameter) -> threshold``.
    """

    parameter: str
    default: float | None
    accepts: Callable[[float], bool]
    domain: str
    cut: Callable[[Scores, float], float]


#: The threshold rules by name.
RULES: dict[str, Rule] = {
    "quantile": Rule("q", 0.95, lambda q: 0 <= q <= 1, "a number from 0 to 1", _quantile),
    "sigma": Rule("k", 2.0, lambda k: True, "a number", _sigma),
    "false_call_rate": Rule("rate", 0.05, lambda rate: 0 < rate < 1, "a number between 0 and 1", _false_call_rate),
    "fixed": Rule("value", None, lambda value: True, "a number", _fixed),
}
