"""The vectorised ensemble against single runs by Lightning, in float64: both must end in the same place."""

import pytest
import pytorch_lightning as pl
import torch
from documented import compose_command
from noise import Noise

from solder_vae.data.datamodule import SolderDataModule, TableDataset
from solder_vae.models.autoencoder import Autoencoder
from solder_vae.models.checkpoint import read_checkpoint
from solder_vae.models.steps import TrainingModule
from solder_vae.training.callbacks import checkpoints
from solder_vae.training.ensemble import check_model, train_ensemble
from solder_vae.training.run import build_model
from solder_vae.utils.errors import UserError

CPU = torch.device("cpu")


class DoubleDataset(TableDataset):
    def __getitems__(self, items):
        batch = super().__getitems__(items)
        return {**batch, "image": batch["image"].double()}


@pytest.fixture
def doubles(monkeypatch):
    """Batches in float64, so that the two ways of computing stay together over many steps."""
    monkeypatch.setattr("solder_vae.data.datamodule.TableDataset", DoubleDataset)


def data_module():
    data = SolderDataModule(Noise(train=24, size=32), batch_size=8)
    data.setup()
    return data


def solo(model, epochs, folder):
    """The same run by Lightning: the best checkpoint's weights, its epoch and the logged losses."""
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", precision="64-true", logger=False, callbacks=checkpoints(folder),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(TrainingModule(model), datamodule=data_module())
    best = read_checkpoint(folder / "best.ckpt")
    return best["state_dict"], best["epoch"], {key: value.item() for key, value in trainer.callback_metrics.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "alpha"), [("cae", 0.0), ("cae", 0.03), ("vae", 0.03), ("beta_vae", 0.0)])
def test_members_end_where_solo_runs_end(name, alpha, doubles, tmp_path):
    """Also across a drop of the learning rate, which comes to the members at different times."""
    options = {"alpha": alpha, "score": "recon", "lr": 0.02, "lr_patience": 0, "weight_decay": 1e-3}
    settings = [{"seed": 0}, {"seed": 1}]
    if name == "beta_vae":
        settings = [{"seed": 0, "beta": 0.1}, {"seed": 0, "beta": 5.0}, {"seed": 3, "beta": 5.0}]
    models = []
    for index, setting in enumerate(settings):
        torch.manual_seed(index)
        models.append(Autoencoder.registry[name](**options, **setting).double())
    members = train_ensemble(models, data_module(), epochs=4, device=CPU)
    for index, (model, member) in enumerate(zip(models, members, strict=True)):
        state, epoch, metrics = solo(model, 4, tmp_path / str(index))
        assert member.best_epoch == epoch
        assert set(member.best_state) == set(state)
        for key, value in state.items():
            torch.testing.assert_close(member.best_state[key], value, rtol=1e-6, atol=1e-9, msg=key)
        for key, value in member.history[-1].items():
            assert value == pytest.approx(metrics[key], rel=1e-6), key


@pytest.mark.filterwarnings("ignore")
def test_members_do_not_see_each_other(doubles):
    models = [Autoencoder.registry["vae"](seed=seed, alpha=0.03).double() for seed in range(3)]
    together = train_ensemble(models, data_module(), epochs=2, device=CPU)
    (alone,) = train_ensemble(models[1:2], data_module(), epochs=2, device=CPU)
    for key, value in alone.best_state.items():
        # Rounding of 1e-16, amplified by two epochs; what a member saw of another would be some 1e-2.
        torch.testing.assert_close(together[1].best_state[key], value, rtol=1e-7, atol=1e-9)


def test_members_own_the_models_that_were_given(doubles):
    model = Autoencoder.registry["cae"]().double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train_ensemble([model], data_module(), epochs=1, device=CPU)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_diverged_member_is_named(doubles):
    with pytest.raises(UserError, match=r"Member 0 \(seed 7\) never had a finite validation loss: lower model\.lr"):
        train_ensemble([Autoencoder.registry["cae"](seed=7, lr=1e200).double()], data_module(), epochs=1, device=CPU)


@pytest.mark.parametrize("options", [["optimizer=adamw"], ["scheduler=one_cycle"], ["model=beta_tcvae"]])
def test_what_an_ensemble_would_train_otherwise_is_refused(options):
    (config,) = compose_command("solder_vae.train", ["model=beta_vae", "score=recon", *options])
    with pytest.raises(UserError, match=r"drop trainer\.ensemble"):
        check_model(build_model(config))
    (config,) = compose_command("solder_vae.train", ["score=recon"])
    check_model(build_model(config))
