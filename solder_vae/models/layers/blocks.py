"""What the networks are made of: a convolution block and bicubic upsampling."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solder_vae.models.layers.convolution import (
    interpolate,
)


def conv_block(channels_in: int, channels_out: int, activation: nn.Module | None = None) -> nn.Sequential:
    """3x3 convolution, batch norm, activation (LeakyReLU unless given)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        activation or nn.LeakyReLU(0.01, inplace=True),
    )


@cache
def bicubic_matrix(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The matrix ``(2 * size, size)`` that doubles a signal's length as ``F.interpolate(mode="bicubic")`` does."""
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        identity = torch.eye(size).reshape(1, size, size, 1)  # `size` channels, each a unit impulse along the height
        doubled = F.interpolate(identity, size=(2 * size, 1), mode="bicubic", align_corners=False)
        return doubled.reshape(size, 2 * size).T.contiguous().to(device, dtype)


class BicubicUpsample2x(nn.Module):
    """Doubles height and width, ``(B, C, H, W) -> (B, C, 2H, 2W)``, as ``nn.Upsample(2, mode="bicubic")`` does."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rows = bicubic_matrix(height, x.device, x.dtype)
        columns = bicubic_matrix(width, x.device, x.dtype)
        # With the channels last in memory, both products run on views: nothing is copied.
        x = x.permute(0, 2, 3, 1)
        x = interpolate(rows, x.reshape(batch, height, width * channels))
        x = interpolate(columns, x.reshape(batch * 2 * height, width, channels))
        return x.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
