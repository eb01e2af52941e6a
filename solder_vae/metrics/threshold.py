"""The decision rule (paper III-C): a joint is called abnormal iff its score is greater than the threshold.

In training a threshold is set from the scores of validation normals and from nothing else, so no abnormal joint is
needed to set it and the test set stays unseen. What can be promised from normals alone is the false-call rate, and
every :class:`Threshold` carries the one to expect.

How it is set is a :class:`Rule`. Further rules may live anywhere: a subclass is known by its name once its module is
imported, and a config names it by ``_target_``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solder_vae.metrics.intervals import clopper_pearson, finite, finite_number
from solder_vae.metrics.trade_off import least_cost
from solder_vae.utils.errors import UserError, check_name

Scores = NDArray[np.float64]

FEW_NORMALS = 20
"""So many normals set a threshold by themselves: a false-call rate of 5 % cannot be promised by fewer than 19. With
fewer, training normals that are left out help, and a component type is judged among all others."""


@dataclass(frozen=True)
class Threshold:
    """A threshold and the false-call rate it is expected to give.

    Attributes:
        value: scores above it are called abnormal; in the score's own units.
        rule: name of the rule that set it; a checkpoint loads also where that rule is not known.
        params: the rule's parameters by name.
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


class Labelled(NamedTuple):
    """Scores ``(N,)`` of a labelled set's good joints and of its bad ones; either may be empty."""

    normals: Scores
    abnormals: Scores


