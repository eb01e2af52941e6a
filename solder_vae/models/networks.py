"""The paper's convolutional encoder and decoder (Fig. 3), layer by layer.

Shapes are written for the paper's 64x64 input; any height and width that are multiples of 8 work, the latent is
then ``10 x H/8 x W/8``. All convolutions are 3x3, stride 1, padding 1, each followed by batch norm and
LeakyReLU(0.01), but the last, which ends in tanh.

Two things are written differently from the paper and compute the same:

* A stride-1, padding-1 transposed convolution is a convolution with the kernel flipped and its two channel axes
  swapped, so the decoder is made of ``Conv2d``.
* Bicubic upsampling is linear and separable, so it is two small matrix products; ``nn.Upsample`` took a third of a
  training step on a CPU.

Convolutions carry no bias: batch norm subtracts it again.

The modules say what is computed. How a CPU computes it fastest is :func:`forward_through`'s matter alone; what comes
out is the same but for the rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solder_vae.models.layers.convolution import (
    batch_norm,
    interpolate,
    interpolated_conv3x3,
    interpolation_pays,
    winograd_conv3x3,
    winograd_pays,
)
from solder_vae.utils.distributed import global_batch_norm, ranks

LATENT_CHANNELS = 10
STRIDE = 8  # three poolings by 2: height and width must be multiples of it


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


def forward_through(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """One layer after the other; on a CPU, by :mod:`solder_vae.models.layers.convolution`.

    Some things are done differently then, with the same result:

    * an upsampling and the convolution after it are computed at once;
    * pooling comes before the activation, which then has a quarter to do: both keep the order of values;
    * in training, wide convolutions of small maps are computed by tiles, and the batch norm is one that is quickly
      differentiated twice, for GradCon's constraint;
    * in evaluation without gradients, the batch norm is folded into the convolution.

    Args:
        layers: :func:`conv_block`, :class:`BicubicUpsample2x` and ``nn.MaxPool2d``. Whatever is none of them, or
            differs from what the kernels are made for, is called as it is.
        x: ``(B, C, H, W)``.
    """
    plain = x.device.type != "cpu" or torch.compiler.is_compiling()
    queue = deque(layers)
    while queue:
        layer = queue.popleft()
        upsample = isinstance(layer, BicubicUpsample2x) and bool(queue)
        parts = None if plain else block_parts(queue[0] if upsample else layer, x)
        if parts is None:
            x = called(layer, x)
            continue
        if upsample:
            queue.popleft()
        conv, norm, activation = parts
        convolve = upsampled_conv if upsample else tiled_conv
        if norm.training:
            x = (global_batch_norm if ranks() > 1 else batch_norm)(convolve(x, conv.weight), norm)
        else:
            x = convolve(x, *folded(conv, norm))
        pooled = bool(queue) and isinstance(queue[0], nn.MaxPool2d)
        if pooled:
            x = queue.popleft()(x)
        if isinstance(activation, nn.LeakyReLU) and norm.training and not pooled:
            # Not in place: autograd would have to rewrite the history of what may be a view.
            x = F.leaky_relu(x, activation.negative_slope)
        else:
            x = activation(x)
    return x


def called(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)``; where several ranks train, with the batch norm of the global batch."""
    if not layer.training or ranks() == 1:
        return layer(x)  # type: ignore[no-any-return]
    for part in layer if isinstance(layer, nn.Sequential) else [layer]:
        x = global_batch_norm(x, part) if type(part) is nn.BatchNorm2d else part(x)
    return x


