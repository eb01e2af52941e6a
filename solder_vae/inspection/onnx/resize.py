"""Crop and resize of whole batches as tensor operations, as :func:`~solder_vae.data.transforms.prepare` does it.

``prepare`` hands one image at a time to OpenCV. An exported graph needs the same in its own operations, and to the bit:
exact bilinear interpolation differs from OpenCV's by a grey level in every eighth pixel.

* Shrinking averages over areas: two products with matrices of overlaps between target and source pixels.
* Enlarging interpolates bilinearly in OpenCV's fixed-point arithmetic: weights of 11 bits, two truncations on the way.

The only difference left: area means within 1e-4 of half a grey level may round either way. That is no pixel in most
images and one in a few. Sizes stay symbolic, so that an exported graph takes images of any size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from solder_vae.data.axes import Axis, axes, edges_of
from solder_vae.data.framing import ROUND_UP, SQUARE

_BITS = 11  # of OpenCV's bilinear weights


def prepare_batch(images: Tensor, image_size: int, crop: str = SQUARE) -> Tensor:
    """Make each image a square of the size that is asked for.

    Args:
        images: ``(B, H, W, 3)`` uint8, all of one size, any size.
        image_size: side S of the result.
        crop: "square" or "letterbox".

    Returns:
        ``(B, S, S, 3)`` float32 that holds whole numbers in [0, 255].
    """
    down, across = axes(images.shape[1], images.shape[2], image_size, crop)
    means = _means(images.float(), down, across, image_size)
    # OpenCV has code of its own for halving, which rounds ties up; everywhere else they go to the even number.
    halved = down.extent == 2 * image_size
    shrunk = torch.where(halved, torch.floor(means + 0.5), torch.round(means))
    if crop != SQUARE:
        shrunk = torch.floor(means + ROUND_UP).clamp(max=255)
    enlarged = _enlarge(images, down, across, image_size)
    square = torch.where(torch.maximum(down.extent, across.extent) < image_size, enlarged, shrunk)
    if crop == SQUARE:
        return square
    total, pixels = edges_of(images.int())
    colour = ((2 * total + pixels) // (2 * pixels)).float()
    reached = down.inside(image_size)[:, None, None] & across.inside(image_size)[:, None]
    return torch.where(reached, square, colour[:, None, None])


def _means(images: Tensor, down: Axis, across: Axis, size: int) -> Tensor:
    batch, height, width, channels = images.shape
    steps = down.extent / down.length, across.extent / across.length
    # OpenCV has two ways: where both steps are whole numbers, it adds up pixels and multiplies the sum; elsewhere it
    # adds up shares of pixels. Of each way some sums that lie half way between two grey levels are exact.
    whole = (steps[0] == torch.floor(steps[0])) & (steps[1] == torch.floor(steps[1]))
    rows, columns = (
        (_overlaps(length, axis, step, size) / torch.where(whole, 1.0, step)).float()
        for length, axis, step in zip((height, width), (down, across), steps, strict=True)
    )
    sums = rows @ images.reshape(batch, height, width * channels)
    sums = (columns @ sums.reshape(batch * size, width, channels)).reshape(batch, size, size, channels)
    return sums * torch.where(whole, 1 / (steps[0] * steps[1]), 1.0).float()


def _overlaps(length: int, axis: Axis, step: Tensor, size: int) -> Tensor:
    """How much of each source pixel lies in each target pixel: ``(size, length)`` float64, in source pixels."""
    cell = axis.cells(size)[:, None] * step + axis.start
    pixel = torch.arange(length, dtype=torch.float64)[None, :]
    ends = torch.minimum(cell + step, pixel + 1)
    return (ends - torch.maximum(cell, pixel)).clamp(min=0)


class _Taps(NamedTuple):
    """For each target pixel the two source pixels that it lies between, ``(size,)``, and how far it is on its way."""

    first: Tensor
    second: Tensor
    fraction: Tensor
    between: Tensor  # bool: neither beyond the first source pixel's centre nor beyond the last one's


def _taps(axis: Axis, size: int) -> _Taps:
    position = ((axis.cells(size) + 0.5) * (axis.extent / axis.length) - 0.5).float()
    before = torch.floor(position)
    last = axis.extent - 1
    first, second = (torch.minimum(tap.clamp(min=0).double(), last) + axis.start for tap in (before, before + 1))
    return _Taps(first.long(), second.long(), position - before, (before >= 0) & (before < last))


def _enlarge(images: Tensor, down: Axis, across: Axis, size: int) -> Tensor:
    x, y = _taps(across, size), _taps(down, size)
    # Beyond the outer pixels' centres OpenCV puts all weight on one pixel across, but not down.
    right, lower = _fixed(torch.where(x.between, x.fraction, 0.0)), _fixed(y.fraction)
    to_left, upper = _fixed(torch.where(x.between, 1 - x.fraction, 1.0)), _fixed(1 - y.fraction)

    lines = to_left[:, None] * images[:, :, x.first].int() + right[:, None] * images[:, :, x.second].int()
    # Not torch.div(..., rounding_mode="floor"), which the exporter writes as a division in single precision: a product
    # of 26 bits just below a multiple of 2^16 would be rounded to it, and the pixel go up by one.
    lines = lines // 16
    high = upper[:, None, None] * lines[:, y.first] // (1 << 16)
    low = lower[:, None, None] * lines[:, y.second] // (1 << 16)
    return ((high + low + 2) // 4).float()


def _fixed(weight: Tensor) -> Tensor:
    """A weight in [0, 1] as an integer of 11 bits."""
    return torch.round(weight * (1 << _BITS)).int()
