"""The paper's three anomaly scores, per image, batched; higher = more anomalous.

``latent`` says which latent is decoded: "mean" takes the posterior mean (deterministic, the default), "sample" draws
``draws`` latents and averages the scores, as the paper samples. The draws are the same for every image and every
call, so that an image's score depends on nothing but the image and the model.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from solder_vae.models.losses import Reduction, kl_divergence, kl_term, squared_error

Latent = Literal["mean", "sample"]

SCORES = ("recon", "elbo", "gradcon")


def recon_score(x: Tensor, recon: Tensor) -> Tensor:
    """Mean squared error of each image (Eq. 2): ``(B,)``, 0 or greater; images in [-1, 1]."""
    return squared_error(x, recon)


def elbo_score(
    recon_error: Tensor, mu: Tensor, logvar: Tensor, beta: float, pixels: int, reduction: Reduction
) -> Tensor:
    """Minus the ELBO of each image, reduced as the training objective is: ``(B,)``.

    Eq. 3 as printed is the ELBO itself (its KL term and its error both negative); a score must grow with the
    anomaly, so this is its negative, the objective L of that image: recon + beta * KL.

    Args:
        recon_error: squared error of each image ``(B,)``.
        mu: posterior means ``(B, ...)``.
        logvar: log-variances of the same shape.
        beta: weight of the divergence.
        pixels: number of values in an image, ``C * H * W``.
        reduction: as in training, see :mod:`solder_vae.models.losses`.
    """
    return recon_error + beta * kl_term(kl_divergence(mu, logvar), pixels, reduction)


def gradcon_score(recon_error: Tensor, grad_loss: Tensor, gamma: float) -> Tensor:
    """Squared error plus gamma times the image's own gradient loss: ``(B,)``.

    Args:
        recon_error: squared error of each image ``(B,)``.
        grad_loss: gradient loss of each image ``(B,)``, in [-1, 1].
        gamma: weight, 0.12 in Kwon et al.
    """
    return recon_error + gamma * grad_loss


def latent_noise(shape: torch.Size, draws: int, device: torch.device) -> Tensor:
    """Standard normal noise ``(draws, 1, *shape)``, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((draws, 1, *shape), generator=generator).to(device)
