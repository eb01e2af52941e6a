"""One run from config to artefacts: fit, calibrate the threshold, test, log, write."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import Logger
from rich.console import Console

from solder_vae.artefacts import log_artefacts, run_metrics, write_artefacts
from solder_vae.callbacks import EpochLog, StopOnNaN, checkpoints, progress_bar
from solder_vae.checkpoint import check_resumable, load_model, read_checkpoint, write_checkpoint
from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.table import describe
from solder_vae.errors import UserError
from solder_vae.evaluation import evaluate_model
from solder_vae.loggers import flatten, run_loggers
from solder_vae.models import CAE
from solder_vae.networks import STRIDE
from solder_vae.summary import localisation_table, result_table
from solder_vae.threshold import check_rule

log = logging.getLogger(__name__)


def run(config: DictConfig, directory: Path) -> float:
    """Train and test as ``config`` says and leave everything in ``directory``.

    Returns:
        The best validation loss.

    Raises:
        UserError: the config, the data or a checkpoint cannot be used, or the loss stopped being a number.
    """
    quiet_lightning()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    # What was typed is checked before the data are read.
    model: CAE = build(config.model)
    rule: dict[str, Any] = OmegaConf.to_container(config.threshold)  # type: ignore[assignment]
    check_rule(**rule)
    if config.resume is not None:
        check_resumable(config.resume, model)
    OmegaConf.save(config, directory / "config.yaml", resolve=True)

    data: SolderDataModule = build(config.data)
    data.setup()
    image_size = data.tables["train"].images.shape[1]
    if image_size % STRIDE:
        raise UserError(f"data.image_size={image_size} does not fit the network: use a multiple of {STRIDE}.")
    model.preprocessing = {"image_size": image_size}
    log.info("%s", describe(data.tables))
    name, group = run_names(config)
    with run_loggers(directory, flat_config(config), **config.logger, name=name, group=group) as loggers:
        best = fit(model, data, config, directory, loggers)
        trainer = make_trainer(config, directory, logger=False, callbacks=progress_bar())
        (validation,) = trainer.validate(best, data.val_dataloader(), verbose=False)
        evaluation = evaluate_model(best, data, trainer, rule)
        best.calibration = evaluation.calibration()
        save_calibrated(directory / "best.ckpt", best)
        numbers = run_metrics(best, evaluation, validation)
        write_artefacts(directory, best, evaluation, numbers)
        log_artefacts(directory, evaluation, numbers, loggers)
    Console().print(result_table(evaluation.metrics, evaluation.baselines, evaluation.primary, evaluation.threshold))
    if evaluation.localisation is not None:
        Console().print(localisation_table(evaluation.localisation))
    log.info("everything of this run is in %s", directory)
    return float(validation["val/loss"])


def fit(model: CAE, data: SolderDataModule, config: DictConfig, directory: Path, loggers: list[Logger]) -> CAE:
    """Train ``model`` and return the best one by validation loss, in evaluation mode."""
    best, last = checkpoints(directory)
    callbacks = [EpochLog(), *progress_bar(), LearningRateMonitor("epoch"), StopOnNaN(), best, last]
    trainer = make_trainer(config, directory, logger=loggers, callbacks=callbacks)
    trainer.fit(model, datamodule=data, ckpt_path=config.resume, weights_only=True)
    if not best.best_model_path:
        raise UserError("No epoch was trained: trainer.max_epochs must exceed the epochs of the resumed checkpoint.")
    return load_model(best.best_model_path)


def make_trainer(config: DictConfig, directory: Path, **options: Any) -> pl.Trainer:
    """The config's Trainer, with what every run of this package needs."""
    trainer: pl.Trainer = build(
        config.trainer,
        default_root_dir=directory,
        inference_mode=False,  # GradCon needs gradients when testing, too
        deterministic="warn",
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,  # callbacks bring their own
        log_every_n_steps=1_000_000_000,  # epochs are logged, steps are not
        **options,
    )
    return trainer


def build(config: DictConfig, **options: Any) -> Any:
    """Instantiate a config's ``_target_``; the user's mistakes come out as they were raised, not wrapped by Hydra."""
    try:
        return instantiate(config, **options, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise


def save_calibrated(path: Path, model: CAE) -> None:
    """Put the model's calibration into its checkpoint."""
    checkpoint = read_checkpoint(path)
    model.on_save_checkpoint(checkpoint)
    write_checkpoint(checkpoint, path)


def run_names(config: DictConfig) -> tuple[str, str | None]:
    """The run's name for dashboards, and its group: the sweep it belongs to."""
    hydra = HydraConfig.get()
    beta = f" beta={config.beta:g}" if config.beta is not None else ""
    name = f"{hydra.runtime.choices['model']}{beta} {config.score.name} seed={config.seed}"
    sweep = hydra.mode == RunMode.MULTIRUN
    return name, Path(hydra.sweep.dir).name if sweep else None


def flat_config(config: DictConfig) -> dict[str, Any]:
    """The config on one level, where ``model``, ``score`` and ``data`` are the names chosen for them."""
    container: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    choices = HydraConfig.get().runtime.choices
    return {**flatten(container), **{group: choices[group] for group in ("model", "score", "data")}}


def quiet_lightning() -> None:
    """Keep Lightning's advertisements and its advice on worker processes out of the run's log."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "does not have many workers",  # the images are in memory: none is fastest
        "exists and is not empty",
        "smaller than the logging interval",
        "isinstance.treespec",
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
