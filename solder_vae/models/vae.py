"""VAE and beta-VAE: a Gaussian posterior and the divergence that Eq. 1 adds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from solder_vae.models.autoencoder import CAE, Posterior, is_number, log
from solder_vae.models.losses import check_reduction, kl_divergence, kl_term, reparameterize, squared_error
from solder_vae.models.networks import LATENT_CHANNELS, STRIDE
from solder_vae.models.posterior import COLLAPSED_BELOW, PosteriorStatistics
from solder_vae.models.scores import SCORES, elbo_score, latent_noise
from solder_vae.utils.distributed import rank, world_size
from solder_vae.utils.errors import UserError


class BetaVAE(CAE):
    """beta-VAE (Eq. 1): L is the squared error plus beta times the KL divergence to N(0, I).

    Args:
        beta: weight of the divergence, 0 or greater.
        reduction: "sum" (Eq. 1, default) or "mean" (the published code); see :mod:`solder_vae.models.losses`.
        **others: as for :class:`CAE`.
    """

    name = "beta_vae"
    admitted_scores = SCORES
    heads = 2

    def __init__(self, beta: float = 3.0, reduction: str = "sum", **others: Any) -> None:
        super().__init__(beta, **others)
        self.beta = beta
        self.reduction = check_reduction(reduction)
        self.posterior = PosteriorStatistics()
        # Of the latest validation: divergence (nats) and activity of each unit, and whether the posterior collapsed.
        self.kl_per_unit: Tensor | None = None
        self.active_units: Tensor | None = None
        self.collapsed = False

    def check_beta(self, beta: float | None) -> None:
        if not is_number(beta):
            raise UserError(f"model={self.name} needs a number of 0 or more for beta, got beta={beta}.")

    def noise(self, x: Tensor, stream: int, step: int) -> Tensor:
        """Standard normal noise ``(B, 10, H/8, W/8)`` that depends on seed, stream and step alone.

        A rank takes from the global batch's noise what belongs to its images: every ``ranks()``-th. NumPy draws one
        number after the other, so the noise of the first images is the same however many there are.
        """
        shape = (world_size() * len(x), LATENT_CHANNELS, x.shape[-2] // STRIDE, x.shape[-1] // STRIDE)
        noise = np.random.default_rng((self.seed, stream, step)).standard_normal(shape, np.float32)
        return torch.from_numpy(noise)[rank() :: world_size()].to(x.device, x.dtype)

    def loss_terms(self, x: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Posterior]:
        """As for the CAE, and ``kl``: the divergence as it enters L, before beta."""
        mu, logvar = posterior = self.encoder(x)
        recon = squared_error(x, self.decoder(reparameterize(mu, logvar, noise))).mean()
        kl = kl_term(kl_divergence(mu, logvar), x[0].numel(), self.reduction).mean()
        return {"loss": recon + self.beta * kl, "recon": recon, "kl": kl}, posterior

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Posterior]:
        outputs = super().validation_step(batch, batch_idx)
        self.posterior.update(*outputs["posterior"])
        return outputs

    def on_validation_epoch_end(self) -> None:
        """Log how many latent units carry information, and warn when hardly any does any more."""
        self.kl_per_unit, self.active_units = self.posterior.compute()
        self.posterior.reset()
        active, units = int(self.active_units.sum()), self.active_units.numel()
        self.log("val/active_units", float(active), sync_dist=True)  # the same on all ranks
        collapsed = active < COLLAPSED_BELOW * units
        if collapsed and not self.collapsed:
            log.warning(
                "posterior collapse: %d of %d latent units respond to the input, so the reconstruction hardly "
                "depends on the image. Lower beta (now %g)%s.",
                active,
                units,
                self.beta,
                ", or use model.reduction=sum" if self.reduction == "mean" else "",
            )
        self.collapsed = collapsed

    def latents(self, posterior: Posterior) -> list[Tensor]:
        mu, logvar = posterior
        if self.latent == "mean":
            return [mu]
        return [reparameterize(mu, logvar, noise) for noise in latent_noise(mu.shape[1:], self.draws, mu.device)]

    def compute_scores(
        self, x: Tensor, recon: Tensor, grad_loss: Tensor | None, posterior: Posterior
    ) -> dict[str, Tensor]:
        scores = super().compute_scores(x, recon, grad_loss, posterior)
        mu, logvar = posterior
        scores["elbo"] = elbo_score(scores["recon"], mu, logvar, self.beta, x[0].numel(), self.reduction)
        return scores


class VAE(BetaVAE):
    """VAE: the beta-VAE with beta = 1."""

    name = "vae"

    def __init__(self, beta: float = 1.0, **others: Any) -> None:
        super().__init__(beta, **others)

    def check_beta(self, beta: float | None) -> None:
        if beta != 1:
            raise UserError(f"model=vae is beta = 1: for another weight type model=beta_vae beta={beta}.")


MODELS: dict[str, type[CAE]] = {model.name: model for model in (CAE, VAE, BetaVAE)}
