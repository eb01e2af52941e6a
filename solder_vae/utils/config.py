"""Configs: flatten one, and build what it names (imports no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from solder_vae.utils.errors import UserError


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
    """Instantiate a config's ``_target_``; the user's mistakes come out as they were raised, not wrapped by Hydra."""
    try:
        return instantiate(config, **options, _convert_="all")
    except InstantiationException as error:
        # Here, since it brings torch, and reading a sweep's folder has no use for that.
        from lightning_fabric.utilities.exceptions import MisconfigurationException

        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, TypeError | ValueError | MisconfigurationException):
            raise UserError(f"A value does not fit {config.get('_target_')}: {str(cause).rstrip('.!')}.") from error
        raise


def import_target(target: str) -> None:
    """Import what a config's ``_target_`` names, so that its class is registered.

    Raises:
        UserError: there is no such thing.
    """
    try:
        get_class(target)
    except (ImportError, ValueError) as error:
        raise UserError(f"_target_: {target} cannot be imported: {error}.") from error
