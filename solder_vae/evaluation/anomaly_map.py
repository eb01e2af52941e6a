"""Where in the image the anomaly is: squared error of each pixel, smoothed, on a scale that validation normals fix."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from solder_vae.data.table import Images
from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation.run_model import batches_of
from solder_vae.models.scores import ModelOutput

SMOOTHING = 1 / 32  # standard deviation of the Gaussian as a share of the image's side: 2 pixels of 64
SCALE_QUANTILE = 0.99
IMAGES_FOR_SCALE = 1000  # 4 million pixels are enough for a quantile; more would only cost memory


def anomaly_map(x: Tensor, recon: Tensor) -> Tensor:
    """Squared error of each pixel, averaged over the channels and smoothed by a Gaussian.

    Smoothing drops the thin bright lines that blurred edges leave in every reconstruction.

    Args:
        x: images ``(B, 3, S, S)`` in [-1, 1].
        recon: their reconstructions, of the same shape.

    Returns:
        ``(B, S, S)``, 0 or greater; its mean over an image is close to the recon score.
    """
    return smooth((x - recon).square().mean(1))


def output_map(output: ModelOutput) -> Tensor:
    """The anomaly map ``(B, S, S)``, 0 or greater, of what a model gave: of its reconstruction, or its own."""
    if output.anomaly is None:
        assert output.recon is not None
        return anomaly_map(output.images, output.recon)
    own = output.anomaly[:, None].clamp_min(0)  # a place may look even more normal than the nearest normal does
    return F.interpolate(own, output.images.shape[-2:], mode="bilinear")[:, 0]


def smooth(maps: Tensor) -> Tensor:
    """Convolve maps ``(B, S, S)`` with a Gaussian of :data:`SMOOTHING`; the rim pixels continue outwards."""
    sigma = SMOOTHING * maps.shape[-1]
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]


def mean_image_maps(train: Images, images: Images) -> NDArray[np.float32]:
    """The trivial anomaly map ``(N, S, S)``: what :func:`anomaly_map` makes of the training normals' mean image.

    If a network's reconstructions locate defects no better than one mean image, it has not learned where joints differ.
    """
    mean = to_tensor(train[:]).mean(0)
    maps = [anomaly_map(x, mean.expand_as(x)).numpy() for x in batches_of(images)]
    return np.concatenate([np.empty((0, *images.shape[1:3]), np.float32), *maps])


def map_scale(maps: NDArray[np.float32]) -> float:
    """The maps' unit: the value under which 99 % of the pixels of normals lie.

    Maps divided by it mean the same on every image: 1 % of the pixels of normal joints are above 1.

    Args:
        maps: of validation normals ``(N, S, S)``, N >= 1; some 1000 of them are enough.
    """
    return float(np.quantile(maps, SCALE_QUANTILE))
