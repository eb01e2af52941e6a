"""How many epochs a run has: what the user says, else as many as its images need for enough steps."""

from types import SimpleNamespace

import pytest
import torch
from commands import TINY, run_command
from documented import compose_command
from noise import Noise
from pytorch_lightning.callbacks import EarlyStopping

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.training.callbacks import plain_fit_errors
from solder_vae.training.resume import check_epochs_left
from solder_vae.training.trainer import steps_per_epoch, with_epochs
from solder_vae.utils.errors import UserError


def config_of(*overrides):
    (config,) = compose_command("solder_vae.train", list(overrides))
    return config


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(
    ("images", "overrides", "epochs"),
    [
        (2513, [], 8),  # the embedded set: 79 steps an epoch
        (50_000, [], 8),
        (556, [], 34),  # 18 steps an epoch: 612
        (2, [], 600),
        (33, [], 600),  # the 33rd image alone makes no step
        (34, [], 300),
        (556, ["data.batch_size=16"], 18),
        (556, ["trainer.min_steps=0"], 8),
        (556, ["trainer.min_steps=0", "trainer.min_epochs=30"], 30),
        (556, ["trainer.min_steps=2000"], 112),
        (556, ["trainer.max_epochs=3"], 3),  # what is given is kept to
        (556, ["experiment=paper"], 100),
        (556, ["experiment=quick"], 5),
        (2513, ["experiment=medium"], 20),
        (556, ["experiment=medium"], 67),
        (556, ["experiment=table2"], 67),
        (556, ["experiment=table3"], 67),
        (556, ["experiment=[paper,table2]"], 100),
        (556, ["optimizer=adam"], 67),
    ],
)
def test_a_small_set_gets_as_many_steps_as_it_needs(images, overrides, epochs):
    config = config_of(*overrides)
    before = config.trainer.max_epochs
    assert with_epochs(config, images).trainer.max_epochs == epochs
    assert config.trainer.max_epochs == before


@pytest.mark.parametrize("images", [1, 2, 15, 16, 17, 18, 31, 32, 33, 64, 65, 90])
def test_steps_are_the_batches_that_the_data_module_deals_out(images):
    data = SolderDataModule(Noise(train=images), batch_size=16)
    data.setup()
    assert steps_per_epoch(images, 16) == len(data.train_dataloader()) == sum(1 for _ in data.train_dataloader())


@pytest.mark.slow
def test_a_run_has_them_and_its_schedule_ends_with_it_and_it_is_resumed_without_a_number(tmp_path):
    """48 images make 3 steps of 16: 61 steps are 21 epochs."""
    common = [option for option in TINY if not option.startswith(("trainer.max_epochs", "data.train"))]
    common += ["data.train=48", "pictures=false", "logger.mode=disabled", "trainer.min_steps=61"]
    whole = run_command("train", *common, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert "21 epochs of 3 steps" in whole.stderr
    last = torch.load(tmp_path / "whole/last.ckpt", weights_only=True)
    assert (last["epoch"], last["global_step"]) == (20, 63)
    assert last["lr_schedulers"][0]["total_steps"] == 63
    again = run_command("train", *common, "resume=whole/last.ckpt", "hydra.run.dir=more", cwd=tmp_path)
    assert again.returncode == 2
    assert "has had 21 of 21 epochs, and its learning rate ends with the last of them: train anew" in again.stderr
    part = {**last, "epoch": 6, "global_step": 21}
    check_epochs_left("last.ckpt", part, 21)
    with pytest.raises(UserError, match=r"has had 7 of 21 epochs.*resume it with trainer.max_epochs=21, or train anew"):
        check_epochs_left("last.ckpt", part, 40)


def test_early_stopping_by_what_is_no_metric_is_one_sentence():
    trainer = SimpleNamespace(callback_metrics={"val/loss": torch.tensor(1.0)}, fast_dev_run=False)
    with pytest.raises(UserError, match=r"^callbacks: .*`nix` which is not available.*`val/loss`"), plain_fit_errors():
        EarlyStopping("nix")._run_early_stopping_check(trainer)
