"""One run from config to artefacts: fit, calibrate the threshold, test, log, write."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor, ProgressBar
from pytorch_lightning.loggers import Logger
from rich.console import Console

from solder_vae.artefacts import log_artefacts, run_metrics, write_artefacts
from solder_vae.callbacks import EpochLog, StopOnNaN, checkpoints, ended_plainly, progress_bar
from solder_vae.checkpoint import (
    Checkpoint,
    check_resumable,
    member_checkpoint,
    model_of,
    read_checkpoint,
    write_checkpoint,
)
from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.table import describe
from solder_vae.ensemble import Member, train_ensemble
from solder_vae.errors import UserError
from solder_vae.evaluation import evaluate_model
from solder_vae.history import carry_over
from solder_vae.loggers import flatten, run_loggers
from solder_vae.models import CAE
from solder_vae.networks import STRIDE
from solder_vae.precision import FULL, resolve_precision
from solder_vae.pseudo_defects import CRITERION, pseudo_defect_auroc
from solder_vae.shortcut import shortcut_warning
from solder_vae.summary import localisation_table, result_table
from solder_vae.threshold import calibrate, check_rule

log = logging.getLogger(__name__)

ENSEMBLE_KEYS = ("ensemble", "betas")  # of the trainer's config; the others are the Trainer's own


def run(config: DictConfig, directory: Path) -> float:
    """Train and test as ``config`` says and leave everything in ``directory``.

    Returns:
        The best validation loss, or the ``criterion`` that the sweeper asks for.

    Raises:
        UserError: the config, the data or a checkpoint cannot be used, or the loss stopped being a number.
    """
    quiet_lightning()
    check_values(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    # What was typed is checked before the data are read.
    model: CAE = build(config.model)
    check_rule(**config.threshold)
    resumed = check_resumable(config.resume, model, config.trainer.max_epochs) if config.resume is not None else None

    data: SolderDataModule = build(config.data)
    data.setup()
    image_size = data.tables["train"].images.shape[1]
    if image_size % STRIDE:
        raise UserError(f"data.image_size={image_size} does not fit the network: use a multiple of {STRIDE}.")
    model.preprocessing = {"image_size": image_size, "view": config.data.view}
    if resumed is not None and (then := resumed["preprocessing"]) != model.preprocessing:
        raise UserError(
            f"{config.resume} was trained on other images ({then}): "
            "resume it with the same data.image_size and data.view."
        )
    log.info("%s", describe(data.tables))
    check_tables(data, config)
    if warning := shortcut_warning(data.tables, config.data.view, config.data.get("root")):
        log.warning("%s", warning)
    # From here on the folder is this run's; what was refused so far has left an earlier run's result alone.
    (directory / "metrics.json").unlink(missing_ok=True)  # else this run's config would stand beside that result
    OmegaConf.save(config, directory / "config.yaml", resolve=True)
    model.precision = training_precision(config, resumed)
    if members := ensemble_configs(config):
        return run_ensemble(members, data, config, directory)
    with run_loggers(directory, **logging_options(config)) as loggers:
        if resumed is not None:
            carry_over(Path(config.resume).parent / "metrics.csv", resumed["global_step"], loggers)
        best = fit(model, data, config, directory, loggers)
        return finish(best, data, config, directory, loggers)


def fit(model: CAE, data: SolderDataModule, config: DictConfig, directory: Path, loggers: list[Logger]) -> Checkpoint:
    """Train ``model``; the best checkpoint by validation loss."""
    best, last = checkpoints(directory)
    callbacks = [EpochLog(), *progress_bar(), LearningRateMonitor("epoch"), StopOnNaN(), best, last]
    trainer = make_trainer(config, directory, precision=model.precision, logger=loggers, callbacks=callbacks)
    with ended_plainly():
        trainer.fit(model, datamodule=data, ckpt_path=config.resume, weights_only=True)
    return read_checkpoint(best.best_model_path)


def training_precision(config: DictConfig, resumed: Checkpoint | None) -> str:
    """The precision to train in; a resumed training keeps its own, whatever machine it goes on."""
    if resumed is not None and config.trainer.precision == "auto":
        return str(resumed["precision"])
    return str(resolve_precision(config.trainer.precision, config.trainer.accelerator))


def finish(
    checkpoint: Checkpoint, data: SolderDataModule, config: DictConfig, directory: Path, loggers: list[Logger]
) -> float:
    """Calibrate, test and report a trained model, write it as ``best.ckpt``; what :func:`run` returns."""
    model = model_of(checkpoint)
    # Scores are computed in single precision, whatever the training used.
    trainer = make_trainer(config, directory, precision=FULL, logger=False, callbacks=progress_bar())
    (validation,) = trainer.validate(model, data.val_dataloader(), verbose=False)
    rule: dict[str, Any] = OmegaConf.to_container(config.threshold)  # type: ignore[assignment]
    evaluation = evaluate_model(model, data, trainer, rule)
    model.calibration = evaluation.calibration()
    model.on_save_checkpoint(checkpoint)
    write_checkpoint(checkpoint, directory / "best.ckpt")
    if (criterion := config.get("criterion", "val/loss")) == CRITERION:
        normals = evaluation.val[evaluation.primary]
        validation = {**validation, CRITERION: pseudo_defect_auroc(model, data.tables["val"].images, normals)}
    numbers = run_metrics(model, evaluation, validation)
    write_artefacts(directory, model, evaluation, numbers, config.pictures)
    log_artefacts(directory, evaluation, numbers, data.tables, loggers)
    console = Console()
    console.print(
        result_table(
            evaluation.metrics, evaluation.baselines, evaluation.primary, evaluation.threshold, config.data.view
        )
    )
    if evaluation.localisation is not None and evaluation.trivial_localisation is not None:
        console.print(localisation_table(evaluation.localisation, evaluation.trivial_localisation))
    log.info("everything of this run is in %s", directory)
    return float(validation[criterion])


def ensemble_configs(config: DictConfig) -> list[DictConfig]:
    """The config of each member of an ensemble: every beta with every seed; none without ``trainer.ensemble``.

    Raises:
        UserError: the ensemble is not possible.
    """
    seeds, betas = config.trainer.ensemble, config.trainer.betas or [config.beta]
    if not isinstance(seeds, int) or seeds < 1:
        raise UserError(f"trainer.ensemble={seeds} is no number of seeds: use 1 or more.")
    if seeds == 1 and config.trainer.betas is None:
        return []
    if config.resume is not None:
        raise UserError("An ensemble cannot be resumed: drop resume=..., or train its members one by one.")
    if config.trainer.precision not in ("auto", FULL):
        raise UserError(f"An ensemble trains in single precision: drop trainer.precision={config.trainer.precision}.")
    members = []
    for beta in betas:
        for seed in range(config.seed, config.seed + seeds):
            member = config.copy()
            # All members see the same data in the same order.
            member.data.seed, member.seed, member.beta = config.data.seed, seed, beta
            member.trainer.ensemble, member.trainer.betas = 1, None
            members.append(member)
    return members


def run_ensemble(configs: list[DictConfig], data: SolderDataModule, config: DictConfig, directory: Path) -> float:
    """Train all members at once, then leave in ``directory/<number>`` what a run of its own would leave."""
    models = []
    for member in configs:
        pl.seed_everything(member.seed, workers=True, verbose=False)
        models.append(build(member.model))
        models[-1].preprocessing = {"image_size": data.tables["train"].images.shape[1], "view": config.data.view}
    log.info("training %d members at once", len(models))
    trained = train_ensemble(models, data, config.trainer.max_epochs, ensemble_device(config), log_members)
    results = []
    for number, (member, model, outcome) in enumerate(zip(configs, models, trained, strict=True)):
        folder = directory / str(number)
        folder.mkdir(exist_ok=True)
        OmegaConf.save(member, folder / "config.yaml", resolve=True)
        with run_loggers(folder, **logging_options(member)) as loggers:
            for logger in loggers:
                for epoch, values in enumerate(outcome.history):
                    logger.log_metrics({**values, "epoch": epoch}, step=epoch)
                logger.save()
            checkpoint = member_checkpoint(model, outcome.best_state, outcome.best_epoch)
            results.append(finish(checkpoint, data, member, folder, loggers))
    return fmean(results)


def ensemble_device(config: DictConfig) -> torch.device:
    """Where Lightning would train: the first GPU, unless there is none or ``trainer.accelerator=cpu``."""
    wanted = config.trainer.accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda" if wanted and torch.cuda.is_available() else "cpu")


def log_members(epoch: int, members: Sequence[Member]) -> None:
    losses = [member.history[-1]["val/loss"] for member in members]
    log.info("epoch %d  val/loss of the members %.5g to %.5g", epoch + 1, min(losses), max(losses))


def logging_options(config: DictConfig) -> dict[str, Any]:
    """What :func:`~solder_vae.loggers.run_loggers` wants to know of a run."""
    name, group = run_names(config)
    return {"config": flat_config(config), **config.logger, "name": name, "group": group}


def make_trainer(config: DictConfig, directory: Path, **options: Any) -> pl.Trainer:
    """The config's Trainer, with what every run of this package needs."""
    trainer: pl.Trainer = build(
        OmegaConf.masked_copy(config.trainer, [key for key in config.trainer if key not in ENSEMBLE_KEYS]),
        default_root_dir=directory,
        inference_mode=False,  # GradCon needs gradients when testing, too
        deterministic="warn",
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in options["callbacks"]),
        log_every_n_steps=1_000_000_000,  # epochs are logged, steps are not
        **options,
    )
    return trainer


