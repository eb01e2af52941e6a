"""Checks of a whole config that no single part can make, before anything is read or trained."""

from __future__ import annotations

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.evaluation.pseudo_defects import PSEUDO_DEFECT_AUROC
from solder_vae.metrics.threshold import Rule, fit_threshold
from solder_vae.models.autoencoder import is_number
from solder_vae.models.checkpoint import Checkpoint
from solder_vae.models.networks import STRIDE
from solder_vae.models.precision import check_precision, resolve_precision
from solder_vae.utils.cli import check_whole_number
from solder_vae.utils.config import build
from solder_vae.utils.errors import UserError

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


def training_precision(config: DictConfig, resumed: Checkpoint | None) -> str:
    """The precision to train in; a resumed training keeps its own, whatever machine it goes on.

    Raises:
        UserError: the device or the batch does not fit it.
    """
    precision, accelerator = config.trainer.precision, config.trainer.accelerator
    if resumed is not None and precision == "auto":
        precision = resumed["precision"]
    check_precision(precision)
    return str(resolve_precision(precision, accelerator))


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
    if (criterion := config.get("criterion", "val/loss")) not in ("val/loss", PSEUDO_DEFECT_AUROC):
        raise UserError(f"criterion={criterion} is unknown: use val/loss or {PSEUDO_DEFECT_AUROC}.")
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
    if config.beta is not None and "beta" not in config.model:
        raise UserError(
            f"The model chosen has no KL divergence to weigh: drop beta={config.beta}, or use model=beta_vae."
        )
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
    fit_threshold(np.arange(len(data.tables["val"])), threshold_rule(config))  # too few normals for some rules


def threshold_rule(config: DictConfig) -> Rule:
    """The rule that ``config.threshold`` names.

    Raises:
        UserError: it names none, a parameter does not fit, or the rule needs more than a training has.
    """
    rule = build(config.threshold)
    if not isinstance(rule, Rule):
        raise UserError(
            f"threshold={config.threshold} is no threshold rule: "
            "its _target_ must be a subclass of solder_vae.metrics.threshold.Rule."
        )
    if rule.needs_labelled:
        raise UserError(
            f"threshold={rule.name} needs good and bad joints, and a training sets its threshold by good ones alone: "
            f"train with another rule, then use python -m solder_vae.threshold rule={rule.name} labelled=PATH."
        )
    return rule


def rank_count(config: DictConfig) -> int:
    """How many processes train.

    Raises:
        UserError: that number does not fit the strategy, the batch or the machine.
    """
    strategy, batch = config.trainer.strategy, config.data.batch_size
    devices: int = config.trainer.devices
    if strategy not in ("auto", "ddp"):
        raise UserError(f"trainer.strategy={strategy} is unknown: use auto (one device) or ddp (several).")
    check_whole_number("trainer.devices", devices, 1)
    if devices > 1 and strategy == "auto":
        raise UserError(f"trainer.devices={devices} needs data parallelism: add trainer=ddp, or use 1.")
    if devices > 1 and isinstance(batch, int) and batch % devices:
        raise UserError(
            f"data.batch_size={batch} cannot be shared out evenly among trainer.devices={devices}: use a multiple."
        )
    if devices > 1 and on_gpu(config) and devices > torch.cuda.device_count():
        raise UserError(
            f"trainer.devices={devices}, but there are {torch.cuda.device_count()} GPUs: "
            "use as many, or trainer.accelerator=cpu."
        )
    return devices


def on_gpu(config: DictConfig) -> bool:
    """Whether training goes to GPUs."""
    accelerator = config.trainer.accelerator
    return accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
