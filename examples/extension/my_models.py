"""A model, an encoder, a score and a threshold rule of your own: what docs/project/extending.md explains.

From this folder:

    python -m solder_vae.train --config-dir conf model=vq_vae score=recon
    python -m solder_vae.train --config-dir conf model=wide score=code_distance threshold=margin
    python -m solder_vae.predict checkpoint=outputs/.../best.ckpt images=PATH out=verdicts plugins=my_models
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solder_vae.metrics.threshold import Rule
from solder_vae.models.autoencoder import Autoencoder
from solder_vae.models.losses import squared_error
from solder_vae.models.networks import Network
from solder_vae.models.options import AUTOENCODER, count
from solder_vae.models.scores import Code, FitData, ModelOutput, Score
from solder_vae.utils.checks import check_number


class VQVAE(Autoencoder, name="vq_vae"):
    """VQ-VAE (van den Oord et al. 2017): each place of the latent map takes the nearest of ``codes`` vectors.

    Args:
        codes: size of the codebook.
        commitment: weight of the commitment loss, 0.25 in the paper.
        **others: as for Autoencoder.
    """

    rules: ClassVar = {**AUTOENCODER, "codes": count, "commitment": check_number}

    def __init__(self, codes: int = 128, commitment: float = 0.25, **others: Any) -> None:
        super().__init__(**others)
        self.commitment = commitment
        self.codebook = nn.Embedding(codes, self.encoder.latent_channels)
        nn.init.uniform_(self.codebook.weight, -1 / codes, 1 / codes)

    def quantise(self, z: Tensor) -> Tensor:
        """The nearest code at each place of ``z`` ``(B, C, H, W)``."""
        places = z.permute(0, 2, 3, 1)
        codes = self.codebook.weight
        # Squared distances but for the place's own norm, which does not change which code is nearest.
        nearest = (codes.square().sum(1) - 2 * places.flatten(0, 2) @ codes.T).argmin(1)
        return self.codebook(nearest).reshape(places.shape).permute(0, 3, 1, 2)

    def loss_terms(self, x: Tensor, noise: Tensor, code: Code | None = None) -> tuple[dict[str, Tensor], Code]:
        code = self.encode(x) if code is None else code
        z, e = code[0], self.quantise(code[0])
        recon = squared_error(x, self.decoder(z + (e - z).detach())).mean()
        codebook, commitment = F.mse_loss(e, z.detach()), F.mse_loss(z, e.detach())
        loss = recon + codebook + self.commitment * commitment
        return {"loss": loss, "recon": recon, "codebook": codebook}, code

    def latents_at(self, code: Code, latent: str) -> list[Tensor]:
        return [self.quantise(code[0])]


class DilatedEncoder(Network):
    """An encoder of another width, with dilated convolutions instead of the last two blocks.

    Args:
        heads: maps that it gives: 1 for an autoencoder, 2 for a VAE.
        width: channels of the first convolution.
    """

    def __init__(self, heads: int, width: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for deeper in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(channels, deeper, 3, padding=1), nn.BatchNorm2d(deeper), nn.SiLU(), nn.AvgPool2d(2)]
            channels = deeper
        layers += [nn.Conv2d(channels, channels, 3, padding=2, dilation=2), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Conv2d(channels, self.latent_channels, 1) for _ in range(heads))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.features(x)
        return tuple(head(features) for head in self.heads)


class CodeDistance(Score, name="code_distance"):
    """Distance of an image's mean code from that of the training normals, each channel in its own deviations.

    Args:
        floor: the least deviation of a channel.
    """

    needs = frozenset({"reconstruction"})  # models that have no code do not reconstruct, either
    rules: ClassVar = {"floor": check_number}
    fitted = True
    exportable = True

    def __init__(self, floor: float = 1e-3) -> None:
        self.floor = floor
        self.mean = self.deviation = torch.empty(0)

    def fit(self, data: FitData) -> None:
        codes = torch.cat([output.code[0].mean((2, 3)).cpu() for output in data.normals])
        self.mean, self.deviation = codes.mean(0), codes.std(0).clamp_min(self.floor)

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "deviation": self.deviation}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.mean, self.deviation = state["mean"], state["deviation"]

    def __call__(self, output: ModelOutput) -> Tensor:
        code = output.code[0].mean((2, 3))
        return ((code - self.mean.to(code.device)) / self.deviation.to(code.device)).norm(dim=1)


@dataclass(frozen=True)
class Margin(Rule, name="margin"):
    """A quantile of the normals' scores, moved away from their median by a factor."""

    share: float = 0.9
    factor: float = 1.2

    def __post_init__(self) -> None:
        self.check("share", "a number from 0 to 1", lambda share: 0 <= share <= 1)
        self.check("factor")

    def cut(self, normals: Any, labelled: Any = None) -> float:
        middle, edge = np.quantile(normals, [0.5, self.share])
        return float(middle + self.factor * (edge - middle))
