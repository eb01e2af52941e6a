"""beta-TCVAE: the divergence in three parts, of which beta weighs the total correlation alone (Chen et al. 2018)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from solder_vae.models.losses import kl_divergence, kl_term, reparameterize, squared_error
from solder_vae.models.options import BETA_TCVAE, Rules
from solder_vae.models.scores import Code
from solder_vae.models.vae import BetaVAE
from solder_vae.utils.distributed import world_size
from solder_vae.utils.errors import UserError


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Log density of N(mu, exp(logvar)) at ``z``, element by element, in nats."""
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu).square() * torch.exp(-logvar))


def decomposed_kl(z: Tensor, mu: Tensor, logvar: Tensor, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Index-code mutual information, total correlation and dimension-wise divergence (Chen et al. 2018, Eqs. 2 and 3).

    q(z) is estimated from the batch by minibatch-weighted sampling (their Eq. S5): log q(z_i) is
    about ``log sum_j q(z_i|x_j) - log(N B)``. The three sum to an estimate of the batch's mean KL divergence.

    Args:
        z: one latent drawn for each image ``(B, D)``.
        mu, logvar: posteriors ``(B, D)``.
        images: N, how many training images there are.

    Returns:
        Three scalars in nats, means over the batch.
    """
    size = math.log(len(z) * images)
    pairs = log_normal(z[:, None], mu[None], logvar[None])  # (B, B, D): density of z_i under the posterior of x_j
    conditional = log_normal(z, mu, logvar).sum(1)
    joint = torch.logsumexp(pairs.sum(2), 1) - size
    product = (torch.logsumexp(pairs, 1) - size).sum(1)
    prior = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
    return (conditional - joint).mean(), (joint - product).mean(), (product - prior).mean()


class BetaTCVAE(BetaVAE, name="beta_tcvae"):
    """beta-TCVAE: L is the squared error plus mutual information, beta times total correlation, and dimension-wise KL.

    With beta = 1 it is a VAE whose divergence is estimated from the drawn latents. The ELBO score takes the closed
    divergence of an image, since total correlation is defined for a whole data set only.

    Args:
        beta: weight of the total correlation, 0 or greater; 6 in the paper's disentanglement study.
        images: N, how many training images there are; None takes it from the run's data.
        **others: as for :class:`~solder_vae.models.vae.BetaVAE`; ``reduction`` must be "sum".
    """

    rules: ClassVar[Rules] = BETA_TCVAE

    def __init__(self, beta: float = 6.0, images: int | None = None, **others: Any) -> None:
        super().__init__(beta, **others)
        self.images = images

    def start_training(self, images: int) -> None:
        if world_size() > 1:
            raise UserError("model=beta_tcvae estimates q(z) from whole batches: drop trainer=ddp.")
        if self.images is None:
            self.images = images

    def loss_terms(self, x: Tensor, noise: Tensor, code: Code | None = None) -> tuple[dict[str, Tensor], Code]:
        """As for the VAE, with ``mutual_information``, ``total_correlation`` and ``dimension_kl``, each per pixel."""
        mu, logvar = code = self.encode(x) if code is None else code
        z = reparameterize(mu, logvar, noise)
        recon = squared_error(x, self.decoder(z)).mean()
        images = self.images or len(x)
        parts = decomposed_kl(z.flatten(1), mu.flatten(1), logvar.flatten(1), images)
        information, correlation, dimension = (part / x[0].numel() for part in parts)
        terms = {"mutual_information": information, "total_correlation": correlation, "dimension_kl": dimension}
        return {"loss": recon + information + self.beta * correlation + dimension, "recon": recon, **terms}, code

    def divergence(self, code: Code, pixels: int) -> Tensor | None:
        """The image's KL divergence, reduced as in training; beta does not weigh it."""
        return kl_term(kl_divergence(*code), pixels, self.reduction)
