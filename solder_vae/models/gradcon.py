"""GradCon: gradients of the decoder as a constraint in training and as an anomaly score (Eq. 4; Kwon et al. 2020).

The idea in three steps:

1. While training on normal images, keep the running mean of the loss's gradient with respect to each decoder
   convolution's weight: the *reference*. It points where normal images push the decoder.
2. In training, the constraint ``grad_loss = -mean_i cos(reference_i, gradient_i)`` keeps each step's gradient aligned
   with the reference (alpha = its weight).
3. In testing, an image whose own gradient points elsewhere would need updates that no normal image needed, so its
   grad_loss is high (gamma = its weight in the score).

:class:`GradCon` is the mixin that gives a model all three; the functions above it are the mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solder_vae.models.networks import Network
from solder_vae.models.per_image_gradients import decode_with_gradient_loss
from solder_vae.utils.distributed import all_reduce_sum, world_size


def gradient_loss(gradients: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """Minus the mean cosine between gradients and reference over the layers (Eq. 4).

    Args:
        gradients: one gradient a layer, each of any shape.
        reference: the reference gradients, of the same shapes.

    Returns:
        Scalar in [-1, 1]; -1 when all are aligned.
    """
    cosines = [
        F.cosine_similarity(gradient.flatten(), mean.flatten(), dim=0)
        for gradient, mean in zip(gradients, reference, strict=True)
    ]
    return -torch.stack(cosines).mean()


class ReferenceGradients(nn.Module):
    """Running mean of each decoder convolution's gradient over the training steps (Eq. 4, right).

    Its buffers travel in the checkpoint, so that a resumed run goes on with them and a loaded model can score.
    """

    steps: Tensor

    def __init__(self, convolutions: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        for index, conv in enumerate(convolutions):
            self.register_buffer(f"mean_{index}", torch.zeros_like(conv.weight))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._layers = len(convolutions)

    @property
    def means(self) -> list[Tensor]:
        """The reference gradients, one a layer, input side first."""
        return [self.get_buffer(f"mean_{index}") for index in range(self._layers)]

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor]) -> None:
        """Take one training step's gradients of the full loss J into the running mean."""
        self.steps += 1
        for mean, gradient in zip(self.means, gradients, strict=True):
            mean += (gradient - mean) / self.steps


class GradCon:
    """Mixin for a model with a ``decoder``: the reference, the constraint and the per-image score.

    Call :meth:`track_gradients` in ``__init__`` once the decoder exists. The reference is kept whether or not the
    constraint is trained (alpha = 0), so that every trained model can be scored by GradCon.
    """

    decoder: Network
    reference: ReferenceGradients

    def track_gradients(self) -> None:
        self.reference = ReferenceGradients(self.decoder.convolutions)

    def gradient_constraint(self, recon_loss: Tensor) -> Tensor:
        """L_grad of this training step, differentiable with respect to all parameters; 0 in the first step.

        The divergence does not depend on the decoder, so the gradient of the reconstruction loss is that of L. A cosine
        is not linear: with several ranks it is that of their mean gradient, the same on all.

        Args:
            recon_loss: reconstruction loss, of which the ranks' mean is that of the global batch.
        """
        if self.reference.steps == 0:
            return recon_loss.new_zeros(())
        weights = [conv.weight for conv in self.decoder.convolutions]
        gradients = torch.autograd.grad(recon_loss, weights, create_graph=True)
        return gradient_loss([all_reduce_sum(gradient) / world_size() for gradient in gradients], self.reference.means)

    def update_reference(self) -> None:
        """Update the reference from dJ/dtheta as the optimizer is about to see it.

        By then ``.grad`` is complete (micro-batches accumulated, averaged over the ranks) and not yet clipped, so the
        reference stays equal on all ranks.
        """
        self.reference.update([conv.weight.grad for conv in self.decoder.convolutions])  # type: ignore[misc]

    def decode_and_compare(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions and each image's gradient loss ``(B,)`` against the reference gradients."""
        return decode_with_gradient_loss(self.decoder, z, x, self.reference.means)
