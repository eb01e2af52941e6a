"""Centre crop and resize of whole batches as tensor operations, as :func:`~solder_vae.data.transforms.prepare` does it.

``prepare`` hands one image at a time to OpenCV. An exported graph needs the same in its own operations, and to the bit:
exact bilinear interpolation differs from OpenCV's by a grey level in every eighth pixel.

* Shrinking averages over areas: two products with matrices of overlaps between target and source pixels.
* Enlarging interpolates bilinearly in OpenCV's fixed-point arithmetic: weights of 11 bits, two truncations on the way.

The only difference left: area means within 1e-4 of half a grey level may round either way. That is no pixel in most
images and one in some. Sizes stay symbolic, so that an exported graph takes images of any size.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 11  # of OpenCV's bilinear weights


def prepare_batch(images: Tensor, image_size: int) -> Tensor:
    """Crop the central square of each image and resize it.

    Args:
        images: ``(B, H, W, 3)`` uint8, all of one size, any size.
        image_size: side S of the result.

    Returns:
        ``(B, S, S, 3)`` float32 that holds whole numbers in [0, 255].
    """
    height, width = (torch.scalar_tensor(n, dtype=torch.float64) for n in images.shape[1:3])
    side = torch.minimum(height, width)
    rows, columns = (torch.floor((n - side) / 2) for n in (height, width))  # where the square begins
    shrunk = _shrink(images.float(), rows, columns, side, image_size)
    enlarged = _enlarge(images, rows, columns, side, image_size)
    return torch.where(side < image_size, enlarged, shrunk)


def _shrink(images: Tensor, top: Tensor, left: Tensor, side: Tensor, size: int) -> Tensor:
    batch, height, width, channels = images.shape
    down, across = _overlaps(height, top, side, size), _overlaps(width, left, side, size)
    sums = down @ images.reshape(batch, height, width * channels)
    sums = (across @ sums.reshape(batch * size, width, channels)).reshape(batch, size, size, channels)
    means = sums * ((size / side) ** 2).float()
    # OpenCV has code of its own for halving, which rounds ties up; everywhere else they go to the even number.
    return torch.where(side == 2 * size, torch.floor(means + 0.5), torch.round(means))


def _overlaps(length: int, start: Tensor, side: Tensor, size: int) -> Tensor:
    """How much of each source pixel lies in each target pixel: ``(size, length)``, in source pixels."""
    cell = torch.arange(size, dtype=torch.float64)[:, None] * (side / size) + start
    pixel = torch.arange(length, dtype=torch.float64)[None, :]
    ends = torch.minimum(cell + side / size, pixel + 1)
    return (ends - torch.maximum(cell, pixel)).clamp(min=0).float()


def _enlarge(images: Tensor, top: Tensor, left: Tensor, side: Tensor, size: int) -> Tensor:
    position = ((torch.arange(size, dtype=torch.float64) + 0.5) * (side / size) - 0.5).float()
    before = torch.floor(position)
    fraction = position - before
    last = side - 1
    first_tap = torch.minimum(before.clamp(min=0).double(), last)
    second_tap = torch.minimum((before + 1).clamp(min=0).double(), last)
    # Beyond the outer pixels' centres OpenCV puts all weight on one pixel across, but not down.
    inside = (before >= 0) & (before < last)
    right, lower = _fixed(torch.where(inside, fraction, 0.0)), _fixed(fraction)
    to_left, upper = _fixed(torch.where(inside, 1 - fraction, 1.0)), _fixed(1 - fraction)

    here, there = ((tap + left).long() for tap in (first_tap, second_tap))
    lines = to_left[:, None] * images[:, :, here].int() + right[:, None] * images[:, :, there].int()
    lines = torch.div(lines, 16, rounding_mode="floor")
    here, there = ((tap + top).long() for tap in (first_tap, second_tap))
    high = torch.div(upper[:, None, None] * lines[:, here], 1 << 16, rounding_mode="floor")
    low = torch.div(lower[:, None, None] * lines[:, there], 1 << 16, rounding_mode="floor")
    return torch.div(high + low + 2, 4, rounding_mode="floor").float()


def _fixed(weight: Tensor) -> Tensor:
    """A weight in [0, 1] as an integer of 11 bits."""
    return torch.round(weight * (1 << _BITS)).int()
