"""Lightning's part of a run: the Trainer as the config wants it, and the training itself."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ProgressBar
from pytorch_lightning.loggers import Logger

from solder_vae.data.datamodule import SolderDataModule, images_dealt
from solder_vae.models.steps import TrainingModule
from solder_vae.training.callbacks import EpochLog, StopOnNaN, TrainingBar, checkpoints, plain_fit_errors
from solder_vae.training.first_checks import check_trainer
from solder_vae.utils.config import build
from solder_vae.utils.errors import UserError

log = logging.getLogger(__name__)

#: Of the trainer's config; the others are the Trainer's own.
OWN_KEYS = ("strategy", "devices", "max_epochs")


def fit(
    module: TrainingModule,
    data: SolderDataModule,
    config: DictConfig,
    directory: Path,
    loggers: Sequence[Logger],
    **options: Any,
) -> str:
    """Train a model in this process.

    Args:
        module: with a model that is not trained yet.
        data: set up.
        config: the run's.
        directory: the run's.
        loggers: of the training curves.
        options: of the Trainer, beside the config's.

    Returns:
        The path of the best checkpoint by validation loss.

    Raises:
        UserError: the loss became NaN or infinite, or a process that prepares batches died.
    """
    best, last = checkpoints(directory)
    own = [made_callback(name, callback) for name, callback in config.callbacks.items()]
    callbacks = [EpochLog(), TrainingBar(), LearningRateMonitor("epoch"), StopOnNaN(), *own, best, last]
    options = {"precision": module.model.precision, "logger": list(loggers), "callbacks": callbacks, **options}
    trainer = make_trainer(config, directory, **options)
    with plain_fit_errors():
        trainer.fit(module, datamodule=data, ckpt_path=config.resume, weights_only=True)
    if not best.best_model_path:
        raise UserError("The run ended before its first validation, so no epoch is the best: let it train for longer.")
    return best.best_model_path


def made_callback(name: str, config: DictConfig) -> Callback:
    """The callback that a config names.

    Raises:
        UserError: it names none, or a value does not fit.
    """
    callback = build(config)
    if not isinstance(callback, Callback):
        raise UserError(f"callbacks.{name} names {config['_target_']}, which is no callback of Lightning.")
    return callback


def make_trainer(config: DictConfig, directory: Path, **options: Any) -> pl.Trainer:
    """The config's Trainer, with what every run of this package needs; on one device unless ``options`` say more.

    Raises:
        UserError: an option does not fit.
    """
    check_trainer(config)
    others = config.trainer.copy()
    for key in OWN_KEYS:
        del others[key]
    trainer: pl.Trainer = build(
        others,
        max_epochs=config.trainer.max_epochs or config.trainer.min_epochs,
        default_root_dir=directory,
        use_distributed_sampler=False,  # the data module shares the images out
        inference_mode=False,  # GradCon needs gradients when testing, too
        deterministic="warn",
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in options["callbacks"]),
        log_every_n_steps=1_000_000_000,  # epochs are logged, steps are not
        **{"devices": 1, **options},
    )
    return trainer


def with_epochs(config: DictConfig, images: int) -> DictConfig:
    """The config with the number of epochs that its run has.

    ``trainer.max_epochs`` is that number, or null: then it is ``trainer.min_epochs``, or as
    many as ``trainer.min_steps`` needs. What a
    network has learnt depends on its steps, and an epoch of few images has few of them.

    Args:
        config: the run's.
        images: for training.
    """
    if config.trainer.max_epochs is not None:
        return config
    steps = steps_per_epoch(images, config.data.batch_size, config.trainer.devices)
    least = config.trainer.min_epochs
    told = config.copy()
    told.trainer.max_epochs = max(least, math.ceil(config.trainer.min_steps / steps))
    if told.trainer.max_epochs > least:
        log.info(
            "%d epochs of %d steps, to have trainer.min_steps=%d.",
            told.trainer.max_epochs,
            steps,
            config.trainer.min_steps,
        )
    return told


def steps_per_epoch(images: int, batch_size: int, devices: int = 1) -> int:
    """How many steps an epoch of so many training images has."""
    return math.ceil(images_dealt(images, batch_size, devices) / batch_size)


def device_of(config: DictConfig) -> torch.device:
    """Where Lightning would train: the first GPU, unless there is none or ``trainer.accelerator=cpu``."""
    wanted = config.trainer.accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda" if wanted and torch.cuda.is_available() else "cpu")


def quiet_lightning() -> None:
    """Keep Lightning's advertisements and its advice on worker processes out of the run's log."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "does not have many workers",  # the images are in memory, so no workers is fastest
        "exists and is not empty",
        "smaller than the logging interval",
        "isinstance.treespec",
        "in distributed setting to accumulate",  # what is not accumulated is the same on all ranks
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
