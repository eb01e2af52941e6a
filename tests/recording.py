"""Models that tell afterwards what each process of a training saw and ended with, and data to train them on."""

import os
from pathlib import Path

import numpy as np
import torch
from checkpoints import SIZE, pictures

from solder_vae.data.table import NORMAL, ImageTable
from solder_vae.models import CAE, BetaVAE
from solder_vae.parallel import rank


class Pictures:
    """A source of so many images."""

    def __init__(self, train: int, val: int) -> None:
        self.counts = {"train": train, "val": val}

    def tables(self):
        return {
            split: ImageTable(
                pictures(count, seed=seed), [f"{split}/{i}" for i in range(count)], [NORMAL] * count,
                np.full((count, 2), SIZE),
            )
            for seed, (split, count) in enumerate(self.counts.items())
        }  # fmt: skip


class Recording:
    """Mixin: writes ``rank0.pt``, ``rank1.pt`` ... into the folder ``records``.

    Attributes:
        records: the folder.
        fault: what happens to the last rank in training step 3: "nan", "raise", "killed" or None.
    """

    records: Path
    fault: str | None = None

    def on_fit_start(self):
        self.seen = {"train": [], "val": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch["index"].tolist())
        loss = super().training_step(batch, batch_idx)
        if self.global_step == 3 and rank() == self.trainer.world_size - 1:
            if self.fault == "nan":
                return loss * float("nan")
            if self.fault == "raise":
                raise ValueError("a bug")
            if self.fault == "killed":
                os.kill(os.getpid(), 9)
        return loss

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch["index"].tolist())
        return super().validation_step(batch, batch_idx)

    def on_train_end(self):
        metrics = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        state = {name: value.clone() for name, value in self.state_dict().items()}
        torch.save({"seen": self.seen, "metrics": metrics, "state": state}, self.records / f"rank{rank()}.pt")


class RecordingCAE(Recording, CAE):
    pass


class RecordingVAE(Recording, BetaVAE):
    pass