def block_parts(layer: nn.Module, x: Tensor) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU | nn.Tanh] | None:
    """The parts of a :func:`conv_block`; None where the kernels would compute something else, or not faster."""
    if not (isinstance(layer, nn.Sequential) and len(layer) == 3):
        return None
    conv, norm, activation = layer
    if not (
        type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        and (conv.dilation, conv.groups, conv.padding_mode, conv.bias) == ((1, 1), 1, "zeros", None)
        and type(norm) is nn.BatchNorm2d
        and (norm.affine, norm.track_running_stats) == (True, True)
        and norm.momentum is not None
        and norm.training == torch.is_grad_enabled()
        and isinstance(activation, nn.LeakyReLU | nn.Tanh)
    ):
        return None
    # Folding scales the whole kernel; for a single image it is larger than what the batch norm would scale.
    worthwhile = norm.training or x.numel() > 9 * conv.in_channels**2
    return (conv, norm, activation) if worthwhile else None


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals ``norm(conv(x))`` in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def tiled_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)``; without a bias, as in training, by tiles where that pays."""
    if (
        bias is None
        and not torch.is_autocast_enabled("cpu")
        and winograd_pays(weight.shape[1], weight.shape[0], *x.shape[-2:])
    ):
        return winograd_conv3x3(x, weight)
    return F.conv2d(x, weight, bias, padding=1)


def upsampled_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(BicubicUpsample2x()(x), weight, bias, padding=1)``."""
    height, width = x.shape[-2:]
    if not interpolation_pays(weight.shape[1], weight.shape[0], height, width):
        return F.conv2d(BicubicUpsample2x()(x), weight, bias, padding=1)
    rows, columns = (bicubic_matrix(size, x.device, x.dtype) for size in (height, width))
    y = interpolated_conv3x3(x, weight, rows, columns)
    return y if bias is None else y.add_(bias[:, None, None])


class Encoder(nn.Module):
    """Image ``(B, 3, H, W)`` in [-1, 1] to one or two maps ``(B, 10, H/8, W/8)``: (z,) or (mu, logvar).

    Args:
        heads: 1 for an autoencoder's code, 2 for the mean and log-variance of a Gaussian posterior.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_block(3, 16),  # 16 x 64 x 64
            nn.MaxPool2d(2),  # 16 x 32 x 32
            conv_block(16, 32),  # 32 x 32 x 32
            nn.MaxPool2d(2),  # 32 x 16 x 16
            conv_block(32, 64),  # 64 x 16 x 16
            nn.MaxPool2d(2),  # 64 x 8 x 8
            conv_block(64, 128),  # 128 x 8 x 8
            conv_block(128, 256),  # 256 x 8 x 8
        )
        self.heads = nn.ModuleList(conv_block(256, LATENT_CHANNELS) for _ in range(heads))  # 10 x 8 x 8

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[-1] % STRIDE or x.shape[-2] % STRIDE:
            raise ValueError(f"image height and width must be multiples of {STRIDE}, got {tuple(x.shape[-2:])}")
        features = forward_through(self.features, x)
        return tuple(forward_through([head], features) for head in self.heads)


class Decoder(nn.Module):
    """Latent map ``(B, 10, H/8, W/8)`` to a reconstruction ``(B, 3, H, W)`` in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_block(LATENT_CHANNELS, 256),  # 256 x 8 x 8
            conv_block(256, 128),  # 128 x 8 x 8
            conv_block(128, 64),  # 64 x 8 x 8
            BicubicUpsample2x(),  # 64 x 16 x 16
            conv_block(64, 32),  # 32 x 16 x 16
            BicubicUpsample2x(),  # 32 x 32 x 32
            conv_block(32, 16),  # 16 x 32 x 32
            BicubicUpsample2x(),  # 16 x 64 x 64
            conv_block(16, 3, activation=nn.Tanh()),  # 3 x 64 x 64
        )
        for conv in self.convolutions:
            # PyTorch's default bound for a *transposed* convolution, which counts the output channels as fan-in.
            bound = (conv.out_channels * 9) ** -0.5
            nn.init.uniform_(conv.weight, -bound, bound)

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """The six convolutions whose weights' gradients GradCon compares (Eq. 4), input side first."""
        return [module for module in self.layers.modules() if isinstance(module, nn.Conv2d)]

    def forward(self, z: Tensor) -> Tensor:
        return forward_through(self.layers, z)
