"""One run from config to artefacts: fit, calibrate the threshold, test, log, write."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from solder_vae.artefacts import log_artefacts, write_artefacts
from solder_vae.callbacks import StopOnNaN, checkpoints, progress
from solder_vae.checkpoint import check_resumable, load_model, read_checkpoint, write_checkpoint
from solder_vae.data.datamodule import SolderDataModule
from solder_vae.evaluation import Evaluation, evaluate_model
from solder_vae.loggers import flatten, run_loggers
from solder_vae.models import CAE
from solder_vae.summary import result_table

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
    # Errors in what was typed come before the data are read.
    model: CAE = instantiate(config.model, _convert_="all")
    check_rule(OmegaConf.to_container(config.threshold))
    if config.resume is not None:
        check_resumable(config.resume, model)
    data: SolderDataModule = instantiate(config.data, _convert_="all")
    data.setup()
    model.preprocessing = {"image_size": data.image_size}
    OmegaConf.save(config, directory / "config.yaml", resolve=True)

    name, group, flat = describe(config)
    with run_loggers(directory, flat, **config.logger, name=name, group=group) as loggers:
        best, last = checkpoints(directory)
        trainer: pl.Trainer = instantiate(
            config.trainer,
            _convert_="all",
            callbacks=[*progress(), StopOnNaN(), best, last],
            logger=loggers,
            default_root_dir=directory,
            inference_mode=False,  # GradCon needs gradients when testing, too
            deterministic="warn",
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in progress()),
            log_every_n_steps=1_000_000,
        )
        log.info("%s", data.describe())
        trainer.fit(model, datamodule=data, ckpt_path=config.resume, weights_only=True)
        ...
    return 0.0