@dataclass(frozen=True)
class Rule(ABC):
    """A way to set a threshold. A rule is a frozen dataclass whose fields are its parameters, all of them numbers::

        @dataclass(frozen=True)
        class Mine(Rule, name="mine"):
            q: float = 0.9
            factor: float = 1.5

            def cut(self, normals, labelled=None):
                return self.factor * float(np.quantile(normals, self.q))

    The first line of its docstring is what ``python -m solder_vae.threshold --help`` says of it.

    Attributes:
        name: what ``python -m solder_vae.threshold rule=NAME``, checkpoints and reports call it.
        needs_labelled: whether it needs a labelled set, too. Such a rule is not for training.
        registry: every rule whose module has been imported, by name.

    Raises:
        UserError: a parameter is not a finite number, or another rule has the name already.
    """

    name: ClassVar[str]
    needs_labelled: ClassVar[bool] = False
    registry: ClassVar[dict[str, type[Rule]]] = {}

    def __init_subclass__(cls, *, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_name(Rule.registry, name, cls, "threshold rule")
        cls.name = name
        Rule.registry[name] = cls

    def __post_init__(self) -> None:
        for field in fields(self):
            self.check(field.name)

    def check(
        self, parameter: str, domain: str = "a number", fits: Callable[[float], bool] = lambda number: True
    ) -> None:
        """Check one parameter; for ``__post_init__``.

        Args:
            parameter: its name.
            domain: what fits, in words.
            fits: whether a finite number does.

        Raises:
            UserError: it is not a finite number or does not fit.
        """
        value = getattr(self, parameter)
        try:
            fitting = fits(finite_number(value))
        except ValueError:
            fitting = False
        if not fitting:
            got = "nothing" if value is None else repr(value)
            raise UserError(f"The threshold rule {self.name} needs {parameter}=NUMBER, {domain}, got {got}.")

    @property
    def params(self) -> dict[str, float]:
        """The parameters by name, as a checkpoint holds them."""
        return {field.name: float(getattr(self, field.name)) for field in fields(self)}

    @abstractmethod
    def cut(self, normals: Scores, labelled: Labelled | None = None) -> float:
        """The threshold, in the score's units.

        Args:
            normals: ``(n,)`` finite scores of good joints, n >= 1, in no order.
            labelled: the same score of a labelled set if ``needs_labelled``, else None.

        Raises:
            UserError: there are too few scores.
        """

    def for_another_score(self, threshold: Threshold) -> Rule:
        """The rule to set another score's threshold by, so that both scores can be compared: this one.

        Args:
            threshold: what this rule set for the primary score.
        """
        return self


@dataclass(frozen=True)
class Quantile(Rule, name="quantile"):
    """The q-quantile of the normals' scores: about 1 - q of the good joints are called."""

    q: float = 0.95

    def __post_init__(self) -> None:
        self.check("q", "a number from 0 to 1", lambda q: 0 <= q <= 1)

    def cut(self, normals: Scores, labelled: Labelled | None = None) -> float:
        return float(np.quantile(normals, self.q))


@dataclass(frozen=True)
class Sigma(Rule, name="sigma"):
    """The mean of the normals' scores plus k standard deviations."""

    k: float = 2.0

    def cut(self, normals: Scores, labelled: Labelled | None = None) -> float:
        if normals.size < 2:
            raise UserError("The threshold rule sigma needs 2 normals, there is 1: add some or use fixed.")
        return float(normals.mean() + self.k * normals.std(ddof=1))


@dataclass(frozen=True)
class FalseCallRate(Rule, name="false_call_rate"):
    """At most this share of good joints is called, however few normals there are.

    Split-conformal order statistic: the ``ceil((1 - rate) (n + 1))``-th smallest of n scores. If a new normal is
    exchangeable with the n, its rank among all n + 1 is uniform, so it exceeds that order statistic with probability
    at most ``floor(rate (n + 1)) / (n + 1) <= rate``.
    """

    rate: float = 0.05

    def __post_init__(self) -> None:
        self.check("rate", "a number between 0 and 1", lambda rate: 0 < rate < 1)

    def cut(self, normals: Scores, labelled: Labelled | None = None) -> float:
        exact = Fraction(str(self.rate))  # the decimal that was typed: 0.29 * 100 is 28.999... in floating point
        above = math.floor(exact * (normals.size + 1))
        if above == 0:
            raise UserError(
                f"A false-call rate of {self.rate:g} needs at least {math.ceil(1 / exact) - 1} normals, "
                f"there are {normals.size}: add normals or raise the rate."
            )
        return float(np.sort(normals)[normals.size - above])


@dataclass(frozen=True)
class Fixed(Rule, name="fixed"):
    """This threshold, in units of the score that decides."""

    value: float

    def cut(self, normals: Scores, labelled: Labelled | None = None) -> float:
        return float(self.value)

    def for_another_score(self, threshold: Threshold) -> Rule:
        """The quantile with the same expected false-call rate: the value means nothing in another score's units."""
        return Quantile(1 - threshold.expected_false_call_rate)


@dataclass(frozen=True)
class Cost(Rule, name="cost"):
    """Least expected cost: an escape costs so many false calls, and that share of the line's joints is bad.

    See :func:`~solder_vae.metrics.trade_off.least_cost`.
    """

    needs_labelled: ClassVar[bool] = True

    escape_cost: float
    prevalence: float

    def __post_init__(self) -> None:
        self.check("escape_cost", "a number above 0: what an escape costs, in false calls", lambda cost: cost > 0)
        self.check(
            "prevalence", "a number between 0 and 1: the share of bad joints on the line", lambda share: 0 < share < 1
        )

    def cut(self, normals: Scores, labelled: Labelled | None = None) -> float:
        assert labelled is not None
        for kind, scores in zip(("normal", "abnormal"), labelled, strict=True):
            if not scores.size:
                raise UserError(
                    f"The threshold rule cost needs good and bad joints, and the labelled set has no {kind} ones: "
                    "add some."
                )
        return least_cost(labelled.normals, labelled.abnormals, self.escape_cost, self.prevalence)


DEFAULT = Quantile()


def make_rule(name: str, **params: float) -> Rule:
    """The rule of that name.

    Args:
        name: one of :attr:`Rule.registry`.
        params: its parameters; those left out have their defaults.

    Raises:
        UserError: an unknown rule or parameter, one that is missing, or one out of range.
    """
    if name not in Rule.registry:
        names = ", ".join(Rule.registry)
        raise UserError(f"The threshold rule {name!r} is unknown: use {names}, or name its module by plugins=MODULE.")
    kind = Rule.registry[name]
    known = {field.name: field.default is MISSING for field in fields(kind)}
    if surplus := sorted(set(params) - set(known)):
        raise UserError(f"The threshold rule {name} has no {surplus[0]}: it takes {' and '.join(known) or 'nothing'}.")
    if missing := [f"{field}=NUMBER" for field, required in known.items() if required and field not in params]:
        raise UserError(f"The threshold rule {name} needs {' and '.join(missing)}.")
    return kind(**params)


def fit_threshold(scores: ArrayLike, rule: Rule = DEFAULT, labelled: Labelled | None = None) -> Threshold:
    """Set the threshold from validation normals.

    Args:
        scores: ``(n,)`` anomaly scores of the validation normals.
        rule: how.
        labelled: the same score of a labelled set, for a rule that needs one.

    Raises:
        UserError: no scores or non-finite ones, or too few for the rule.
    """
    normals = finite(scores, "validation normals")
    if normals.size == 0:
        raise UserError("No validation normals to set the threshold from: put normal images into the validation split.")
    if labelled is not None:
        labelled = Labelled(
            finite(labelled.normals, "labelled normals"), finite(labelled.abnormals, "labelled abnormals")
        )
    elif rule.needs_labelled:
        raise UserError(f"The threshold rule {rule.name} needs a labelled set: give good and bad joints.")
    value = float(rule.cut(normals, labelled))
    if not math.isfinite(value):
        raise UserError(f"The threshold rule {rule.name} gave {value}, which is no threshold: mend it or use another.")
    false_calls = int((normals > value).sum())
    return Threshold(
        value=value,
        rule=rule.name,
        params=rule.params,
        expected_false_call_rate=false_calls / normals.size,
        interval=clopper_pearson(false_calls, normals.size),
        n=normals.size,
    )


def refit_rule(rule: Rule, threshold: Threshold, scores: ArrayLike, labelled: Labelled | None = None) -> Threshold:
    """The same rule on another score's validation normals, to compare the two scores fairly.

    Args:
        rule: the primary score's.
        threshold: what it set.
        scores: ``(n,)`` the other score of the validation normals.
        labelled: the other score of a labelled set, for a rule that needs one.
    """
    return fit_threshold(scores, rule.for_another_score(threshold), labelled)
