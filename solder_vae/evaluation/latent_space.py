"""What the latent space shows of normal and abnormal joints: the paper's t-SNE, and numbers beside the picture.

A t-SNE picture proves nothing by itself: it shows clusters in noise, too, and sizes and distances of clusters mean
little. So the separation is measured in the latent space itself and stated beside its chance level.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from solder_vae.data.table import Images
from solder_vae.evaluation.run_model import batches_of
from solder_vae.models.autoencoder import Autoencoder
from solder_vae.models.scores import POSTERIOR, Code
from solder_vae.models.vae import PosteriorStatistics
from solder_vae.utils.errors import UserError

Floats = NDArray[np.float64]

Unit = tuple[int, ...]  # (channel, row, column) of a latent unit, (channel,) of all units of a channel

_AT_ONCE = 256


def posterior_means(model: Autoencoder, images: Images) -> Floats:
    """Posterior means (a CAE's codes) of images ``(N, S, S, 3)``, flattened: ``(N, D)``, D = 640 at 64 x 64."""
    return np.concatenate([posterior[0].flatten(1).double().numpy() for posterior in _posteriors(model, images)])


def log_variances(model: Autoencoder, images: Images) -> Floats:
    """log sigma^2 of images ``(N, S, S, 3)`` by a VAE, flattened: ``(N, D)``."""
    return np.concatenate([logvar.flatten(1).double().numpy() for _, logvar in _posteriors(model, images)])


def posterior_kl(model: Autoencoder, images: Images) -> Floats:
    """KL divergence from the prior of each latent unit in nats, ``(10, S/8, S/8)``, mean over images ``(N, S, S, 3)``.

    Raises:
        UserError: the model is a CAE, which has no posterior.
    """
    if POSTERIOR not in model.provides:
        raise UserError(f"model={model.name} has no posterior, so its latent units have no KL divergence: use a VAE.")
    statistics = PosteriorStatistics()
    for mu, logvar in _posteriors(model, images):
        statistics.update(mu, logvar)
    kl: Floats = statistics.compute()[0].reshape(mu.shape[1:]).numpy()
    return kl


@torch.no_grad()
def _posteriors(model: Autoencoder, images: Images) -> Iterator[Code]:
    """The encoder's outputs in evaluation mode, batch by batch, on the CPU; the model's mode is restored."""
    training = model.training
    model.eval()
    try:
        for x in batches_of(images, _AT_ONCE):
            yield tuple(part.cpu() for part in model.encode(x.to(model.device)))
    finally:
        model.train(training)


def strongest_units(kl: Floats, count: int) -> list[Unit]:
    """The ``count`` units ``(channel, row, column)`` of highest divergence ``(C, H, W)``, highest first."""
    order = np.argsort(-kl, axis=None, kind="stable")[:count]
    return [tuple(int(place) for place in np.unravel_index(index, kl.shape)) for index in order]


def strongest_channels(kl: Floats, count: int) -> list[Unit]:
    """The ``count`` channels ``(channel,)`` of highest summed divergence ``(C, H, W)``, highest first."""
    return [(int(channel),) for channel in np.argsort(-kl.sum((1, 2)), kind="stable")[:count]]
