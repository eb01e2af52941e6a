"""The objective of Eq. 1 as pure functions: reconstruction error, KL divergence, how the two are reduced; noise.

The reduction matters more than beta. Eq. 1 sums the squared error over the pixels and the divergence over the
latents. Averaging both instead, as the authors' published code does, multiplies the divergence's weight by
pixels / latents: 12288 / 640 = 19.2 for a 64x64 colour image. ``reduction="sum"`` is the equation and the default;
``reduction="mean"`` is the published code. Both are divided by the number of pixel values ``C * H * W``, so that the
reconstruction term is the mean squared error either way and the learning rate keeps its scale.

As in the paper's Eqs. 2 and 3 the reconstruction term is the squared error itself, without the factor 1/2 of a
unit-variance Gaussian: the decoder's likelihood is a Gaussian of variance 1/2, up to a constant.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import torch
from torch import Tensor


def squared_error(x: Tensor, recon: Tensor) -> Tensor:
    """Mean squared error of each image over its pixels and channels (Eq. 2).

    Args:
        x: images ``(B, C, H, W)``.
        recon: reconstructions of the same shape.

    Returns:
        ``(B,)``, 0 or greater.
    """
    # A sum passes its gradient on in the memory order of the images; that of a mean would be copied, there and back.
    return (recon - x).square().sum((1, 2, 3)) / x.shape[1:].numel()


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each latent unit (first term of Eq. 3, sign turned).

    Args:
        mu: posterior means, any shape.
        logvar: logarithms of the posterior variances, of the same shape.

    Returns:
        The shape of ``mu``, 0 or greater, in nats.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def kl_term(kl: Tensor, pixels: int, reduction: str) -> Tensor:
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


@cache  # an exporter that traces a score cannot write a generator's draws, but numbers that are there already
def latent_noise(shape: torch.Size, draws: int, device: torch.device) -> Tensor:
    """Standard normal noise ``(draws, 1, *shape)``, the same at every call."""
    with torch.inference_mode(False):
        generator = torch.Generator().manual_seed(0)
        return torch.randn((draws, 1, *shape), generator=generator).to(device)


def image_noise(images: Tensor, shape: torch.Size, draws: int) -> Tensor:
    """Standard normal noise ``(draws, B, *shape)``, another one for each image.

    It depends on the image's pixels alone, not on its place, its batch or the call.

    Args:
        images: ``(B, 3, H, W)`` in [-1, 1], made of bytes.
        shape: of an image's latent.
        draws: how many.
    """
    pixels = images.add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous().numpy()
    seeds = (hashlib.sha256(image.tobytes()).digest() for image in pixels)
    noise = [np.random.default_rng([*seed]).standard_normal((draws, *shape), np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(noise, axis=1)).to(images.device)
