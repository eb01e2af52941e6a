"""Configs: flatten one, and build what it names (imports no torch)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from solder_vae.utils.errors import UserError, parameters, unknown_key


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys, so that dashboards can filter on each value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def build(config: DictConfig, **options: Any) -> Any:
    """Instantiate a config's ``_target_``; the user's mistakes come out as they were raised, not wrapped by Hydra.

    Raises:
        UserError: there is no such target, a key is no parameter of it, or a value does not fit.
    """
    try:
        return instantiate(config, **options, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if str(error).startswith("Error locating target"):  # the config's, or that of one of its parts
            missing = re.findall(r"'([^']+)'", str(error))[0]
            raise not_imported(missing, cause) from error
        if cause is None:
            raise
        found = re.search(r"unexpected keyword argument '(.+)'", str(cause))
        if found and found[1] in config:  # else it is of a part's own parts
            raise UserError(unknown_parameter(config, found[1])) from error
        raise UserError(f"A value does not fit {config.get('_target_')}: {str(cause).rstrip('.!')}.") from error


def import_target(target: str) -> None:
    """Import what a config's ``_target_`` names, so that its class is registered.

    Raises:
        UserError: there is no such thing.
    """
    module, _, name = target.rpartition(".")
    try:
        getattr(import_module(module), name)  # not by Hydra, which prints what it cannot find
    except Exception as error:
        raise not_imported(target, error) from error


def not_imported(target: str, error: BaseException | None) -> UserError:
    """What is wrong with a ``_target_``, by what Hydra raised; a mistake that its module tells comes as it is."""
    reason = error.__cause__ if error is not None and error.__cause__ is not None else error
    if isinstance(reason, UserError):
        return reason
    module, _, name = target.rpartition(".")
    missing = f"{module} has no {name}" if module in sys.modules else str(reason).splitlines()[0].rstrip(".!")
    return UserError(f"_target_: {target} cannot be imported: {missing}.")


def unknown_parameter(config: DictConfig, key: str) -> str:
    """The sentence for a key that the config's ``_target_`` does not take.

    What it takes is what the config's other keys and its signature say.
    """
    keys = {str(other) for other in config if other != key and not str(other).startswith("_")}
    keys |= {*parameters(get_object(config._target_))}
    return unknown_key(config._get_full_key(key), sorted(keys), config._target_)
