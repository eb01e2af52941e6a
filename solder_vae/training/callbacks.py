"""Callbacks of a run: progress, checkpoints, and the stop when the loss becomes NaN or infinite."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from solder_vae.models.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from solder_vae.utils.cli import traceback_log
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import duration
from solder_vae.utils.threads import progress_bar

log = logging.getLogger(__name__)


class EpochLog(Callback):
    """One line an epoch, for the run's log and for consoles that show no progress bar; metrics.csv has all numbers."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = self.last = time.monotonic()
        self.first = trainer.current_epoch  # not 0 in a resumed run

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        now, epoch, epochs = time.monotonic(), trainer.current_epoch + 1, trainer.max_epochs or 0
        shown = ("train/loss", "val/loss")
        values = {name: trainer.callback_metrics[name].item() for name in shown if name in trainer.callback_metrics}
        left = (now - self.started) / (epoch - self.first) * (epochs - epoch)
        log.info(
            "epoch %*d/%d  %s  %.1f s%s",
            len(str(epochs)),
            epoch,
            epochs,
            "  ".join(f"{name} {value:.5g}" for name, value in values.items()),
            now - self.last,
            f", {duration(left)} left" if left else "",
        )
        self.last = now


class TrainingBar(Callback):
    """On a terminal a bar over the whole training, with the time that is left: Lightning's is about one epoch."""

    def __init__(self) -> None:
        self.shown = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        epochs = (trainer.max_epochs or 0) - trainer.current_epoch
        steps = int(epochs * trainer.num_training_batches)
        if trainer.is_global_zero:
            self.advance = self.shown.enter_context(progress_bar("Training", steps))

    def on_train_batch_end(self, trainer: pl.Trainer, *others: Any) -> None:
        if trainer.is_global_zero:
            self.advance(1)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.shown.close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.shown.close()


class StopOnNaN(Callback):
    """Stops before a loss that is not finite reaches a weight, and names the batch's images."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.index = batch["index"]

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        if torch.isfinite(loss):
            return
        paths = [trainer.datamodule.tables["train"].paths[i] for i in self.index.tolist()]  # type: ignore[attr-defined]
        traceback_log.error("images of the batch: %s", ", ".join(paths))
        raise UserError(
            f"The training loss became {loss.item()} in epoch {trainer.current_epoch + 1}, "
            f"step {trainer.global_step + 1}: lower model.lr (now {module.hparams['lr']:g}) "
            "or look at the batch's images, listed in the run's log "
            f"(the first is {paths[0]}). Checkpoints of earlier epochs, if any, are intact."
        )


class WholeCheckpoint(ModelCheckpoint):
    """Writes files whole or not at all, even if the writing is cut off."""

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()
        super().setup(trainer, module, stage)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the epoch's training row into the file: Lightning logs it after the checkpoint, if at all."""
        checkpoint["training_row"] = {
            key: float(value) for key, value in trainer.logged_metrics.items() if key.startswith("train/")
        }


class BestCheckpoint(WholeCheckpoint):
    """Keeps the best epoch so far, even if a run goes on in another directory, where Lightning would forget it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


def checkpoints(directory: Path) -> list[ModelCheckpoint]:
    """``best.ckpt`` by validation loss, and ``last.ckpt`` to resume from, in ``directory``."""
    common: dict[str, Any] = {
        "dirpath": directory,
        "enable_version_counter": False,
        "auto_insert_metric_name": False,
        "save_on_train_epoch_end": True,  # when the epoch is over for the learning rate's schedule, too
    }
    return [
        BestCheckpoint(filename="best", monitor="val/loss", mode="min", **common),
        WholeCheckpoint(filename="last", **common),
    ]


@contextmanager
def plain_fit_errors() -> Iterator[None]:
    """Around a fit: turn Ctrl-C into KeyboardInterrupt, and the death of a worker process into one sentence.

    Raises:
        UserError: the operating system killed a process that prepares batches, or a callback waits for no metric.
    """
    try:
        yield
    except SystemExit as end:  # Lightning's answer to Ctrl-C, after which it lets no second one through
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from end
    except MisconfigurationException as error:
        raise UserError(f"Lightning cannot train so: {str(error).rstrip('.!')}.") from error
    except RuntimeError as error:
        if str(error).startswith("Early stopping conditioned on metric"):
            raise UserError(f"callbacks: {error}") from error
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            f"A process that prepares batches died ({str(error).strip()}), most likely for want of memory: "
            "go on from the run's last.ckpt (resume=PATH), with fewer data.num_workers."
        ) from error


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints whole and reads them by :func:`read_checkpoint`.

    Lightning writes to the folder for temporary files and then moves the file. If that folder is on another file system
    and the move is interrupted, a part of a checkpoint is left.
    """

    def save_checkpoint(self, checkpoint: Checkpoint, path: str | Path, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> Checkpoint:
        return read_checkpoint(path)
