"""What the threshold command's options may be (imports no torch)."""

from __future__ import annotations

from collections.abc import Mapping

from solder_vae.metrics.threshold import RULES
from solder_vae.utils.errors import UserError

COST = "cost"


def check_options(rule: str, parameters: Mapping[str, float], labelled: str | None) -> None:
    """Check the options before anything is read.

    Raises:
        UserError: an unknown rule, a parameter that it lacks or doesn't have, or a number out of range.
    """
    if rule == COST:
        accepted = {"escape_cost", "prevalence"}
        if missing := sorted(accepted - set(parameters)):
            raise UserError(f"rule=cost needs {' and '.join(f'{name}=NUMBER' for name in missing)}: --help explains.")
        if labelled is None:
            raise UserError("rule=cost needs labelled=PATH: good and bad joints to count false calls and escapes on.")
    elif rule not in RULES:
        raise UserError(f"rule={rule} is unknown: use {', '.join([*RULES, COST])}.")
    else:
        parameter, default, accepts, domain, _ = RULES[rule]
        accepted = {parameter}
        number = parameters.get(parameter, default)
        if number is None or not accepts(number):
            got = "nothing" if number is None else f"{number:g}"
            raise UserError(f"rule={rule} needs {parameter}=NUMBER, {domain}, got {got}.")
    if surplus := sorted(set(parameters) - accepted):
        raise UserError(f"rule={rule} has no {surplus[0]}: it takes {' and '.join(sorted(accepted))}.")
