"""Telling a finished run from one that was interrupted, so that a sweep can go on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_WITHOUT_EFFECT = ("skip_finished", "few_normals", "resume", "logger", "pictures")  # on a run's result


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
    return {key: value for key, value in plain.items() if key not in _WITHOUT_EFFECT}
