"""What models that reconstruct have in common, and the convolutional autoencoder.

A model of your own is a subclass of :class:`Autoencoder`: docs/project/extending.md.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from solder_vae.models.detector import Detector
from solder_vae.models.gradcon import GradCon
from solder_vae.models.losses import squared_error
from solder_vae.models.networks import Decoder, Encoder, log_scale, make_network
from solder_vae.models.options import (
    AUTOENCODER,
    CODE,
    FEATURE_KINDS,
    HEADS,
    LATENT_CHANNELS,
    LOG_BLOCKS,
    RECONSTRUCTS,
    STRIDE,
    WIDTH,
    Rules,
)
from solder_vae.models.scores import (
    FEATURES,
    GRADIENTS,
    PER_IMAGE,
    SHARED,
    Code,
    GradConScore,
    ModelOutput,
    paper_scores,
    score_with,
)
from solder_vae.utils.errors import UserError

log = logging.getLogger(__name__)

MIRRORS = ((3,), (2,), (2, 3))  # axes of a batch that are turned round
LOG_UNIT = 0.01
"""Of the logarithmic scale: a thirtieth of a channel's typical mean and deviation."""

TRAINING, VALIDATION = 0, 1  # streams of the reparameterisation noise


class Autoencoder(GradCon, Detector):
    """The base of models that reconstruct: encoder, decoder, objective. :mod:`solder_vae.models.steps` trains them.

    A subclass gives its name, ``class VQVAE(Autoencoder, name="vq_vae")``, and its objective (:meth:`loss_terms`). It
    takes plain values by keyword and passes those that it does not know on to this class.

    Args:
        score: the primary score: the one whose threshold decides.
        scores: further scores by name, each with its own parameters, beside the paper's.
        alpha: weight of the gradient constraint in training; 0 trains without it.
        constraint_every: train it in one step of so many alone, with so many times the weight; 1 for each step.
        gamma: weight of the gradient loss in the GradCon score.
        latent: latent decoded at test time, "mean" or "sample" (see :mod:`solder_vae.models.scores`).
        draws: latents drawn an image when ``latent="sample"``.
        noise: of these draws: "shared" by all images, or "per_image".
        encoder: ``_target_`` and arguments of another encoder; None for the paper's with the next three.
        decoder: the same of the decoder.
        latent_channels: channels of the latent map, 10 in the paper.
        width: channels of the first convolution, 16 in the paper.
        head: "block" or "conv", see :class:`~solder_vae.models.networks.Encoder`.
        features: what the scores that compare features read: "blocks", channel means and deviations of the encoder's
            blocks (see :meth:`Network.with_features`), "log_blocks", the same on a logarithmic scale, or "code", the
            code or posterior mean itself.
        flips: average the blocks' features over an image and its three mirror images. A joint is as good in a mirror,
            so neighbours are found in every orientation that a part may be mounted in.
        fast: compute layers by the CPU kernels of :mod:`solder_vae.models.layers`; False for the plain layers.
        lr: initial learning rate of the default optimizer, Adam (a run's is Muon: conf/optimizer/).
        weight_decay: its L2 penalty.
        lr_factor: factor of the learning rate when the validation loss stops falling ...
        lr_patience: ... for more than this many epochs.
        optimizer: ``_target_`` and arguments of another optimizer; None for Adam by the values above.
        scheduler: the same of the learning rate's schedule, with ``interval: epoch`` (default) or ``step``; its
            ``total_steps: null`` becomes the run's number of steps. None for ReduceLROnPlateau by the values above.
        seed: seeds the reparameterisation noise; each step's noise depends on it and the step alone, so that a
            resumed run goes on exactly as an uninterrupted one.

    Raises:
        UserError: a value does not fit the model.
    """

    provides: ClassVar[frozenset[str]] = RECONSTRUCTS
    rules: ClassVar[Rules] = AUTOENCODER
    heads: ClassVar[int] = 1  # of the paper's encoder

    def __init__(
        self,
        score: str = "recon",
        scores: Mapping[str, Mapping[str, Any]] | None = None,
        alpha: float = 0.0,
        constraint_every: int = 1,
        gamma: float = 0.12,
        latent: str = "mean",
        draws: int = 1,
        noise: str = SHARED,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        latent_channels: int = LATENT_CHANNELS,
        width: int = WIDTH,
        head: str = HEADS[0],
        features: str = FEATURE_KINDS[0],
        flips: bool = True,
        fast: bool = True,
        lr: float = 1e-2,
        weight_decay: float = 1e-4,
        lr_factor: float = 0.1,
        lr_patience: int = 10,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.alpha, self.constraint_every = alpha, constraint_every
        self.latent, self.draws = latent, draws if latent == "sample" else 1
        self.own_noise = latent == "sample" and noise == PER_IMAGE
        self.seed = seed
        self.step = 0  # training steps so far, kept by the loop
        self.features, self.flips = features, flips
        paper = None if encoder else Encoder(self.heads, latent_channels, width, head)
        self.encoder = make_network(encoder, paper, "model.encoder")
        self.stride = self.encoder.stride
        if encoder and not decoder and self.stride != STRIDE:
            raise UserError(
                f"The maps of model.encoder are {self.stride} times smaller than an image, and the paper's decoder "
                f"enlarges {STRIDE} times: name one that fits by model.decoder."
            )
        paper_decoder = None if decoder else Decoder(self.encoder.latent_channels, width)
        self.decoder = make_network(decoder, paper_decoder, "model.decoder")
        self.encoder.fast = self.decoder.fast = fast
        if not self.decoder.convolutions and (alpha > 0 or score == GradConScore.name):
            others = [name for name in paper_scores(self.provides) if name != GradConScore.name]
            raise UserError(
                "GradCon needs a decoder that names its convolutions, and model.decoder names none: "
                f"use score={' or score='.join(others)}, with score.alpha=0."
            )
        self.track_gradients()
        provides = self.provides if self.decoder.convolutions else self.provides - {GRADIENTS}
        self.make_scores(score, scores or {}, provides, own={GradConScore.name: {"gamma": gamma}})
        # Convolutions are fastest with the channels last in memory.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images ``(B, 3, H, W)`` in [-1, 1] from the mean latent."""
        recon: Tensor = self.decoder(self.latents_at(self.encode(x), "mean")[0])
        return recon

    # what a model is -------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Code:
        """The encoder's output for images ``(B, 3, H, W)``: (z,) or (mu, logvar), each ``(B, C, H/8, W/8)``."""
        code: Code = self.encoder(x)
        if not isinstance(code, tuple) or len(code) < self.heads or len(code) > self.heads > 1:
            given = f"{len(code)} in a tuple" if isinstance(code, tuple) else "no tuple"
            wanted = "(z,)" if self.heads == 1 else "(mu, logvar)"
            raise UserError(f"model.encoder gives {given} where model={self.name} needs {wanted}.")
        return code

    def encode_with_features(self, x: Tensor) -> tuple[Code, Tensor]:
        """:meth:`encode` and :meth:`describe` in one pass."""
        if self.features == CODE:
            code = self.encode(x)
            return code, code[0].flatten(1)
        code, features = self.encoder.with_features(x)
        if self.flips:
            mirrored = [self.encoder.with_features(x.flip(axes))[1] for axes in MIRRORS]
            features = torch.stack([features, *mirrored]).mean(0)
        return code, log_scale(features, LOG_UNIT) if self.features == LOG_BLOCKS else features

    @torch.no_grad()
    def describe(self, x: Tensor) -> Tensor:
        return self.encode_with_features(x)[1]

    def noise(self, x: Tensor, stream: int, step: int) -> Tensor:
        """The noise that :meth:`loss_terms` needs for a batch: none here."""
        return x.new_empty(0)

    def loss_terms(self, x: Tensor, noise: Tensor, code: Code | None = None) -> tuple[dict[str, Tensor], Code]:
        """The objective's terms, averaged over the batch, and the code.

        Args:
            x: images ``(B, 3, H, W)`` in [-1, 1].
            noise: see :meth:`noise`.
            code: of the images, where it is known already.

        Returns:
            ``loss`` is L; ``recon``, the reconstruction error, is what the gradient constraint differentiates; further
            terms are logged. And the code.
        """
        raise NotImplementedError

    def latents_at(self, code: Code, latent: str) -> list[Tensor]:
        """The latents to decode, each ``(B, C, H/8, W/8)``: the mean one, or ``draws`` sampled ones."""
        return [code[0]]

    def scored_latents(self, code: Code, x: Tensor) -> list[Tensor]:
        """The latents that images ``x`` are scored by: those of :meth:`latents_at`, for whom the noise is shared."""
        return self.latents_at(code, self.latent)

    def divergence(self, code: Code, pixels: int) -> Tensor | None:
        """Each image's divergence as it enters the objective, weight included, ``(B,)``; None without one.

        Args:
            code: of the images.
            pixels: number of values in an image, ``C * H * W``.
        """
        return None

    def start_training(self, images: int) -> None:
        """What is to be done before the first step of a run, which has so many training images: nothing here."""

    def validation_terms(self, x: Tensor, code: Code, step: int) -> dict[str, Tensor]:
        """The objective's terms on the ``step``-th validation batch."""
        terms, _ = self.loss_terms(x, self.noise(x, VALIDATION, step), code)
        return terms

    @property
    def parts(self) -> list[Any]:
        return [*super().parts, self.encoder, self.decoder]

    # scoring ----------------------------------------------------------------------------------------------------

    def score(
        self,
        x: Tensor,
        names: Collection[str] | None = None,
        needs: Collection[str] = frozenset(),
        types: Sequence[str] | None = None,
    ) -> ModelOutput:
        """See :meth:`Detector.score`. GradCon is left out as long as there are no reference gradients (not trained)."""
        return average_draws(self.score_draws(x, names, needs, types))

    def score_draws(
        self,
        x: Tensor,
        names: Collection[str] | None = None,
        needs: Collection[str] = frozenset(),
        types: Sequence[str] | None = None,
    ) -> list[ModelOutput]:
        """What :meth:`score` averages: the output of each latent that is drawn, one for the mean latent."""
        wanted = self.chosen_scores(names)
        if self.reference.steps == 0:
            wanted = {name: score for name, score in wanted.items() if GRADIENTS not in score.needs}
        needs = {*needs}.union(*(score.needs for score in wanted.values()))
        with torch.no_grad():
            code, features = self.encode_with_features(x) if FEATURES in needs else (self.encode(x), None)
            divergence = self.divergence(code, x[0].numel())
            outputs = []
            for z in self.scored_latents(code, x):
                recon, grad_loss = self.decode_and_compare(z, x) if GRADIENTS in needs else (self.decoder(z), None)
                error = squared_error(x, recon)
                output = ModelOutput(x, code, recon, error, divergence, grad_loss, {}, features, types=types)
                outputs.append(score_with(output, wanted))
            return outputs

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The reconstructions of :meth:`score` without its scores, which take far longer for GradCon."""
        recon = self.score(x, names=()).recon
        assert recon is not None
        return recon


def average_draws(outputs: list[ModelOutput]) -> ModelOutput:
    """The mean of the outputs of several latent draws."""
    if len(outputs) == 1:
        return outputs[0]

    def mean(values: list[Tensor | None]) -> Tensor:
        return torch.stack([value for value in values if value is not None]).mean(0)

    first = outputs[0]
    return first._replace(
        recon=mean([output.recon for output in outputs]),
        error=mean([output.error for output in outputs]),
        grad_loss=None if first.grad_loss is None else mean([output.grad_loss for output in outputs]),
        scores={name: mean([output.scores[name] for output in outputs]) for name in first.scores},
    )


class CAE(Autoencoder, name="cae"):
    """Convolutional autoencoder: L is the mean squared error. Its arguments are those of :class:`Autoencoder`."""

    def loss_terms(self, x: Tensor, noise: Tensor, code: Code | None = None) -> tuple[dict[str, Tensor], Code]:
        code = self.encode(x) if code is None else code
        recon = squared_error(x, self.decoder(code[0])).mean()
        return {"loss": recon, "recon": recon}, code
