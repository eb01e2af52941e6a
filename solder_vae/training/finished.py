"""Telling a finished run from one that was interrupted, so that a sweep can go on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_WITHOUT_EFFECT = ("skip_finished", "resume", "logger", "pictures")  # on a run's result


def finished(config: DictConfig, directory: Path) -> float | None:
    """The best validation loss of the run in ``directory`` if it is finished and was run as ``config`` says, else None.

    A run is finished when its ``metrics.json`` is there: that file is written whole, at the end, and removed when a run
    begins in the same folder.
    """
    try:
        then = OmegaConf.load(directory / "config.yaml")
        numbers = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return float(numbers[config.criterion]) if decisive(then) == decisive(config) else None


def decisive(config: Any) -> dict[str, Any]:
    """The part of a run's config that its result depends on, in plain containers as read from a file."""
    plain: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(config, resolve=True)))  # type: ignore[assignment]
    if "threshold" in plain:
        plain["threshold"] = today(plain["threshold"])
    plain.setdefault("criterion", "val/loss")  # runs from before it was in every config
    return {key: value for key, value in plain.items() if key not in _WITHOUT_EFFECT}


def today(threshold: Any) -> Any:
    """A threshold's config; one from before rules were named by ``_target_``, as it would be written now."""
    if not isinstance(threshold, dict) or "rule" not in threshold:
        return threshold
    from solder_vae.metrics.threshold import Rule

    kind = Rule.registry.get(threshold["rule"])
    parameters = {key: value for key, value in threshold.items() if key != "rule"}
    return threshold if kind is None else {"_target_": f"{kind.__module__}.{kind.__qualname__}", **parameters}
