"""VAE and beta-VAE: a Gaussian posterior and the divergence that Eq. 1 adds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solder_vae.models.autoencoder import Autoencoder, log
from solder_vae.models.losses import (
    image_noise,
    kl_divergence,
    kl_term,
    latent_noise,
    reparameterize,
    squared_error,
)
from solder_vae.models.options import BETA_VAE, VAE_OPTIONS, Rules
from solder_vae.models.scores import POSTERIOR, Code
from solder_vae.utils.distributed import all_reduce_sum, rank, world_size

ACTIVE_VARIANCE = 0.01  # Burda et al., "Importance Weighted Autoencoders" (2016), section 5.2
EARLY_STEPS = 600
"""Training steps (the default run's) before which a collapse says more of the training's length than of beta."""

COLLAPSED_BELOW = 0.05  # share of active units under which a posterior counts as collapsed


class PosteriorStatistics:
    """Statistics of the latent units over images, accumulated batch by batch and over ranks.

    A unit is *active* when it responds to the input: the variance over images of its posterior mean exceeds 0.01.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        # Scalars at first; the first batch broadcasts them to one value for each unit, on its device.
        self.count = self.sum_mu = self.sum_square = self.sum_kl = torch.zeros((), dtype=torch.float64)

    def update(self, mu: Tensor, logvar: Tensor) -> None:
        """Add a batch of posteriors, each ``(B, ...)`` with the number of units in the trailing axes."""
        flat = mu.detach().flatten(1).double()
        self.count = self.count + len(flat)
        self.sum_mu = self.sum_mu + flat.sum(0)
        self.sum_square = self.sum_square + flat.square().sum(0)
        self.sum_kl = self.sum_kl + kl_divergence(flat, logvar.detach().flatten(1).double()).sum(0)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean divergence of each unit in nats ``(units,)``, and which units are active ``(units,)`` bool."""
        count = all_reduce_sum(self.count.to(self.sum_mu.device))
        mu, square, kl = (all_reduce_sum(total) / count for total in (self.sum_mu, self.sum_square, self.sum_kl))
        return kl, square - mu.square() > ACTIVE_VARIANCE


class BetaVAE(Autoencoder, name="beta_vae"):
    """beta-VAE (Eq. 1): L is the squared error plus beta times the KL divergence to N(0, I).

    Args:
        beta: weight of the divergence, 0 or greater.
        reduction: "sum" (Eq. 1, default) or "mean" (the published code); see :mod:`solder_vae.models.losses`.
        **others: as for :class:`~solder_vae.models.autoencoder.Autoencoder`.
    """

    provides: ClassVar[frozenset[str]] = Autoencoder.provides | {POSTERIOR}
    rules: ClassVar[Rules] = BETA_VAE
    heads: ClassVar[int] = 2

    def __init__(self, beta: float = 3.0, reduction: str = "sum", **others: Any) -> None:
        super().__init__(**others)
        self.beta = beta
        self.reduction = reduction
        self.posterior = PosteriorStatistics()
        # Of the latest validation: divergence (nats) and activity of each unit, and whether the posterior collapsed.
        self.kl_per_unit: Tensor | None = None
        self.active_units: Tensor | None = None
        self.collapsed = False
        self.told_early = False  # of the collapse, but not yet what to do about it

    def noise(self, x: Tensor, stream: int, step: int) -> Tensor:
        """Standard normal noise ``(B, C, H/8, W/8)`` that depends on seed, stream and step alone.

        A rank takes its images' part of the global batch's noise: every ``world_size()``-th. NumPy draws
        one number after the other, so the noise of the first images is the same however many there are.
        """
        encoder = self.encoder
        shape = (world_size() * len(x), encoder.latent_channels, *(side // encoder.stride for side in x.shape[-2:]))
        noise = np.random.default_rng((self.seed, stream, step)).standard_normal(shape, np.float32)
        return torch.from_numpy(noise)[rank() :: world_size()].to(x.device, x.dtype)

    def loss_terms(self, x: Tensor, noise: Tensor, code: Code | None = None) -> tuple[dict[str, Tensor], Code]:
        """As for the CAE, and ``kl``: the divergence as it enters L, before beta."""
        mu, logvar = code = self.encode(x) if code is None else code
        recon = squared_error(x, self.decoder(reparameterize(mu, logvar, noise))).mean()
        kl = kl_term(kl_divergence(mu, logvar), x[0].numel(), self.reduction).mean()
        return {"loss": recon + self.beta * kl, "recon": recon, "kl": kl}, code

    def divergence(self, code: Code, pixels: int) -> Tensor | None:
        """beta times the image's KL divergence, reduced as in training."""
        return self.beta * kl_term(kl_divergence(*code), pixels, self.reduction)

    def latents_at(self, code: Code, latent: str) -> list[Tensor]:
        mu, logvar = code
        if latent == "mean":
            return [mu]
        return [reparameterize(mu, logvar, noise) for noise in latent_noise(mu.shape[1:], self.draws, mu.device)]

    def scored_latents(self, code: Code, x: Tensor) -> list[Tensor]:
        if not self.own_noise:
            return super().scored_latents(code, x)
        mu, logvar = code
        return [reparameterize(mu, logvar, noise) for noise in image_noise(x, mu.shape[1:], self.draws)]

    def validation_terms(self, x: Tensor, code: Code, step: int) -> dict[str, Tensor]:
        self.posterior.update(*code)
        return super().validation_terms(x, code, step)

    def validation_summary(self) -> dict[str, float]:
        """How many latent units carry information; a warning if hardly any does."""
        if self.posterior.count == 0:  # nothing was validated
            return {}
        self.kl_per_unit, self.active_units = self.posterior.compute()
        self.posterior.reset()
        active, units = int(self.active_units.sum()), self.active_units.numel()
        collapsed = active < COLLAPSED_BELOW * units
        early = self.step < EARLY_STEPS
        trained = self.step > 0  # not in Lightning's check that a validation works, before any training
        if collapsed and trained and (not self.collapsed or (self.told_early and not early)):
            lower = f"Lower beta (now {self.beta:g})"
            if self.reduction == "mean":
                lower += ", or use model.reduction=sum"
            log.warning(
                "posterior collapse: %d of %d latent units respond to the input, so the reconstruction hardly "
                "depends on the image. %s.",
                active,
                units,
                f"{self.step} steps are few: train for {EARLY_STEPS} or more before you change anything else"
                if early
                else lower,
            )
            self.told_early = early
        self.collapsed = collapsed and trained
        return {"val/active_units": float(active)}  # the same on all ranks

    def diagnostics(self) -> dict[str, NDArray[Any]]:
        return {} if self.kl_per_unit is None else {"kl": self.kl_per_unit.cpu().numpy()}


class VAE(BetaVAE, name="vae"):
    """VAE: the beta-VAE with beta = 1."""

    rules: ClassVar[Rules] = VAE_OPTIONS

    def __init__(self, beta: float = 1.0, **others: Any) -> None:
        super().__init__(beta, **others)
