"""Checks of a whole config that no single part can make, before anything is read or trained.

Those that need no torch are in :mod:`solder_vae.training.first_checks`.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from omegaconf import DictConfig

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.evaluation.fit_scores import independent
from solder_vae.metrics.threshold import FEW_NORMALS, Rule, fit_threshold
from solder_vae.models.checkpoint import Checkpoint
from solder_vae.models.detector import Detector
from solder_vae.models.precision import check_precision, resolve_precision
from solder_vae.models.scores import MEMORY, Score
from solder_vae.training.first_checks import ACCEPT, REFUSE, threshold_rule
from solder_vae.utils.errors import UserError

log = logging.getLogger(__name__)


def training_precision(config: DictConfig, resumed: Checkpoint | None) -> str:
    """The precision to train in; a resumed run keeps its own, on any machine.

    Raises:
        UserError: the device or the batch does not fit it.
    """
    precision, accelerator = config.trainer.precision, config.trainer.accelerator
    if resumed is not None and precision == "auto":
        precision = resumed["precision"]
    check_precision(precision)
    return str(resolve_precision(precision, accelerator))


def check_tables(data: SolderDataModule, config: DictConfig) -> None:
    """Check that the images are enough to train, to set the threshold and to test.

    Raises:
        UserError: they are not.
    """
    devices = config.trainer.devices
    for split, least in (("train", max(2, devices)), ("val", devices), ("test", 1)):
        table = data.tables[split]
        count = len(table.different if split == "train" else table)
        if count < least:
            once = " (copies count once)" if count < len(table) else ""
            raise UserError(f"There are {count} {split} images{once}: a run needs {least} or more.")
    rule, normals = threshold_rule(config), len(independent(data.tables["val"]))
    fit_threshold(np.arange(normals), rule)  # too few normals for some rules
    check_few_normals(data, config, rule, normals)


def check_few_normals(data: SolderDataModule, config: DictConfig, rule: Rule, normals: int) -> None:
    """Refuse a threshold of your own pictures that stands on too few normals; on embedded ones warn of it.

    Raises:
        UserError: the score that decides has no other normals to go by.
    """
    kind = Score.registry.get(config.score.name)
    if normals >= FEW_NORMALS or rule.name == "fixed" or (kind is not None and kind.leaves_one_out):
        return
    if not isinstance(data.source, SyntheticSource) and config.few_normals == REFUSE:
        raise UserError(
            f"score={config.score.name} sets its threshold by validation normals alone, there are {normals}, and "
            f"{FEW_NORMALS} are needed: add good joints, give validation more (data.fractions), use score=knn, or "
            f"accept what so few cannot promise with few_normals={ACCEPT}."
        )
    log.warning(
        "Only %d validation normals: no threshold can promise a false-call rate below %.0f %%. 19 are needed for "
        "5 %%, 99 for 1 %%: add good joints, give validation more (data.fractions), or use score=knn.",
        normals,
        100 / (normals + 1),
    )


def check_examples(model: Detector, data: SolderDataModule) -> None:
    """Check that the scores have the normals, and the one that decides the known defects, that they learn from.

    Raises:
        UserError: they have not.
    """
    for score in model.scores.values():
        score.check_normals(min(len(data.tables["train"]), MEMORY))
    primary = model.primary_score
    if model.scores[primary].needs_known and "known" not in data.tables:
        raise UserError(
            f"score={primary} learns from known defects and there are none: give data.known=25, all, or a folder of "
            "some, or use score=combined or score=knn, which go without."
        )


def rank_count(config: DictConfig) -> int:
    """How many processes train.

    Raises:
        UserError: there are fewer GPUs.
    """
    devices: int = config.trainer.devices
    if devices > 1 and on_gpu(config) and devices > torch.cuda.device_count():
        raise UserError(
            f"trainer.devices={devices}, but there are {torch.cuda.device_count()} GPUs: "
            "use as many, or trainer.accelerator=cpu."
        )
    return devices


def on_gpu(config: DictConfig) -> bool:
    """Whether training uses GPUs."""
    accelerator = config.trainer.accelerator
    return accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
