"""The arithmetic of the controlled view (:mod:`solder_vae.data.transforms`), in torch and in double precision, so that
an exported graph does the very same. Apart, since what only names a view needs no torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solder_vae.data.axes import Axis, axes, edges_of
from solder_vae.data.framing import SQUARE

RESOLUTION = 24
"""Pixels a side that every controlled image is reduced to. A smaller photograph stays as blurred as it is, and the blur
gives away its size: on sets of such photographs look at the sharpness baseline (docs/use/audit.md has figures)."""

MEAN, DEVIATION = 128.0, 48.0
"""Grey levels: about the contrast of photographs, so that the KL divergence keeps its weight beside the squared error.
Clipping begins at 2.65 standard deviations."""

# Rounds of clipping and standardising: enough for a grey level on dark-field images, too, and for one and a half where
# less than a sixth of the pixels is bright.
_ROUNDS = 16

_LEAST_DEVIATION = 1.0  # grey levels: smaller variation is noise, which is not amplified

_LUMA = (299, 587, 114)  # thousandths, as integers, so that grey is exact


def controlled_batch(images: Tensor, image_size: int, crop: str = SQUARE) -> Tensor:
    """The controlled view of a batch, in operations that can be exported with symbolic sizes.

    Args:
        images: ``(B, H, W, 3)`` uint8, all of one size, any size.
        image_size: side S of the result.
        crop: "square" or "letterbox".

    Returns:
        ``(B, S, S)`` float32 that holds whole numbers in [1, 255].
    """
    height, width = images.shape[1:3]
    down, across = axes(height, width, RESOLUTION, crop)
    red, green, blue = images.int().unbind(-1)
    grey = (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).double() / 1000
    enlarge = _resizing(RESOLUTION, axes(RESOLUTION, RESOLUTION, image_size, SQUARE)[0], image_size)
    rows = enlarge @ _resizing(height, down, RESOLUTION)
    columns = enlarge @ _resizing(width, across, RESOLUTION)
    square = rows @ grey @ columns.T
    if crop != SQUARE:
        reached = [enlarge @ axis.inside(RESOLUTION).double() for axis in (down, across)]
        total, pixels = edges_of(grey)
        square = square + (total / pixels)[:, None, None] * (1 - torch.outer(*reached))
    return torch.round(MEAN + DEVIATION * _standardised(square)).float()


def _standardised(images: Tensor) -> Tensor:
    """Images ``(B, S, S)`` of grey levels, each at mean 0 and standard deviation 1 and within the range of 8 bits."""
    limit = 127 / DEVIATION
    offset = _centred(images)
    offset = offset / _deviation(offset).clamp(min=_LEAST_DEVIATION)
    target = _deviation(offset)  # 1, but for nearly constant images
    for _ in range(_ROUNDS):
        offset = _centred(offset.clamp(-limit, limit))
        offset = offset * target / _deviation(offset).clamp(min=1e-9)
    return offset.clamp(-limit, limit)


def _centred(images: Tensor) -> Tensor:
    return images - images.mean((1, 2), keepdim=True)


def _deviation(centred: Tensor) -> Tensor:
    return centred.square().mean((1, 2), keepdim=True).sqrt()


def _resizing(length: int, axis: Axis, size: int) -> Tensor:
    """The matrix ``(size, length)`` that resizes pixels of a line of ``length``; the rows of filled pixels are 0."""
    cell, pixel = axis.cells(size)[:, None], torch.arange(length).double()[None, :] - axis.start
    side, count = axis.extent, axis.length
    step = side / count
    overlap = torch.minimum((cell + 1) * step, pixel + 1) - torch.maximum(cell * step, pixel)
    means = overlap.clamp(min=0) / step
    position = torch.minimum(((cell + 0.5) * step - 0.5).clamp(min=0), side - 1)
    bilinear = (1 - (position - pixel).abs()).clamp(min=0)
    return torch.where(side < count, bilinear, means) * axis.inside(size)[:, None]
