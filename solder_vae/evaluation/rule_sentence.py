"""A threshold in words; apart from the tables, whose metrics an inspection has no use for."""

from __future__ import annotations

from solder_vae.metrics.threshold import Threshold


def rule_sentence(threshold: Threshold, primary: str) -> str:
    """The threshold, how it was set, and the false-call rate to expect of it."""
    parameters = [f"{name} = {number:g}" for name, number in threshold.params.items()]
    rule = "given" if threshold.rule == "fixed" else ", ".join([threshold.rule, *parameters])
    low, high = threshold.interval
    expected = f"{100 * threshold.expected_false_call_rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return (
        f"Threshold of {primary}: {threshold.value:.4g} ({rule}). False calls to expect from "
        f"{threshold.n} validation normals: {expected}."
    )
