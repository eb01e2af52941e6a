"""Where numbers and pictures go: metrics.csv in the run directory, and Weights & Biases, offline unless asked.

Nothing about logging may stop a run: without a key or a network, ``logger.mode=online`` falls back to offline.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from solder_vae.errors import UserError

# Before wandb is imported by the logger: no crash reports to its makers.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")

log = logging.getLogger(__name__)

MODES = ("offline", "online", "disabled")
TAGGED = ("model", "score", "data")  # of a run's config: what dashboards filter by most


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys, so that dashboards can filter on each value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@contextmanager
def run_loggers(
    directory: Path,
    config: Mapping[str, Any],
    *,
    mode: str,
    project: str,
    tags: list[str],
    name: str,
    group: str | None,
) -> Iterator[list[Logger]]:
    """The run's loggers, closed on the way out however the run ended.

    Args:
        directory: the run's directory.
        config: the run's config, flat.
        mode: "offline", "online" or "disabled" (Weights & Biases only).
        project, tags, name, group: as in Weights & Biases; the group is the sweep's name.

    Raises:
        UserError: an unknown mode.
    """
    if mode not in MODES:
        raise UserError(f"logger.mode={mode} is unknown: use {', '.join(MODES)}.")
    loggers: list[Logger] = [CSVLogger(directory, name="", version="")]
    status = 1
    try:
        if mode != "disabled":
            tagged = [str(config[key]) for key in TAGGED if key in config]
            settings = {"project": project, "tags": [*dict.fromkeys([*tags, *tagged])], "name": name, "group": group}
            if wandb_logger := start_wandb(mode, dir=directory, config=dict(config), **settings):
                loggers.append(wandb_logger)
        yield loggers
        status = 0
    finally:
        for logger in loggers:
            logger.finalize("success" if status == 0 else "failed")
            if isinstance(logger, WandbLogger):
                finish_wandb(status)


def start_wandb(mode: str, **settings: Any) -> WandbLogger | None:
    """A logger for a new run, offline if it does not start in ``mode``; None if it does not start at all.

    Args:
        mode: "offline" or "online".
        settings: of :func:`wandb.init`.
    """
    import wandb

    for attempt in (mode, "offline"):
        try:
            run = wandb.init(
                mode=attempt,  # type: ignore[arg-type]
                notes=repeat_command(),
                settings=wandb.Settings(init_timeout=30, console="off"),
                reinit="finish_previous",
                **settings,
            )
            # What a curve's summary shows: losses at their best, not at their last epoch.
            for name in ("train/*", "val/*"):
                run.define_metric(name, summary="min,last")
            run.define_metric("val/active_units", summary="last")
            return WandbLogger(experiment=run)
        except Exception as error:  # anything: logging is never worth a training
            log.warning("Weights & Biases (%s) did not start: %s", attempt, str(error).strip() or type(error).__name__)
    return None


def repeat_command() -> str:
    """The command that repeats this run alone, also when it is one of a sweep in another process."""
    if not HydraConfig.initialized():
        return shlex.join(["python", "-m", "solder_vae.train", *sys.argv[1:]])
    hydra = HydraConfig.get()
    return shlex.join(["python", "-m", hydra.help.app_name, *hydra.overrides.task])


def finish_wandb(status: int) -> None:
    import wandb

    try:
        wandb.finish(exit_code=status)
    except Exception as error:
        log.warning("Weights & Biases did not finish cleanly: %s", error)
