"""Telling a finished run from one that was interrupted, so that a sweep can go on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solder_vae.training.schema import EPOCHS

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
    if "threshold" in plain:
        plain["threshold"] = today(plain["threshold"])
    since(plain)
    return {key: value for key, value in plain.items() if key not in _WITHOUT_EFFECT}


def since(plain: dict[str, Any]) -> None:
    """Add to the config of an earlier version what it did not have yet, as it was then; drop what is no more."""
    for key, value in (("criterion", "val/loss"), ("plugins", []), ("callbacks", {}), ("beta", None)):
        plain.setdefault(key, value)
    data = plain.get("data")
    if isinstance(data, dict) and str(data.get("_target_")).startswith("solder_vae.data."):
        data.setdefault("crop", "square")
        if data.setdefault("lookalikes", "apart") == "apart":
            data["lookalike_correlation"] = None  # without effect
        if data["_target_"].endswith("folder_data"):
            data.setdefault("type_regex", None)
    model, trainer = plain.get("model"), plain.get("trainer")
    for group in (model, plain.get("score")):
        if isinstance(group, dict):
            group.setdefault("noise", "shared")
    if isinstance(trainer, dict) and trainer.get("ensemble") == 1 and trainer.get("betas") is None:
        plain["trainer"] = {key: value for key, value in trainer.items() if key not in ("ensemble", "betas")}
    if isinstance(trainer := plain.get("trainer"), dict):
        trainer.setdefault("min_steps", 0)
        if trainer.get("max_epochs") is not None and not plain["callbacks"]:
            trainer["min_steps"] = 0  # nothing ends such a run before its epochs are over
        if trainer.get("max_epochs") is None and trainer["min_steps"] == 0:
            trainer["max_epochs"] = EPOCHS
    if not isinstance(model, dict) or "lr_factor" not in model:
        return
    if model.get("beta", 0) is None:
        del model["beta"]  # a CAE's
    optimizer = {"_target_": "torch.optim.Adam", "lr": model.get("lr"), "weight_decay": model.get("weight_decay")}
    scheduler = {"factor": model.get("lr_factor"), "patience": model.get("lr_patience")}
    plain["model"] = {
        "_recursive_": False,
        "latent_channels": 10,
        "width": 16,
        "head": "block",
        "encoder": None,
        "decoder": None,
        "fast": True,
        "optimizer": {**optimizer, "fused": True},
        "scheduler": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", **scheduler},
        **model,
    }


def today(threshold: Any) -> Any:
    """A threshold's config; one from before rules were named by ``_target_``, as it would be written now."""
    if not isinstance(threshold, dict) or "rule" not in threshold:
        return threshold
    from solder_vae.metrics.threshold import Rule

    kind = Rule.registry.get(threshold["rule"])
    parameters = {key: value for key, value in threshold.items() if key != "rule"}
    return threshold if kind is None else {"_target_": f"{kind.__module__}.{kind.__qualname__}", **parameters}
