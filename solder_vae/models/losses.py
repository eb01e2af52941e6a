"""The objective of Eq. 1 as pure functions: reconstruction error, KL divergence and how the two are reduced.

The reduction matters more than beta. Eq. 1 sums the squared error over the pixels and the divergence over the
latents. Averaging both instead, as the authors' published code does, multiplies the divergence's weight by
pixels / latents: 12288 / 640 = 19.2 for a 64x64 colour image. ``reduction="sum"`` is the equation and the default;
``reduction="mean"`` is the published code. Both are divided by the number of pixel values ``C * H * W``, so that the
reconstruction term is the mean squared error either way and the learning rate keeps its scale.

As in the paper's Eqs. 2 and 3 the reconstruction term is the squared error itself, without the factor 1/2 of a
unit-variance Gaussian: the decoder's likelihood is a Gaussian of variance 1/2, up to a constant.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from solder_vae.utils.errors import UserError

Reduction = Literal["sum", "mean"]


def check_reduction(reduction: str) -> Reduction:
    """Return ``reduction`` if it is known.

    Raises:
        UserError: it is neither "sum" nor "mean".
    """
    if reduction not in get_args(Reduction):
        raise UserError(
            f"model.reduction={reduction} is unknown: use sum (Eq. 1) or mean (the authors' published code)."
        )
    return reduction  # type: ignore[return-value]


def squared_error(x: Tensor, recon: Tensor) -> Tensor:
    """Mean squared error of each image over its pixels and channels (Eq. 2).

    Args:
        x: images ``(B, C, H, W)``.
        recon: reconstructions of the same shape.

    Returns:
        ``(B,)``, 0 or greater.
    """
    return (recon - x).square().flatten(1).mean(1)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each latent unit (first term of Eq. 3, sign turned).

    Args:
        mu: posterior means, any shape.
        logvar: logarithms of the posterior variances, of the same shape.

    Returns:
        The shape of ``mu``, 0 or greater, in nats.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def kl_term(kl: Tensor, pixels: int, reduction: Reduction) -> Tensor:
    """Each image's divergence as it enters the objective, before the weight beta.

    Args:
        kl: divergence of each latent unit ``(B, ...)``, in nats.
        pixels: number of values in an image, ``C * H * W``.
        reduction: "sum" divides the sum over the latents by ``pixels``; "mean" takes the mean over the latents.

    Returns:
        ``(B,)``.
    """
    kl = kl.flatten(1)
    return kl.sum(1) / pixels if reduction == "sum" else kl.mean(1)


def reparameterize(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z = mu + sigma * noise, with noise drawn from N(0, I); ``noise`` may broadcast over the batch."""
    return mu + torch.exp(0.5 * logvar) * noise
