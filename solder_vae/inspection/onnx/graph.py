"""A whole inspection as one graph of tensor operations, from camera pixels to the decision, ready to be exported.

Everything is written in operations that an exporter can trace. What autograd does elsewhere is written out here:
GradCon's per-image gradients are the decoder's backward pass in closed form (:func:`decode_with_gradient_loss`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solder_vae.data.controlled import controlled_batch
from solder_vae.data.transforms import CONTROLLED
from solder_vae.evaluation.anomaly_map import output_map
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.onnx.resize import prepare_batch
from solder_vae.models.autoencoder import Autoencoder, average_draws
from solder_vae.models.gradcon import weight_gradient_cosine
from solder_vae.models.layers.blocks import BicubicUpsample2x, bicubic_matrix
from solder_vae.models.losses import squared_error
from solder_vae.models.networks import Decoder
from solder_vae.models.scores import FEATURES, GRADIENTS, ModelOutput, Score, score_with

OUTPUTS = ("score", "label", "heat_map")


class InspectionGraph(nn.Module):
    """Pixels to decisions, preparation and threshold included, as the :class:`~solder_vae.Inspector` takes them.

    Args:
        inspector: whose model, primary score, threshold and unit of the heat map to use.
    """

    threshold: Tensor

    def __init__(self, inspector: Inspector) -> None:
        super().__init__()
        self.model = inspector.model
        self.score = self.model.scores[inspector.primary]
        self.image_size, self.view, self.crop = inspector.image_size, inspector.view, inspector.crop
        self.map_scale = inspector.map_scale
        # In double precision, as everywhere: rounded to single, the threshold could fall below the score that set it.
        self.register_buffer("threshold", torch.tensor(inspector.threshold.value, dtype=torch.float64))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inspect images.

        Args:
            images: ``(B, H, W, 3)`` uint8 RGB, all of one size, any size.

        Returns:
            Scores ``(B,)`` float32, labels ``(B,)`` int64 (1 = abnormal), and heat maps ``(B, S, S)`` float32 in the
            checkpoint's unit, in which 99 % of the pixels of validation normals are below 1.
        """
        x = self.prepared(images) / 127.5 - 1
        wanted = self.model.chosen_scores([self.score.name])
        model = self.model
        result = reconstructed(model, x, wanted) if isinstance(model, Autoencoder) else model.score_traced(x, wanted)
        score = result.scores[self.score.name]
        return score, (score.double() > self.threshold).long(), output_map(result) / self.map_scale

    def prepared(self, images: Tensor) -> Tensor:
        """The view's images ``(B, 3, S, S)`` float32 in [0, 255], as ``apply_view`` makes them."""
        if self.view == CONTROLLED:
            return controlled_batch(images, self.image_size, self.crop)[:, None].repeat(1, 3, 1, 1)
        return prepare_batch(images, self.image_size, self.crop).permute(0, 3, 1, 2)


def reconstructed(model: Autoencoder, x: Tensor, wanted: Mapping[str, Score]) -> ModelOutput:
    """What :meth:`Autoencoder.score <solder_vae.models.autoencoder.Autoencoder.score>` gives, without autograd."""
    needs = {need for score in wanted.values() for need in score.needs}
    code, features = model.encode_with_features(x) if FEATURES in needs else (model.encode(x), None)
    decoder = cast(Decoder, model.decoder)
    divergence = model.divergence(code, x[0].numel())
    outputs = []
    for z in model.latents_at(code, model.latent):
        if GRADIENTS in needs:
            recon, grad_loss = decode_with_gradient_loss(decoder, z, x, model.reference.means)
        else:
            recon, grad_loss = model.decoder(z), None
        output = ModelOutput(x, code, recon, squared_error(x, recon), divergence, grad_loss, {}, features)
        outputs.append(score_with(output, wanted))
    return average_draws(outputs)


class Step(NamedTuple):
    """One decoder block after the forward pass: the convolution's input, and d output / d convolution's output."""

    inputs: Tensor
    slope: Tensor


def decode_with_gradient_loss(
    decoder: Decoder, z: Tensor, x: Tensor, reference: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """What :func:`solder_vae.models.gradcon.decode_with_gradient_loss` computes, without autograd.

    The backward pass of a block in evaluation mode: activation and batch norm scale the gradient element by element;
    the convolution's adjoint is a convolution with the kernel flipped and its two channel axes swapped; the
    upsampling's adjoint is the two products with its matrices transposed.
    """
    steps: list[Step | None] = []  # None: an upsampling
    hidden = z
    for layer in decoder.layers:
        if isinstance(layer, BicubicUpsample2x):
            steps.append(None)
            hidden = layer(hidden)
        else:
            output, slope = _block(cast(nn.Sequential, layer), hidden)
            steps.append(Step(hidden, slope))
            hidden = output
    recon = hidden

    gradient = 2 / x[0].numel() * (recon - x)  # of each image's mean squared error
    convolutions, means = list(decoder.convolutions), list(reference)
    cosines = []
    for step in reversed(steps):
        if step is None:
            gradient = _downsample(gradient)
            continue
        conv, mean = convolutions.pop(), means.pop()
        gradient = gradient * step.slope
        cosines.append(weight_gradient_cosine(step.inputs, gradient, mean))
        gradient = F.conv2d(gradient, conv.weight.flip(2, 3).transpose(0, 1), padding=1)
    return recon, -torch.stack(cosines).mean(0)


def _block(block: nn.Sequential, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Output of convolution, batch norm and activation, and its derivative by the convolution's output."""
    conv, norm, activation = block
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None, None]
    normed = norm(conv(inputs))
    if isinstance(activation, nn.Tanh):
        output = torch.tanh(normed)
        return output, gain * (1 - output.square())
    assert isinstance(activation, nn.LeakyReLU)
    return F.leaky_relu(normed, activation.negative_slope), torch.where(
        normed > 0, gain, gain * activation.negative_slope
    )


def _downsample(gradient: Tensor) -> Tensor:
    """Adjoint of :class:`BicubicUpsample2x`: ``(B, C, 2H, 2W)`` to ``(B, C, H, W)``."""
    height, width = gradient.shape[-2] // 2, gradient.shape[-1] // 2
    rows = bicubic_matrix(height, gradient.device, gradient.dtype)
    columns = bicubic_matrix(width, gradient.device, gradient.dtype)
    return rows.T @ gradient @ columns
