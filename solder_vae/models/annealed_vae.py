"""The VAE with annealed capacity: the divergence is held at a rising target (Burgess et al. 2018)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from solder_vae.models.losses import kl_divergence, reparameterize, squared_error
from solder_vae.models.options import ANNEALED_VAE, Rules
from solder_vae.models.scores import Code
from solder_vae.models.vae import BetaVAE


class AnnealedVAE(BetaVAE, name="annealed_vae"):
    """L is the squared error plus ``beta * |KL - C|``, with C rising linearly from 0 (Burgess et al. 2018, Eq. 8).

    Validation uses the final capacity, so that its loss means the same in each epoch.

    Args:
        beta: weight of the distance from the capacity, gamma in the paper, 0 or greater.
        capacity: C at the end, in nats an image.
        capacity_steps: training steps in which C rises.
        **others: as for :class:`~solder_vae.models.vae.BetaVAE`; ``reduction`` must be "sum".
    """

    rules: ClassVar[Rules] = ANNEALED_VAE

    def __init__(self, beta: float = 30.0, capacity: float = 25.0, capacity_steps: int = 400, **others: Any) -> None:
        super().__init__(beta, **others)
        self.capacity, self.capacity_steps = capacity, capacity_steps

    @property
    def target(self) -> float:
        """The present C in nats: that of the step in training, the final one in evaluation."""
        if not self.training:
            return self.capacity
        return self.capacity * min(1.0, self.step / self.capacity_steps)

    def loss_terms(self, x: Tensor, noise: Tensor, code: Code | None = None) -> tuple[dict[str, Tensor], Code]:
        """As for the VAE; ``kl`` is the mean divergence of the batch, per pixel, before its target is taken off."""
        mu, logvar = code = self.encode(x) if code is None else code
        recon = squared_error(x, self.decoder(reparameterize(mu, logvar, noise))).mean()
        kl = kl_divergence(mu, logvar).flatten(1).sum(1).mean()
        pixels = x[0].numel()
        return {"loss": recon + self.beta * (kl - self.target).abs() / pixels, "recon": recon, "kl": kl / pixels}, code
