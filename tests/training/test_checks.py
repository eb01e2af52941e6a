"""Options that cannot be right are refused before anything is read, in one sentence."""

import pytest
import torch
from documented import compose_command

from solder_vae.models.precision import FULL
from solder_vae.training.checks import check_values
from solder_vae.training.trainer import make_trainer
from solder_vae.utils.errors import UserError


def config_of(*overrides):
    (config,) = compose_command("solder_vae.train", list(overrides))
    return config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=2"], "trainer.devices=2 needs data parallelism: add trainer=ddp"),
        (["trainer=ddp", "trainer.devices=0"], "whole number, 1 or more"),
        (["trainer=ddp", "trainer.devices=auto"], "whole number, 1 or more"),
        (["trainer=ddp", "trainer.devices=3"], "data.batch_size=64 cannot be shared out evenly .*=3"),
        (["trainer=ddp", "trainer.strategy=fsdp"], "trainer.strategy=fsdp is unknown"),
        (["trainer=ddp", "trainer.accelerator=gpu", "trainer.devices=64"], r"there are \d+ GPUs"),
        (["+trainer.accumulate_grad_batches=2"], "accumulate_grad_batches is not supported"),
        (["trainer.precision=16-mixed"], "float16 scales the loss"),
        (["data.train=1.5"], "data.train=1.5 does not fit: use a whole number, 0 or more"),
        (["data.seed=true"], "data.seed=True does not fit"),
        (["model.draws=inf"], "model.draws=inf does not fit"),
        (["data.use_cache=abc"], "data.use_cache=abc does not fit: use true or false"),
        (["trainer.gradient_clip_val=nan"], "trainer.gradient_clip_val=nan does not fit"),
        (["resume=1"], "resume=1 is no path"),
        (["logger.tags=2"], "logger.tags=2 does not fit: use a list"),
        (["logger.project=2"], "logger.project=2 does not fit: use a name"),
        (["data.batch_size=1", "data.image_size=8"], "leaves batch norm a single pixel"),
        (["trainer=ddp", "trainer.precision=bf16-true"], "bf16-true is not supported"),
    ],
)
def test_what_cannot_be_right_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        check_values(config_of(*overrides))


def test_what_is_right_is_not_refused():
    for devices in (1, 2, 64):
        check_values(config_of("trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={devices}"))
    check_values(config_of("+trainer.accumulate_grad_batches=1", "trainer.precision=bf16-mixed"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param(
            "trainer.accelerator=gpu",
            "Trainer: No supported gpu backend found.$",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        ("trainer.accelerator=abc", "Trainer: You selected an invalid accelerator name"),
        ("+trainer.limit_train_batches=-1", "Trainer: You have passed invalid value -1 for limit_train_batches"),
    ],
)
def test_what_lightning_refuses_is_told_in_its_words(override, message, tmp_path):
    with pytest.raises(UserError, match=f"A value does not fit pytorch_lightning.{message}"):
        make_trainer(config_of(override), tmp_path, precision=FULL, logger=False, callbacks=[])
