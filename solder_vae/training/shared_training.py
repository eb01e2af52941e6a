"""A training that several jobs of a sweep have in common is done once: scores and thresholds change no weight.

The first such job trains, and the others evaluate what it trained. A job that begins meanwhile waits for it: both
would end no sooner side by side. Which job trained what is noted in ``.trainings`` in the sweep's folder. This module
imports no torch before there is something to take over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from solder_vae.training.finished import decisive
from solder_vae.utils.files import atomic_file, file_lock

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from solder_vae.models.checkpoint import Checkpoint
    from solder_vae.models.detector import Detector

log = logging.getLogger("solder_vae")

# Keys of a run's config that no weight depends on; of the scores the weight of the constraint, alpha, does not belong.
_NOT_TRAINED = ("score", "threshold", "criterion")
_NOT_TRAINED_OF_MODEL = ("score", "gamma", "latent", "draws", "noise")


@contextmanager
def shared_training(config: DictConfig, directory: Path) -> Iterator[Path | None]:
    """Around a job of a sweep: the folder of a job of the sweep that has trained the same already; None to train.

    Args:
        config: the job's.
        directory: the job's.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN or config.resume is not None:
        yield None
        return
    sweep = Path(hydra.sweep.dir).absolute()
    digest = training_digest(config)
    note = sweep / ".trainings" / f"{digest}.json"
    with file_lock(note):
        earlier = noted(note, sweep, digest)
        # A sweep that is run again in its folder trains again, unless it is told to skip what is finished.
        fresh = config.skip_finished or is_newer(note, sweep / "multirun.yaml")
        if earlier is not None and fresh and earlier != directory.absolute():
            yield earlier
            return
        yield None
        with atomic_file(note) as path:
            path.write_text(json.dumps(os.path.relpath(directory.absolute(), sweep)))


def training_digest(config: Any) -> str:
    """A name for the training of a config, the same for all configs whose runs have the same weights."""
    plain = {key: value for key, value in decisive(config).items() if key not in _NOT_TRAINED}
    plain["model"] = {key: value for key, value in plain["model"].items() if key not in _NOT_TRAINED_OF_MODEL}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def noted(note: Path, sweep: Path, digest: str) -> Path | None:
    """The folder that a note names, if it still holds a finished run of that training."""
    try:
        folder = sweep / json.loads(note.read_text())
        whole = all((folder / name).is_file() for name in ("metrics.json", "metrics.csv", "best.ckpt"))
        return folder if whole and training_digest(OmegaConf.load(folder / "config.yaml")) == digest else None
    except (OSError, ValueError):
        return None


def is_newer(path: Path, than: Path) -> bool:
    try:
        return path.stat().st_mtime >= than.stat().st_mtime
    except OSError:
        return False


def take_over(earlier: Path, model: Detector, directory: Path, loggers: Iterable[Logger]) -> Checkpoint:
    """Make a job's folder what it would be after its own training; its best checkpoint, not evaluated yet.

    Args:
        earlier: the folder of the job that trained.
        model: this job's.
        directory: this job's.
        loggers: of this job: they get the curves.

    Raises:
        UserError: a checkpoint cannot be read or written.
    """
    from solder_vae.models.checkpoint import read_checkpoint, write_checkpoint
    from solder_vae.training.resume import earlier_rows

    log.info("trained already by %s, which differs in nothing that changes a weight: evaluated only", earlier)
    for row in earlier_rows(earlier / "metrics.csv"):
        numbers = {key: float(value) for key, value in row.items() if key not in ("step", "epoch")}
        epoch = {"epoch": int(row["epoch"])} if "epoch" in row else {}
        for logger in loggers:
            logger.log_metrics({**epoch, **numbers}, int(row["step"]))
    for logger in loggers:
        logger.save()
    found: dict[str, Checkpoint] = {}
    for name in ("last.ckpt", "best.ckpt"):
        if (earlier / name).is_file():
            checkpoint = moved(read_checkpoint(earlier / name), str(earlier), str(directory))
            own = {"hyper_parameters": dict(model.hparams), "calibration": None, "scores": {}}
            found[name] = {**checkpoint, **own, "plugins": model.plugins}
            write_checkpoint(found[name], directory / name)
    return found["best.ckpt"]


def moved(value: Any, before: str, now: str) -> Any:
    """A checkpoint whose callbacks name files of another folder, with these in the folder that it is written to."""
    if isinstance(value, str):
        return now + value.removeprefix(before) if value.startswith(before) else value
    if isinstance(value, dict):
        return {moved(key, before, now): moved(item, before, now) for key, item in value.items()}
    return value
