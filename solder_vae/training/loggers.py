"""Where numbers and pictures go: metrics.csv in the run directory, and Weights & Biases, offline by default.

Logging must never stop a run. Without a key or a network, ``logger.mode=online`` falls back to offline. If the
connection to Weights & Biases is lost later, the run goes on without it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from solder_vae.data.table import ImageTable
from solder_vae.models.scores import SCORES
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_file

# Before wandb is imported by the logger: no crash reports to its makers.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")
# Seconds that a run waits for a server that does not answer: before its first epoch, and after its last one.
os.environ.setdefault("WANDB_INIT_TIMEOUT", "30")
os.environ.setdefault("WANDB_FINISH_TIMEOUT", "60")

log = logging.getLogger(__name__)

CHOICES = ("model", "score", "data", "threshold")  # groups whose chosen names are logged
TAGGED = ("model", "score", "data")  # those of them that dashboards filter by most

#: Which value of a metric is its best. Divergence and active units have no best value.
BEST = {"train/*": "min,last", "val/*": "min,last"}
BEST |= dict.fromkeys(("train/kl", "val/kl", "val/active_units"), "last")
_UP, _DOWN = ("auroc", "average_precision", "precision", "recall", "f1"), ("false_call_rate", "escape_rate")


def best_of(scores: Iterable[str]) -> dict[str, str]:
    """Which value of each metric is its best, for runs tested under these scores."""
    best = dict(BEST)
    for part in ("test", *(f"test/{score}" for score in scores)):
        best |= {f"{part}/{key}": "max" for key in _UP} | {f"{part}/{key}": "min" for key in _DOWN}
    return best


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
    """The run's loggers, closed at the end, even if the run fails.

    Args:
        directory: the run's directory.
        config: the run's config, nested, with the names of its groups as ``choices``.
        mode: "offline", "online" or "disabled" (Weights & Biases only).
        project, tags, name, group: as in Weights & Biases; the group is the sweep's name.
    """
    loggers: list[Logger] = [WholeCSVLogger(directory, name="", version="")]
    status = 1
    try:
        if mode != "disabled":
            choices = config.get("choices", {})
            tagged = [str(choices[key]) for key in TAGGED if key in choices]
            settings = {"project": project, "tags": [*dict.fromkeys([*tags, *tagged])], "name": name, "group": group}
            if wandb_logger := start_wandb(mode, dir=directory, config=dict(config), **settings):
                loggers.append(wandb_logger)
        yield loggers
        status = 0
    finally:
        for logger in loggers:
            logger.finalize("success" if status == 0 else "failed")
            if isinstance(logger, Dashboard):
                logger.finish(status)


class WholeCSVLogger(CSVLogger):
    """Lightning's logger, but each saving replaces ``metrics.csv`` as a whole.

    Lightning appends rows, and rewrites the file in place when a column comes. A Ctrl-C in between left rows longer
    than the header, or twice: a file that a resumed run could not go on from.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = WholeWriter(log_dir=self.log_dir)
        return cast(ExperimentWriter, self._experiment)


class WholeWriter(ExperimentWriter):
    """Keeps all rows: a few hundred, each of a few numbers."""

    saved = 0  # rows

    def save(self) -> None:
        """Raises UserError if the file can't be written."""
        if len(self.metrics) == self.saved:
            return
        path = Path(self.metrics_file_path)
        self.metrics_keys = sorted(set().union(*self.metrics))
        try:
            with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
                writer.writeheader()
                writer.writerows(self.metrics)
        except OSError as error:
            raise UserError(
                f"{path} can't be written ({error.strerror}): correct that, then go on from the run's last.ckpt by "
                "resume=PATH."
            ) from error
        self.saved = len(self.metrics)


