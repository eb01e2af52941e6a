"""Views: what of a photograph the network gets to see.

``plain`` is the photograph, cropped and resized. ``controlled`` takes away what often differs between the photographs
of good and bad joints but is not solder: colour, brightness, contrast, resolution. A result that survives it does not
rest on those. It is made in this order:

1. crop the central square, or fit the whole picture in (:mod:`solder_vae.data.framing`); grey by ITU-R BT.601's luma;
2. resize to :data:`RESOLUTION` pixels a side: means over areas, or bilinear where the photograph has fewer;
3. resize to the network's image size, bilinear;
4. shift and scale each image to mean :data:`MEAN` and standard deviation :data:`DEVIATION` grey levels, clip to
   1 .. 255, and again, since clipped highlights (a bright ring on black) move both; round, and repeat over the three
   channels.

The arithmetic is in torch and in double precision, so that an exported graph does the very same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from solder_vae.data.axes import Axis, axes, edges_of
from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import Image
from solder_vae.data.transforms import prepare
from solder_vae.utils.errors import UserError

PLAIN, CONTROLLED = VIEWS = ("plain", "controlled")

RESOLUTION = 24
"""Pixels a side that every controlled image is reduced to. A smaller photograph stays as blurred as it is, and the blur
gives away its size: on sets of such photographs look at the sharpness baseline (docs/use/audit.md has figures)."""

MEAN, DEVIATION = 128.0, 48.0
"""Grey levels: about the contrast of photographs, so that the KL divergence keeps its weight beside the squared error.
Clipping begins at 2.65 standard deviations."""

_ROUNDS = 16  # rounds of clipping and standardising: enough for a grey level on dark-field images, too

_LEAST_DEVIATION = 1.0  # grey levels: smaller variation is noise, which is not amplified

_LUMA = (299, 587, 114)  # thousandths, as integers, so that grey is exact


def check_view(view: str) -> str:
    """Return the view's name, if it is one.

    Raises:
        UserError: it is not.
    """
    if view not in VIEWS:
        raise UserError(f"data.view={view} is unknown; use {' or '.join(VIEWS)}.")
    return view


def apply_view(image: Image, image_size: int, view: str, crop: str = SQUARE) -> Image:
    """A photograph in a view.

    Args:
        image: ``(H, W, 3)`` uint8 of any size.
        image_size: side of the result in pixels.
        view: one of :data:`VIEWS`.
        crop: "square" or "letterbox".

    Returns:
        ``(image_size, image_size, 3)`` uint8.
    """
    if view == PLAIN:
        return prepare(image, image_size, crop)
    grey = controlled_batch(torch.from_numpy(np.ascontiguousarray(image))[None], image_size, crop)[0]
    return np.repeat(grey.to(torch.uint8).numpy()[..., None], 3, axis=-1)


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
