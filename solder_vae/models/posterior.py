"""How much of the latent a VAE uses: divergence per unit, active units, posterior collapse."""

from __future__ import annotations

import torch
from torch import Tensor

from solder_vae.models.losses import kl_divergence
from solder_vae.utils.distributed import all_reduce_sum

ACTIVE_VARIANCE = 0.01  # Burda et al., "Importance Weighted Autoencoders" (2016), section 5.2
EARLY_STEPS = 1200
"""Training steps (the default run's) before which a collapse says more of the training's length than of beta."""

COLLAPSED_BELOW = 0.05  # share of active units under which a posterior counts as collapsed


class PosteriorStatistics:
    """Statistics of the latent units over images, accumulated batch by batch and over ranks.

    A unit is *active* when it responds to the input: the variance over images of its posterior mean exceeds 0.01.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        # Scalars at first; the first batch broadcasts them to one value for each unit, on its device.
        self.count = self.sum_mu = self.sum_square = self.sum_kl = torch.zeros((), dtype=torch.float64)

    def update(self, mu: Tensor, logvar: Tensor) -> None:
        """Add a batch of posteriors, each ``(B, ...)`` with the number of units in the trailing axes."""
        flat = mu.detach().flatten(1).double()
        self.count = self.count + len(flat)
        self.sum_mu = self.sum_mu + flat.sum(0)
        self.sum_square = self.sum_square + flat.square().sum(0)
        self.sum_kl = self.sum_kl + kl_divergence(flat, logvar.detach().flatten(1).double()).sum(0)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean divergence of each unit in nats ``(units,)``, and which units are active ``(units,)`` bool."""
        count = all_reduce_sum(self.count.to(self.sum_mu.device))
        mu, square, kl = (all_reduce_sum(total) / count for total in (self.sum_mu, self.sum_square, self.sum_kl))
        return kl, square - mu.square() > ACTIVE_VARIANCE