def check_values(config: DictConfig) -> None:
    """Check what would otherwise fail late or deep inside a library.

    Raises:
        UserError: a value is of another kind or out of range.
    """
    for key, least in (("seed", 0), ("trainer.max_epochs", 1), ("model.lr_patience", 0), ("score.draws", 1)):
        value = OmegaConf.select(config, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key}={value} does not fit: use a whole number, {least} or more.")
    for key in ("skip_finished", "pictures"):
        if not isinstance(config[key], bool):
            raise UserError(f"{key}={config[key]} does not fit: use true or false.")
    factor = config.model.lr_factor
    if not isinstance(factor, int | float) or not 0 < factor < 1:
        raise UserError(f"model.lr_factor={factor} does not fit: use a number between 0 and 1.")
    if (criterion := config.get("criterion", "val/loss")) not in ("val/loss", CRITERION):
        raise UserError(f"criterion={criterion} is unknown: use val/loss or {CRITERION}.")
    if config.trainer.devices != 1:
        raise UserError(
            f"trainer.devices={config.trainer.devices} is not supported: a run trains on one device, use 1."
        )


def check_tables(data: SolderDataModule, config: DictConfig) -> None:
    """Check that the images are enough to train, to set the threshold and to test.

    Raises:
        UserError: they are not.
    """
    for split, least in (("train", 2), ("val", 1), ("test", 1)):
        if len(data.tables[split]) < least:
            raise UserError(f"There are {len(data.tables[split])} {split} images: a run needs {least} or more.")
    calibrate(np.arange(len(data.tables["val"])), **config.threshold)  # too few normals for some rules


def build(config: DictConfig, **options: Any) -> Any:
    """Instantiate a config's ``_target_``; the user's mistakes come out as they were raised, not wrapped by Hydra."""
    try:
        return instantiate(config, **options, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, TypeError | ValueError):
            raise UserError(f"A value does not fit {config.get('_target_')}: {cause}.") from error
        raise


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
