"""Models that record what each process of a run saw and ended with; data and a run for them."""

import os
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
import warm
from checkpoints import SIZE, pictures
from documented import compose_command
from omegaconf import OmegaConf
from pytorch_lightning.loggers import CSVLogger

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.table import ImageTable
from solder_vae.models.steps import TrainingModule
from solder_vae.utils.distributed import rank
from solder_vae.utils.labels import NORMAL

TRAIN, VAL, BATCH = 35, 13, 8  # 5 steps an epoch; the last batch's 3 images and VAL do not divide by 2


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


class Recording(TrainingModule):
    """Writes ``rank0.pt``, ``rank1.pt`` ... into the folder ``records``.

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


def trained(how, folder, model, epochs=10, precision="64-true", resume=None, fault=None, **options):
    """What is in ``folder`` after a run: ``last.ckpt``, ``metrics.csv`` and a record of each process."""
    folder.mkdir()
    pl.seed_everything(0, verbose=False)
    module = Recording(model(lr=1e-3, **options))
    module.records, module.fault, module.model.precision, module.model.preprocessing = folder, fault, precision, {}
    data = SolderDataModule(Pictures(TRAIN, VAL), batch_size=BATCH)
    data.setup()
    (config,) = compose_command(
        "solder_vae.train",
        ["trainer=ddp", f"trainer.max_epochs={epochs}", "trainer.accelerator=cpu", f"data.batch_size={BATCH}"],
    )
    config = OmegaConf.masked_copy(config, ["trainer", "data", "resume", "callbacks"])
    config.resume = None if resume is None else str(resume)
    with warm.spawning():
        how(module, data, config, folder, [CSVLogger(folder, "", "")])
    return folder