class Dashboard(WandbLogger):
    """A run of Weights & Biases that may be lost at any time. The loss is reported once, and nothing more is sent."""

    lost = False

    def attempt(self, send: Callable[..., object], *arguments: Any) -> None:
        """Call ``send(*arguments)`` unless the run is lost; if that fails, it is."""
        if not self.lost:
            try:
                send(*arguments)
            except Exception as error:  # any error: logging must not stop a run
                self.lose(error)

    def lose(self, error: Exception) -> None:
        if not self.lost:
            self.lost = True
            log.warning(
                "Weights & Biases did not get all of this run: %s. The run's own files are whole; "
                "wandb sync %s sends what was logged until then.",
                first_line(error),
                shlex.quote(self.experiment.settings.sync_dir),
            )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.attempt(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self.attempt(super().log_hyperparams, params)

    def finish(self, status: int) -> None:
        """Wait, for a limited time, until what was logged is on disk and, if online, on the server."""
        try:
            self.experiment.finish(status)
        except Exception as error:
            self.lose(error)
        if self.lost:
            stop_wandb()


def start_wandb(mode: str, **settings: Any) -> Dashboard | None:
    """A logger for a new run, offline if it does not start in ``mode``; None if it does not start at all.

    Args:
        mode: "offline" or "online".
        settings: of :func:`wandb.init`.
    """
    import wandb

    for attempt in dict.fromkeys((mode, "offline")):
        try:
            run = wandb.init(
                mode=attempt,  # type: ignore[arg-type]
                notes=repeat_command(),
                settings=wandb.Settings(console="off", finish_timeout_raises=True),
                reinit="finish_previous",
                **settings,
            )
            run.define_metric("epoch", hidden=True)  # curves of training and validation share this axis
            scored = settings["config"].get("choices", {}).get("score", "recon")
            for name, summary in best_of({*SCORES, str(scored)}).items():
                curve = name.startswith(("train/", "val/"))
                run.define_metric(name, summary=summary, step_metric="epoch" if curve else None)
            run.define_metric("lr-*", step_metric="epoch")
            return Dashboard(experiment=run)
        except Exception as error:
            otherwise = "offline" if attempt == "online" else "without it"
            log.warning(
                "Weights & Biases (%s) did not start: %s. The run goes on %s.", attempt, first_line(error), otherwise
            )
            stop_wandb()
    return None


def stop_wandb() -> None:
    """End wandb's own process, since what failed there would fail again, at the latest at exit."""
    import wandb

    with suppress(Exception):
        wandb.teardown()


def first_line(error: Exception) -> str:
    """What an error of wandb says, without the advice to programmers in the lines below."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def repeat_command() -> str:
    """The command that repeats this run alone, also when it is one of a sweep in another process."""
    if not HydraConfig.initialized():
        return shlex.join(["python", "-m", "solder_vae.train", *sys.argv[1:]])
    hydra = HydraConfig.get()
    return shlex.join(["python", "-m", hydra.help.app_name, *hydra.overrides.task])


def content_digest(tables: Mapping[str, ImageTable]) -> str:
    """SHA-256 of what the tables hold: pixels as the network sees them, defect types and splits, but no paths."""
    digest = hashlib.sha256()
    for split in sorted(tables):
        table = tables[split]
        digest.update(json.dumps([split, list(table.images.shape), list(table.defects)]).encode())
        for image in table.images:
            digest.update(image.tobytes())
    return digest.hexdigest()


def log_lineage(
    logger: WandbLogger, tables: Mapping[str, ImageTable], checkpoint: Path, facts: Mapping[str, Any]
) -> None:
    """Record that the run used these data and made this checkpoint.

    The data artefact is named by the digest of its content and holds no image, only what its splits are made of; runs
    on the same data use the same version of it. The checkpoint, about 10 MB with its optimiser's state, is not copied:
    an offline run refers to the file where it lies, so sync before the folder is moved.

    Args:
        logger: the run's.
        tables: the run's data.
        checkpoint: ``best.ckpt``.
        facts: of the run, flat: model, score, beta, seed and results, for the artefact's page.
    """
    import wandb

    digest = content_digest(tables)
    counts = {split: len(table) for split, table in tables.items()}
    data = wandb.Artifact(f"data-{digest[:16]}", "dataset", metadata={"sha256": digest, **counts})
    with data.new_file("splits.json") as file:
        json.dump({split: list(zip(table.paths, table.defects, strict=True)) for split, table in tables.items()}, file)
    run = logger.experiment
    # As use_artifact, which refuses when offline (syncing fills it in) and waits for the server when online.
    run._log_artifact(data, is_user_created=True, use_after_commit=True)
    model = wandb.Artifact(f"{facts['model']}-{facts['score']}", "model", metadata={**facts, "data": digest})
    model.add_file(str(checkpoint), policy="immutable", skip_cache=True)  # no copy on this disk, sent or not
    run.log_artifact(model)
