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

The modules say what is computed. :func:`fast_forward` decides how a CPU computes it fastest; the result is the same but
for rounding. ``fast=False`` calls each layer as it is.

A network of your own is a subclass of :class:`Network`, named by a config (docs/project/extending.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from solder_vae.models.layers.blocks import BicubicUpsample2x, conv_block
from solder_vae.models.layers.forward import fast_forward, fast_heads, plain_forward
from solder_vae.models.options import HEADS, LATENT_CHANNELS, STRIDE, WIDTH
from solder_vae.utils.checks import check_choice
from solder_vae.utils.errors import UserError, refusal


class Network(nn.Module):
    """What encoders and decoders have in common.

    Every subclass is known by its dotted name, so that a checkpoint can name it without anything being imported.

    Attributes:
        stride: of an encoder: how many pixels of a side become one of the latent map.
        latent_channels: of an encoder: channels of each latent map.
        convolutions: of a decoder: those whose weights' gradients GradCon compares (3x3, stride 1, padding 1, no bias),
            input side first; empty where the decoder has none such, and GradCon is not available then.
        fast: whether :meth:`run` may compute a layer by the CPU kernels of :mod:`solder_vae.models.layers`.
    """

    registry: ClassVar[dict[str, type[Network]]] = {}
    stride: int = STRIDE
    latent_channels: int = LATENT_CHANNELS
    fast: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Network.registry[f"{cls.__module__}.{cls.__qualname__}"] = cls

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        return []

    def with_features(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Of an encoder: its output for images ``(B, 3, H, W)``, and features ``(B, D)`` that normals are compared by.

        Here :func:`channel_statistics` of the code's first map. A deep encoder does better with those of its layers.
        """
        code = self(x)
        return code, channel_statistics([code[0]])

    def run(self, layers: Iterable[nn.Module], x: Tensor) -> Tensor:
        """One layer after the other, the fast way unless ``fast`` is off."""
        if self.fast:
            return fast_forward(layers, x)
        for layer in layers:
            x = plain_forward(layer, x)
        return x


def channel_statistics(maps: Sequence[Tensor]) -> Tensor:
    """Mean and deviation of each channel over the positions, of maps ``(B, C_i, H_i, W_i)``: ``(B, 2 * sum C_i)``."""
    columns = []
    for values in maps:
        mean = values.mean((2, 3), keepdim=True)
        columns += [mean.flatten(1), (values - mean).square().mean((2, 3)).sqrt()]
    return torch.cat(columns, 1)


def log_scale(features: Tensor, unit: float) -> Tensor:
    """Features on a scale that has both signs and is logarithmic for those well above a unit: asinh(feature / unit)."""
    return torch.asinh(features / unit)


def make_network(spec: Mapping[str, Any] | None, default: Network | None, key: str) -> Network:
    """Make the network that a config or a checkpoint names.

    Args:
        spec: ``_target_`` and the class's own arguments, plain values; None for ``default``.
        default: the paper's network; None where ``spec`` is given.
        key: of the config, for messages.

    Raises:
        UserError: the class is not known (nothing is imported here), or does not take these arguments.
    """
    if spec is None:
        assert default is not None
        return default
    arguments = {name: value for name, value in spec.items() if name != "_target_"}
    target = spec.get("_target_")
    if target not in Network.registry:
        raise UserError(
            f"{key} names {target}, which is not a known network: "
            "it must be a subclass of solder_vae.models.networks.Network, in a module named by plugins=[...]."
        )
    try:
        return Network.registry[target](**arguments)
    except UserError:
        raise
    except Exception as error:
        raise refusal(error, Network.registry[target], key, target) from error


class Encoder(Network):
    """Image ``(B, 3, H, W)`` in [-1, 1] to one or two maps ``(B, C, H/8, W/8)``: (z,) or (mu, logvar).

    Args:
        heads: 1 for an autoencoder's code, 2 for the mean and log-variance of a Gaussian posterior.
        latent_channels: C, channels of each map; 10 in the paper.
        width: channels of the first convolution; each next one has twice as many. 16 in the paper.
        head: "block" ends each head as the paper draws it, in batch norm and LeakyReLU, which keep mu from going far
            below 0 and sigma below 0.95 (docs/research/model.md); "conv" ends it in the convolution, with a bias.
    """

    def __init__(
        self, heads: int, latent_channels: int = LATENT_CHANNELS, width: int = WIDTH, head: str = "block"
    ) -> None:
        super().__init__()
        check_choice("model.head", head, HEADS)
        self.latent_channels = latent_channels
        self.features = nn.Sequential(
            conv_block(3, width),  # 16 x 64 x 64
            nn.MaxPool2d(2),  # 16 x 32 x 32
            conv_block(width, 2 * width),  # 32 x 32 x 32
            nn.MaxPool2d(2),  # 32 x 16 x 16
            conv_block(2 * width, 4 * width),  # 64 x 16 x 16
            nn.MaxPool2d(2),  # 64 x 8 x 8
            conv_block(4 * width, 8 * width),  # 128 x 8 x 8
            conv_block(8 * width, 16 * width),  # 256 x 8 x 8
        )
        self.heads = nn.ModuleList(
            conv_block(16 * width, latent_channels)
            if head == "block"
            else nn.Conv2d(16 * width, latent_channels, kernel_size=3, padding=1)
            for _ in range(heads)
        )  # 10 x 8 x 8

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self.check_size(x)
        return self.run_heads(self.run(self.features, x))

    def with_features(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The code, and :func:`channel_statistics` of blocks 2 to 5, before their pooling.

        The first block sees edges and colours; the heads see what the objective lets through.
        """
        self.check_size(x)
        blocks = []
        for layer in self.features:
            x = self.run([layer], x)
            if not isinstance(layer, nn.MaxPool2d):
                blocks.append(x)
        return self.run_heads(x), channel_statistics(blocks[1:])

    def run_heads(self, features: Tensor) -> tuple[Tensor, ...]:
        if self.fast:
            return fast_heads(self.heads, features)
        return tuple(plain_forward(head, features) for head in self.heads)

    @staticmethod
    def check_size(x: Tensor) -> None:
        if x.shape[-1] % STRIDE or x.shape[-2] % STRIDE:
            raise ValueError(f"image height and width must be multiples of {STRIDE}, got {tuple(x.shape[-2:])}")


class Decoder(Network):
    """Latent map ``(B, C, H/8, W/8)`` to a reconstruction ``(B, 3, H, W)`` in [-1, 1].

    Args:
        latent_channels: C; 10 in the paper.
        width: channels of the last hidden convolution, 16 in the paper; the first has 16 times as many.
    """

    def __init__(self, latent_channels: int = LATENT_CHANNELS, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_block(latent_channels, 16 * width),  # 256 x 8 x 8
            conv_block(16 * width, 8 * width),  # 128 x 8 x 8
            conv_block(8 * width, 4 * width),  # 64 x 8 x 8
            BicubicUpsample2x(),  # 64 x 16 x 16
            conv_block(4 * width, 2 * width),  # 32 x 16 x 16
            BicubicUpsample2x(),  # 32 x 32 x 32
            conv_block(2 * width, width),  # 16 x 32 x 32
            BicubicUpsample2x(),  # 16 x 64 x 64
            conv_block(width, 3, activation=nn.Tanh()),  # 3 x 64 x 64
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
        return self.run(self.layers, z)
