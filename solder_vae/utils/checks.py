"""Checks of options, for the parts that use them."""

from __future__ import annotations

from collections.abc import Sequence

from solder_vae.utils.errors import UserError


def check_whole_number(key: str, value: object, least: int) -> None:
    """Check an option that counts something.

    Raises:
        UserError: it is not a whole number, or less than ``least``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{key}={shown(value)} does not fit: use a whole number, {least} or more.")


def check_number(key: str, value: object, above_0: bool = False) -> None:
    """Check an option that measures something.

    Raises:
        UserError: it is not a finite number, or below 0 (not above it).
    """
    if not is_number(value) or (above_0 and value == 0):
        wanted = f"a number{' above 0' if above_0 else ', 0 or more'}"
        raise UserError(f"{key}={shown(value)} does not fit: use {wanted}.")


def shown(value: object) -> object:
    """A value in a message: text that reads as a number has its quotes, else it would seem to fit."""
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return value
    return repr(value) if isinstance(value, str) else value


def check_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Check an option that is one of some words.

    Raises:
        UserError: it is none of them.
    """
    if value not in choices:
        raise UserError(f"{key}={value} is unknown: use {(', ' if len(choices) > 2 else ' or ').join(choices)}.")


def check_flag(key: str, value: object) -> None:
    """Check an option that is on or off.

    Raises:
        UserError: it is neither.
    """
    if not isinstance(value, bool):
        raise UserError(f"{key}={value} does not fit: use true or false.")


def no_device(device: str) -> UserError:
    """What is wrong with a device that a command is to run on."""
    return UserError(f"device={device} is not there: use cpu, or cuda where there is a GPU.")


def is_number(value: object) -> bool:
    """Whether a config value is a finite number, 0 or greater."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
