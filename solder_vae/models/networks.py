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

The modules say what is computed. How a CPU computes it fastest is :func:`fast_forward`'s matter alone; what comes
out is the same but for the rounding.
"""

from __future__ import annotations

from torch import Tensor, nn

from solder_vae.models.layers.blocks import BicubicUpsample2x, conv_block
from solder_vae.models.layers.forward import fast_forward

LATENT_CHANNELS = 10
STRIDE = 8  # three poolings by 2: height and width must be multiples of it


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
        features = fast_forward(self.features, x)
        return tuple(fast_forward([head], features) for head in self.heads)


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
        return fast_forward(self.layers, z)
