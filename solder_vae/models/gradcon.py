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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solder_vae.models.layers.convolution import weight_gradients_loop
from solder_vae.models.losses import squared_error
from solder_vae.models.networks import Network
from solder_vae.utils.distributed import all_reduce_sum, world_size


@contextmanager
def recorded_convolutions(decoder: Network) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect the input and the output of each decoder convolution during the forward passes inside the block."""
    record: list[tuple[Tensor, Tensor]] = []

    def remember(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        record.append((inputs[0], output))

    handles = [conv.register_forward_hook(remember) for conv in decoder.convolutions]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def decode_with_gradient_loss(
    decoder: Network, z: Tensor, x: Tensor, reference: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Reconstructions, and each image's own gradient loss: Eq. 4 with the gradient of that image's squared error.

    One batched forward and backward pass gives every image's gradient with respect to each convolution's *output*,
    because batch norm in evaluation mode treats the images independently. With the inputs they make each image's
    weight gradient, or just its inner product with the reference and its norm: :func:`weight_gradient_cosine`.

    Args:
        decoder: in evaluation mode.
        z: latents ``(B, 10, H/8, W/8)``.
        x: images ``(B, 3, H, W)`` in [-1, 1].
        reference: reference gradients, one a layer.

    Returns:
        Reconstructions of the shape of ``x``, and gradient losses ``(B,)`` in [-1, 1]; both detached.

    Raises:
        RuntimeError: the decoder is in training mode, where batch norm mixes the images, or inference mode is on.
    """
    if decoder.training:
        raise RuntimeError("per-image gradients need decoder.eval(): batch norm in training mode mixes the images")
    if torch.is_inference_mode_enabled():
        raise RuntimeError("GradCon needs gradients: use torch.no_grad(), or Trainer(inference_mode=False)")
    with torch.enable_grad(), recorded_convolutions(decoder) as record:
        # z asks for a gradient only so that autograd records the layers' outputs even when the weights are frozen.
        recon = decoder(z.detach().requires_grad_())
        error = squared_error(x, recon).sum()
        output_gradients = torch.autograd.grad(error, [output for _, output in record])
    cosines = [
        weight_gradient_cosine(inputs.detach(), output_gradient, mean)
        for (inputs, _), output_gradient, mean in zip(record, output_gradients, reference, strict=True)
    ]
    return recon.detach(), -torch.stack(cosines).mean(0)


def weight_gradient_cosine(inputs: Tensor, output_gradients: Tensor, reference: Tensor) -> Tensor:
    """Cosine of each image's weight gradient of one 3x3 convolution (padding 1) with a reference.

    Args:
        inputs: the convolution's inputs ``(B, I, H, W)``.
        output_gradients: gradients with respect to its outputs ``(B, O, H, W)``.
        reference: ``(O, I, 3, 3)``.

    Returns:
        ``(B,)`` in [-1, 1].
    """
    channels_out, channels_in = reference.shape[:2]
    pixels = inputs.shape[-2] * inputs.shape[-1]
    # The Gram matrices of a small map are cheaper than the gradient of a wide layer, though their products are narrow.
    small = 4 * pixels * (channels_in + channels_out) < 9 * channels_in * channels_out
    product_and_square = dot_and_norm_from_gram if small else dot_and_norm_from_gradients
    dot, square = product_and_square(inputs, output_gradients, reference)
    cosines: Tensor = dot / (square.sqrt().clamp_min(1e-12) * reference.norm().clamp_min(1e-12))
    return cosines


def dot_and_norm_from_gradients(inputs: Tensor, output_gradients: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Inner product with the reference and squared norm of each image's weight gradient, each ``(B,)``."""
    # An exported graph knows no such kernel, and a loop over the images would fix the batch's size.
    looping = inputs.device.type == "cpu" and not torch.compiler.is_compiling()
    gradients = (weight_gradients_loop if looping else weight_gradients_unfold)(
        inputs, output_gradients, reference
    ).flatten(1)
    return gradients @ reference.flatten(), gradients.square().sum(1)


def weight_gradients_unfold(inputs: Tensor, output_gradients: Tensor, weight: Tensor) -> Tensor:
    """What :func:`weight_gradients_loop` returns, for all images at once.

    The product of the output gradients' patches with the inputs: that is the usual product of the inputs' patches with
    the output gradients with its taps reversed, and the outputs are the fewer channels here.
    """
    patches = F.unfold(output_gradients, kernel_size=3, padding=1)  # (B, O * 9, HW)
    gradients = torch.bmm(patches, pixel_rows(inputs))
    return gradients.reshape(-1, len(weight), 3, 3, weight.shape[1]).permute(0, 1, 4, 2, 3).flip(3, 4)


def dot_and_norm_from_gram(inputs: Tensor, output_gradients: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`dot_and_norm_from_gradients` returns, without the gradients.

    An image's gradient is ``sum_p g_p patch_p^T`` over the pixels p. So its inner product with the reference is
    ``sum_p g_p . (reference * inputs)_p``, one convolution with the reference as its kernel, and its squared norm is
    ``sum_pq (g_p . g_q) (patch_p . patch_q)``. A product of patches is the sum over the taps t of the products of
    pixels p + t and q + t, so it follows from the pixels' Gram matrix, one axis after the other.
    """
    dot = (F.conv2d(inputs, reference, padding=1) * output_gradients).sum((1, 2, 3))
    batch, _, height, width = inputs.shape
    gram, gradient_gram = (
        torch.bmm(rows, rows.mT).reshape(batch, height, width, height, width)
        for rows in (pixel_rows(inputs), pixel_rows(output_gradients))
    )
    for axis in (1, 2):
        padded = F.pad(gram.movedim((axis, axis + 2), (3, 4)), (1, 1, 1, 1))
        size = gram.shape[axis]
        taps = torch.stack([padded[..., tap : tap + size, tap : tap + size] for tap in range(3)]).sum(0)
        gram = taps.movedim((3, 4), (axis, axis + 2))
    return dot, (gram * gradient_gram).sum((1, 2, 3, 4)).clamp_min(0)


def pixel_rows(maps: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``(B, HW, C)``."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


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
    alpha: float
    constraint_every: int

    def track_gradients(self) -> None:
        self.reference = ReferenceGradients(self.decoder.convolutions)

    def alpha_of(self, step: int) -> float:
        """The constraint's weight in a training step: of ``constraint_every`` = k steps the last has k alpha, others 0.

        Its gradient costs more than the rest of a step, and has the same mean so (lazy regularisation: Karras et al.,
        "Analyzing and Improving the Image Quality of StyleGAN", 2020, section 3.2).
        """
        return 0.0 if (step + 1) % self.constraint_every else self.constraint_every * self.alpha

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
