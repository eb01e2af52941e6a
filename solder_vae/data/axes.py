"""Crops as tensors: what of a picture goes where in its square, with sizes that can stay symbolic in an exported graph.

:mod:`solder_vae.data.framing` says what the crops are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from solder_vae.data.framing import SQUARE


class Axis(NamedTuple):
    """Which pixels of a line go where in the square; scalar tensors, float64, so that sizes can stay symbolic.

    Attributes:
        start, extent: the pixels ``start .. start + extent - 1`` of the line ...
        offset, length: ... go to ``offset .. offset + length - 1`` of the square; what is outside is filled.
    """

    start: Tensor
    extent: Tensor
    offset: Tensor
    length: Tensor

    def cells(self, size: int) -> Tensor:
        """The square's pixels ``(size,)``, counted from the picture's first."""
        return torch.arange(size, dtype=torch.float64) - self.offset

    def inside(self, size: int) -> Tensor:
        """Which of the square's pixels the picture reaches, ``(size,)`` bool."""
        cells = self.cells(size)
        return (cells >= 0) & (cells < self.length)


def axes(height: int, width: int, size: int, crop: str) -> tuple[Axis, Axis]:
    """The axes, down and across, of pictures in a square of ``size`` pixels a side."""
    sides = [torch.scalar_tensor(side, dtype=torch.float64) for side in (height, width)]
    whole = torch.scalar_tensor(size, dtype=torch.float64)
    if crop == SQUARE:
        side = torch.minimum(*sides)
        down, across = (Axis(torch.floor((each - side) / 2), side, torch.zeros_like(side), whole) for each in sides)
        return down, across
    longest = torch.maximum(*sides)
    lengths = [torch.floor((2 * size * side + longest) / (2 * longest)).clamp(min=1) for side in sides]
    down, across = (
        Axis(torch.zeros_like(side), side, torch.floor((size - length) / 2), length)
        for side, length in zip(sides, lengths, strict=True)
    )
    return down, across


def edges_of(images: Tensor) -> tuple[Tensor, Tensor]:
    """Of pictures ``(B, H, W, ...)`` the sums ``(B, ...)`` over their two longer edges, and the number of pixels."""
    height, width = images.shape[1:3]
    wide = torch.scalar_tensor(width) > torch.scalar_tensor(height)
    rows = images[:, 0].sum(1) + images[:, -1].sum(1)
    columns = images[:, :, 0].sum(1) + images[:, :, -1].sum(1)
    pixels = 2 * torch.maximum(torch.scalar_tensor(width), torch.scalar_tensor(height)).to(images.dtype)
    return torch.where(wide, rows, columns), pixels
