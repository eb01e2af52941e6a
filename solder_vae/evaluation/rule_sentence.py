"""A threshold in words; apart from the tables, whose metrics an inspection has no use for."""

from __future__ import annotations

from collections.abc import Mapping

from solder_vae.metrics.by_type import OfType, types_sentence
from solder_vae.metrics.threshold import Threshold
from solder_vae.models.history import THRESHOLDS, Entry, entry

VALIDATION, GIVEN = "validation normals", "given normals"
WITH_TRAINING = "validation normals and left-out training normals"
"""What normals a threshold may come from: those of the training, few of them with others, or those that a user gave."""


def known_normals(told: object) -> str:
    """What a checkpoint says of the normals that its thresholds come from; files of earlier versions say nothing."""
    return str(told) if told in (GIVEN, WITH_TRAINING) else VALIDATION


def rule_of(threshold: Threshold) -> str:
    """The rule with its parameters."""
    parameters = [f"{name} = {number:g}" for name, number in threshold.params.items()]
    return "given" if threshold.rule == "fixed" else ", ".join([threshold.rule, *parameters])


def expected(threshold: Threshold, normals: str = VALIDATION) -> str:
    """The false-call rate to expect; where none of the normals is called, its upper bound.

    Args:
        threshold: in question.
        normals: what the normals are that it was counted on.
    """
    low, high = threshold.interval
    rate = f"{100 * threshold.expected_false_call_rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    if not threshold.expected_false_call_rate:
        rate = f"at most {100 * high:.1f} %, as none of them is called"
    return f"False calls to expect from {threshold.n} {normals}: {rate}"


def rule_sentence(threshold: Threshold, primary: str, normals: str = VALIDATION) -> str:
    """The threshold, how it was set, and the false-call rate to expect of it."""
    return f"Threshold of {primary}: {threshold.value:.4g} ({rule_of(threshold)}). {expected(threshold, normals)}."


def decision_sentence(threshold: Threshold, primary: str, normals: str, of_types: Mapping[str, OfType]) -> str:
    """The threshold over all, as in :func:`rule_sentence`, and those within component types."""
    return " ".join(filter(None, [rule_sentence(threshold, primary, normals), types_sentence(of_types, primary)]))


def threshold_entry(threshold: Threshold, primary: str, normals: str = VALIDATION, where: str = "") -> Entry:
    """What a checkpoint's log says of a threshold that is set.

    Args:
        threshold: that of the score that decides.
        primary: name of that score.
        normals: what the normals are that it came from.
        where: the option that gave them, if any.
    """
    given = f" ({where})" if where else ""
    text = f"thresholds set: that of {primary} is {threshold.value:.4g} by {rule_of(threshold)}, "
    return entry(
        THRESHOLDS,
        f"{text}from {threshold.n} {normals}{given}",
        f"threshold by {rule_of(threshold)} from {threshold.n} {normals}",
    )
