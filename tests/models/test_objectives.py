"""beta-TCVAE and annealed capacity against their formulas, by loops in double precision."""

import math

import pytest
import pytorch_lightning as pl
import torch
from noise import Noise
from torch.distributions import Normal

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.models.annealed_vae import AnnealedVAE
from solder_vae.models.beta_tcvae import BetaTCVAE, decomposed_kl
from solder_vae.models.checkpoint import load_model
from solder_vae.models.losses import kl_divergence, squared_error
from solder_vae.models.steps import TrainingModule
from solder_vae.utils.errors import UserError


def posteriors(batch=5, units=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z, mu, logvar = (torch.randn(batch, units, generator=generator, dtype=torch.float64) for _ in range(3))
    return z, mu, logvar


@pytest.mark.parametrize("images", [5, 1000])
def test_the_three_parts_are_those_of_minibatch_weighted_sampling(images):
    """Chen et al. 2018, Eq. S5, with loops over images and units."""
    z, mu, logvar = posteriors()
    size = math.log(len(z) * images)
    information, correlation, dimension = [], [], []
    for i in range(len(z)):
        densities = [
            [Normal(mu[j, d], (0.5 * logvar[j, d]).exp()).log_prob(z[i, d]) for d in range(3)] for j in range(5)
        ]
        own = sum(densities[i])
        joint = math.log(sum(math.exp(sum(row)) for row in densities)) - size
        product = sum(math.log(sum(math.exp(row[d]) for row in densities)) - size for d in range(3))
        prior = Normal(0.0, 1.0).log_prob(z[i]).sum()
        information.append(own - joint)
        correlation.append(joint - product)
        dimension.append(product - prior)
    expected = [sum(part) / len(z) for part in (information, correlation, dimension)]
    for ours, value in zip(decomposed_kl(z, mu, logvar, images), expected, strict=True):
        assert ours.item() == pytest.approx(float(value), rel=1e-9)


def test_the_parts_sum_to_the_divergence():
    """On average over draws: the closed KL of the same posteriors."""
    _, mu, logvar = posteriors(batch=4, units=2)
    noise = torch.randn(20_000, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws = mu + (0.5 * logvar).exp() * noise
    sums = torch.stack([sum(decomposed_kl(z, mu, logvar, 100)) for z in draws[:2000]])
    expected = kl_divergence(mu, logvar).sum(1).mean()
    assert sums.mean() == pytest.approx(expected.item(), abs=4 * sums.std().item() / len(sums) ** 0.5)


def test_with_beta_1_the_objective_is_recon_plus_the_estimated_divergence():
    model = BetaTCVAE(beta=1.0, images=50).double()
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64) * 2 - 1
    noise = model.noise(x, 0, 0)
    terms, (mu, logvar) = model.loss_terms(x, noise)
    z = mu + (0.5 * logvar).exp() * noise
    parts = sum(decomposed_kl(z.flatten(1), mu.flatten(1), logvar.flatten(1), 50)) / x[0].numel()
    assert terms["loss"].item() == pytest.approx((terms["recon"] + parts).item(), rel=1e-12)
    heavier, _ = BetaTCVAE(beta=3.0, images=50).double().eval().loss_terms(x, noise)
    assert heavier["loss"].item() == pytest.approx(
        sum(heavier[name] for name in ("recon", "mutual_information", "dimension_kl")).item()
        + 3 * heavier["total_correlation"].item()
    )


def test_annealed_capacity_by_hand():
    model = AnnealedVAE(beta=7.0, capacity=10.0).double().eval()
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64) * 2 - 1
    noise = model.noise(x, 1, 0)
    terms, (mu, logvar) = model.loss_terms(x, noise)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum() / 3
    recon = squared_error(x, model.decoder(mu + (0.5 * logvar).exp() * noise)).mean()
    assert terms["loss"].item() == pytest.approx((recon + 7 * (kl - 10).abs() / 768).item(), rel=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [BetaTCVAE, AnnealedVAE])
def test_they_train_save_and_load(kind, tmp_path):
    options = {"capacity": 4.0, "capacity_steps": 8} if kind is AnnealedVAE else {}
    model = kind(score="gradcon", alpha=0.03, lr=1e-3, **options)
    targets = []

    class Watching(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            targets.append(getattr(module.model, "target", None))

    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[Watching()],
    )  # fmt: skip
    trainer.fit(TrainingModule(model), SolderDataModule(Noise(train=24, size=16), batch_size=8))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    if kind is AnnealedVAE:
        assert targets == [4 * min(1, step / 8) for step in range(9)]
    else:
        assert model.images == 24
    loaded = load_model(tmp_path / "a.ckpt")
    x = torch.rand(2, 3, 16, 16)
    assert set(loaded.score(x).scores) == {"recon", "elbo", "gradcon"}
    assert torch.equal(loaded.score(x).scores["elbo"], model.eval().score(x).scores["elbo"])


def test_what_does_not_fit_is_refused():
    for kind in (BetaTCVAE, AnnealedVAE):
        with pytest.raises(UserError, match=r"model\.reduction=mean does not fit"):
            kind(reduction="mean")
    with pytest.raises(UserError, match=r"model\.capacity=-1 does not fit: use a number, 0 or more"):
        AnnealedVAE(capacity=-1)
