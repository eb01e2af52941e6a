"""One layer after the other, each the fastest way that the device allows; the result is the same but for rounding."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solder_vae.models.layers.batch_norm import (
    batch_norm,
    fold_batch_norm,
    global_batch_norm,
    pooled_batch_norm,
)
from solder_vae.models.layers.blocks import BicubicUpsample2x, bicubic_matrix
from solder_vae.models.layers.convolution import (
    interpolated_conv3x3,
    interpolation_pays,
    winograd_conv3x3,
    winograd_pays,
)
from solder_vae.utils.distributed import world_size


def fast_forward(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """One layer after the other; on a CPU, by :mod:`solder_vae.models.layers.convolution`.

    Some steps are done differently then, with the same result:

    * an upsampling and the convolution after it are computed at once;
    * pooling comes before the activation, which then has a quarter of the work; both keep the order of values; in
      training it comes before the batch norm, too;
    * in training, wide convolutions of small maps are computed by tiles, and the batch norm is one that is quickly
      differentiated twice, for GradCon's constraint;
    * in evaluation without gradients, the batch norm is folded into the convolution.

    Args:
        layers: :func:`conv_block`, :class:`BicubicUpsample2x` and ``nn.MaxPool2d``. Other layers, and those
            that the kernels are not made for, are called as they are.
        x: ``(B, C, H, W)``.
    """
    queue = deque(layers)
    while queue:
        layer = queue.popleft()
        upsample = isinstance(layer, BicubicUpsample2x) and bool(queue)
        parts = match_conv_block(queue[0] if upsample else layer, x)
        if parts is None:
            x = plain_forward(layer, x)
            continue
        if upsample:
            queue.popleft()
        conv, norm, activation = parts
        convolve = upsampled_conv if upsample else tiled_conv
        if norm.training and world_size() == 1 and queue and pools_by_two(queue[0]):
            queue.popleft()
            sign = torch.where(norm.weight < 0, -1, 1)[:, None, None, None]
            x = convolve(x, conv.weight * sign).contiguous(memory_format=torch.channels_last)
            x = activation(pooled_batch_norm(x, norm, sign.flatten()))
            continue
        x = normalised(convolve(x, conv.weight), norm) if norm.training else convolve(x, *fold_batch_norm(conv, norm))
        pooled = bool(queue) and isinstance(queue[0], nn.MaxPool2d)
        if pooled:
            x = queue.popleft()(x)
        x = activated(x, activation) if norm.training and not pooled else activation(x)
    return x


def fast_heads(heads: Iterable[nn.Module], x: Tensor) -> tuple[Tensor, ...]:
    """What each head makes of the same maps; on a CPU, their convolutions of a few channels each are computed as one.

    Args:
        heads: :func:`conv_block`; others are called as they are.
        x: ``(B, C, H, W)``.
    """
    heads = list(heads)
    parts = [found for head in heads if (found := match_conv_block(head, x))]
    if len(parts) < max(2, len(heads)):
        return tuple(fast_forward([head], x) for head in heads)
    channels = [len(conv.weight) for conv, *_ in parts]
    if torch.is_grad_enabled():
        maps = tiled_conv(x, torch.cat([conv.weight for conv, *_ in parts])).split_with_sizes(channels, 1)
        maps = tuple(
            normalised(map_.contiguous(memory_format=torch.channels_last), norm)
            for map_, (_, norm, _) in zip(maps, parts, strict=True)
        )
    else:
        folded = zip(*(fold_batch_norm(conv, norm) for conv, norm, _ in parts), strict=True)
        maps = tiled_conv(x, *map(torch.cat, folded)).split_with_sizes(channels, 1)
    return tuple(activated(map_, activation) for map_, (*_, activation) in zip(maps, parts, strict=True))


def normalised(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """``norm(x)`` in training mode, over all ranks."""
    return (global_batch_norm if world_size() > 1 else batch_norm)(x, norm)


def activated(x: Tensor, activation: nn.LeakyReLU | nn.Tanh) -> Tensor:
    """``activation(x)``, but not in place: autograd would have to rewrite the history of what may be a view."""
    return F.leaky_relu(x, activation.negative_slope) if isinstance(activation, nn.LeakyReLU) else activation(x)


def pools_by_two(layer: nn.Module) -> bool:
    """Whether it is ``nn.MaxPool2d(2)``."""
    return type(layer) is nn.MaxPool2d and (
        (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == (2, 2, 0, 1)
        and not (layer.return_indices or layer.ceil_mode)
    )


def plain_forward(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)``; where several ranks train, with the batch norm of the global batch."""
    if not layer.training or world_size() == 1:
        return layer(x)  # type: ignore[no-any-return]
    for part in layer if isinstance(layer, nn.Sequential) else [layer]:
        x = global_batch_norm(x, part) if type(part) is nn.BatchNorm2d else part(x)
    return x


def match_conv_block(layer: nn.Module, x: Tensor) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU | nn.Tanh] | None:
    """The parts of a :func:`conv_block`; None where the kernels would compute something else, or not faster."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return None
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
