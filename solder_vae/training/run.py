"""One run from config to artefacts: fit, calibrate the threshold, test, log, write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from rich.console import Console

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.table import describe
from solder_vae.evaluation.evaluate import evaluate_model
from solder_vae.evaluation.pseudo_defects import CRITERION, pseudo_defect_auroc
from solder_vae.evaluation.shortcut import shortcut_warning
from solder_vae.evaluation.tables import localisation_table, result_table
from solder_vae.metrics.threshold import calibrate, check_rule
from solder_vae.models.autoencoder import CAE, is_number
from solder_vae.models.checkpoint import (
    Checkpoint,
    check_resumable,
    member_checkpoint,
    model_of,
    read_checkpoint,
    write_checkpoint,
)
from solder_vae.models.layers.exact_sums import check_reproducible, check_shares, one_thread
from solder_vae.models.networks import STRIDE
from solder_vae.models.precision import FULL, REPRODUCIBLE, check_precision, resolve_precision
from solder_vae.training.callbacks import progress_bar
from solder_vae.training.data_parallel import fit_on_ranks, rank_count
from solder_vae.training.ensemble import Member, train_ensemble
from solder_vae.training.loggers import run_loggers
from solder_vae.training.resume import carry_over
from solder_vae.training.run_files import log_artefacts, run_metrics, write_artefacts
from solder_vae.training.trainer import build, fit, make_trainer, quiet_lightning
from solder_vae.utils.cli import check_whole_number
from solder_vae.utils.config import flatten
from solder_vae.utils.errors import UserError

log = logging.getLogger(__name__)

#: What must be a whole number, and the least that fits.
WHOLE_NUMBERS = {
    "seed": 0,
    "trainer.max_epochs": 1,
    "model.lr_patience": 0,
    "model.seed": 0,
    "score.draws": 1,
    "model.draws": 1,  # as the one before, unless it is given
    "data.seed": 0,
    "data.image_size": 1,
    "data.batch_size": 1,
    "data.num_workers": 0,
    "data.train": 0,
    "data.val": 0,
    "data.test_normal": 0,
    "data.test_abnormal": 0,
    "data.render_workers": 1,
}
LEFT_OUT = {"data.train", "data.val", "data.test_normal", "data.test_abnormal", "data.render_workers"}  # by some data


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
    make_trainer(config, directory, precision=FULL, logger=False, callbacks=[])
    members = ensemble_configs(config)
    for member in members:
        if member.seed == config.seed:
            build(member.model)
    resumed = check_resumable(config.resume, model, config.trainer.max_epochs) if config.resume is not None else None
    model.precision = training_precision(config, resumed)

    data: SolderDataModule = build(config.data)
    data.setup()
    image_size = data.tables["train"].images.shape[1]
    model.preprocessing = {"image_size": image_size, "view": config.data.view}
    if resumed is not None and (then := resumed["preprocessing"]) != model.preprocessing:
        raise UserError(
            f"{config.resume} was trained on other images ({then}): "
            "resume it with the same data.image_size and data.view."
        )
    log.info("%s", describe(data.tables))
    check_tables(data, config)
    if model.precision == REPRODUCIBLE:
        check_shares(len(data.tables["train"]), config.data.batch_size, config.trainer.devices)
    if warning := shortcut_warning(data.tables, config.data.view, config.data.get("root")):
        log.warning("%s", warning)
    # From here on the folder is this run's; what was refused so far has left an earlier run's result alone.
    (directory / "metrics.json").unlink(missing_ok=True)  # else this run's config would stand beside that result
    OmegaConf.save(config, directory / "config.yaml", resolve=True)
    if members:
        return run_ensemble(members, data, config, directory)
    with run_loggers(directory, **logging_options(config)) as loggers:
        if resumed is not None:
            carry_over(Path(config.resume).parent / "metrics.csv", resumed, loggers)
        fit_model = fit_on_ranks if config.trainer.devices > 1 else fit
        best = read_checkpoint(fit_model(model, data, config, directory, loggers))
        with one_thread() if model.precision == REPRODUCIBLE else nullcontext():
            return finish(best, data, config, directory, loggers)


def training_precision(config: DictConfig, resumed: Checkpoint | None) -> str:
    """The precision to train in; a resumed training keeps its own, whatever machine it goes on.

    Raises:
        UserError: the device or the batch does not fit it.
    """
    precision, accelerator = config.trainer.precision, config.trainer.accelerator
    if resumed is not None and precision == "auto":
        precision = resumed["precision"]
    check_precision(precision)
    precision = str(resolve_precision(precision, accelerator))
    if precision == REPRODUCIBLE:
        check_reproducible(accelerator, config.data.batch_size)
    return precision


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
    seeds, betas = config.trainer.ensemble, config.trainer.betas
    if betas is not None and (not OmegaConf.is_list(betas) or not betas):
        raise UserError(f"trainer.betas={betas} does not fit: use for example trainer.betas=[0.1,1,3].")
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise UserError(f"trainer.ensemble={seeds} is no number of seeds: use 1 or more.")
    if seeds == 1 and betas is None:
        return []
    if config.trainer.devices > 1:
        raise UserError("An ensemble trains in one process: drop trainer=ddp, or the ensemble.")
    if config.trainer.get("gradient_clip_val") is not None:
        raise UserError("An ensemble does not clip gradients: drop trainer.gradient_clip_val=..., or the ensemble.")
    if config.resume is not None:
        raise UserError("An ensemble cannot be resumed: drop resume=..., or train its members one by one.")
    if config.trainer.precision not in ("auto", FULL):
        raise UserError(f"An ensemble trains in single precision: drop trainer.precision={config.trainer.precision}.")
    members = []
    for beta in betas or [config.beta]:
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
    """What :func:`~solder_vae.training.loggers.run_loggers` wants to know of a run."""
    name, group = run_names(config)
    return {"config": flat_config(config), **config.logger, "name": name, "group": group}


def check_values(config: DictConfig) -> None:
    """Check what would otherwise fail late or deep inside a library.

    Raises:
        UserError: a value is of another kind or out of range.
    """
    for key, least in WHOLE_NUMBERS.items():
        value = OmegaConf.select(config, key)
        if value is None and key in LEFT_OUT:
            continue
        check_whole_number(key, value, least)
    if config.data.image_size % STRIDE:
        raise UserError(
            f"data.image_size={config.data.image_size} does not fit the network: use a multiple of {STRIDE}."
        )
    if config.data.batch_size == 1 and config.data.image_size == STRIDE:
        raise UserError(
            "data.batch_size=1 with data.image_size=8 leaves batch norm a single pixel, of which there is no variance: "
            "use 2 images or more."
        )
    for key in ("skip_finished", "pictures", "data.use_cache"):
        value = OmegaConf.select(config, key, default=False)  # data.use_cache is not of all data
        if not isinstance(value, bool):
            raise UserError(f"{key}={value} does not fit: use true or false.")
    if not isinstance(config.logger.project, str) or not config.logger.project:
        raise UserError(f"logger.project={config.logger.project} does not fit: use a name.")
    tags = config.logger.tags
    if not OmegaConf.is_list(tags) or not all(isinstance(tag, str) and tag for tag in tags):
        raise UserError(f"logger.tags={tags} does not fit: use a list of words, such as [night,line3].")
    factor = config.model.lr_factor
    if not is_number(factor) or not 0 < factor < 1:
        raise UserError(f"model.lr_factor={factor} does not fit: use a number between 0 and 1.")
    if (criterion := config.get("criterion", "val/loss")) not in ("val/loss", CRITERION):
        raise UserError(f"criterion={criterion} is unknown: use val/loss or {CRITERION}.")
    check_precision(config.trainer.precision)
    if config.trainer.get("accumulate_grad_batches", 1) != 1:
        raise UserError(
            "trainer.accumulate_grad_batches is not supported, since batch norm and the gradient constraint are of "
            "whole batches: raise data.batch_size instead, with trainer=ddp where one device cannot hold it."
        )
    clip = config.trainer.get("gradient_clip_val")
    if clip is not None and (not is_number(clip) or clip <= 0):
        raise UserError(f"trainer.gradient_clip_val={clip} does not fit: use a number above 0, or null.")
    if config.resume is not None and not isinstance(config.resume, str):
        raise UserError(f"resume={config.resume} is no path: give that of a last.ckpt.")
    rank_count(config)


def check_tables(data: SolderDataModule, config: DictConfig) -> None:
    """Check that the images are enough to train, to set the threshold and to test.

    Raises:
        UserError: they are not.
    """
    devices = config.trainer.devices
    for split, least in (("train", max(2, devices)), ("val", devices), ("test", 1)):
        if len(data.tables[split]) < least:
            raise UserError(f"There are {len(data.tables[split])} {split} images: a run needs {least} or more.")
    calibrate(np.arange(len(data.tables["val"])), **config.threshold)  # too few normals for some rules


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
