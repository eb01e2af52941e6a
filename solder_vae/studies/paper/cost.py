"""How long trainings will take, from a few measured steps."""

from __future__ import annotations

import logging
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import to_tensor
from solder_vae.models.autoencoder import CAE
from solder_vae.training.checks import training_precision
from solder_vae.training.trainer import make_trainer, quiet_lightning
from solder_vae.utils.config import build
from solder_vae.utils.labels import NORMAL

STEPS = 6  # measured; the first, which allocates memory and has no gradient loss yet, does not count
_BESIDES = 10.0  # seconds a run spends on starting, pictures and logs


class Cost(NamedTuple):
    """Seconds of one training step, of one validation batch, and of scoring a batch of images."""

    step: float
    validation: float
    scoring: float

    def training(self, epochs: int, train: int, val: int, test: int, batch: int) -> float:
        """Seconds of a whole run of ``epochs`` epochs with so many images."""
        epoch = math.ceil(train / batch) * self.step + math.ceil(val / batch) * self.validation
        return epochs * epoch + math.ceil((val + test) / batch) * self.scoring + _BESIDES


def measure(config: DictConfig, jobs: int) -> tuple[Cost, Cost]:
    """The cost without and with the gradient constraint, while ``jobs`` processes run side by side.

    Args:
        config: of a training with the constraint.
        jobs: processes; they share the cores out as the trainings will.
    """
    container = OmegaConf.to_container(config, resolve=True)
    measured = joblib.Parallel(n_jobs=jobs)(joblib.delayed(_measure)(container) for _ in range(jobs))
    without, with_ = (Cost(*map(statistics.mean, zip(*costs, strict=True))) for costs in zip(*measured, strict=True))
    return without, with_


def _measure(container: dict[str, Any]) -> tuple[Cost, Cost]:
    """In a process of its own: a short training for each."""
    quiet_lightning()
    config = OmegaConf.create(container)
    constraint = float(config.model.alpha)
    logging.disable(logging.WARNING)  # noise is no normal joint: what models say of it does not count
    try:
        config.model.alpha = 0.0
        without = _cost(config)
        config.model.alpha = constraint
        return without, _cost(config)
    finally:
        logging.disable(logging.NOTSET)


def _cost(config: DictConfig) -> Cost:
    pl.seed_everything(0, verbose=False)
    batch, size = config.data.batch_size, config.data.image_size
    data = SolderDataModule(_Noise(batch, size), batch)
    data.setup()
    model: CAE = build(config.model)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        config.trainer.max_epochs = 1
        precision = training_precision(config, None)
        trainer = make_trainer(config, Path(folder), precision=precision, logger=False, callbacks=[clock])
        trainer.fit(model, datamodule=data)
        model.eval()
        x = to_tensor(data.tables["val"].images[:batch]).to(model.device)
        model.score(x)  # allocates
        started = time.perf_counter()
        model.score(x)
        _wait()
        scoring = time.perf_counter() - started
    return Cost(statistics.median(clock.steps[1:]), clock.validations[-1], scoring)


class _Noise:
    """Images of noise: what they show does not change what they cost."""

    def __init__(self, batch: int, size: int) -> None:
        self.batch, self.size = batch, size

    def tables(self) -> dict[str, ImageTable]:
        counts = {"train": STEPS * self.batch, "val": 2 * self.batch, "test": 1}
        return {split: self._table(count) for split, count in counts.items()}

    def _table(self, count: int) -> ImageTable:
        images = np.random.default_rng(0).integers(0, 256, (count, self.size, self.size, 3), dtype=np.uint8)
        return ImageTable(images, list(map(str, range(count))), [NORMAL] * count, np.full((count, 2), self.size))


class _Clock(Callback):
    """Times a training's steps and validation batches, with what it takes to prepare them."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.validations: list[float] = []
        self.last = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self.last = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps.append(self._lap())

    def on_validation_epoch_start(self, *_: Any) -> None:
        self.last = time.perf_counter()

    def on_validation_batch_end(self, *_: Any) -> None:
        self.validations.append(self._lap())

    def _lap(self) -> float:
        _wait()
        before, self.last = self.last, time.perf_counter()
        return self.last - before


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
