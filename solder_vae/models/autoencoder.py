"""What every model has in common, and the convolutional autoencoder.

A model of your own is a subclass of :class:`Autoencoder`: docs/project/extending.md.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from solder_vae.models.gradcon import GradCon
from solder_vae.models.losses import squared_error
from solder_vae.models.networks import HEADS, LATENT_CHANNELS, WIDTH, Decoder, Encoder, make_network
from solder_vae.models.precision import FULL
from solder_vae.models.scores import (
    GRADIENTS,
    PAPER_SCORES,
    Code,
    GradConScore,
    ModelOutput,
    Score,
    average_draws,
    make_score,
)
from solder_vae.utils.checks import check_whole_number, is_number
from solder_vae.utils.errors import UserError

log = logging.getLogger(__name__)

TRAINING, VALIDATION = 0, 1  # streams of the reparameterisation noise


class Autoencoder(GradCon, nn.Module):
    """The base of all models: encoder, decoder, objective, scores. How it is trained: :mod:`solder_vae.models.steps`.

    A subclass gives its name, ``class VQVAE(Autoencoder, name="vq_vae")``, and its objective (:meth:`loss_terms`). It
    takes plain values by keyword and passes those that it does not know on to this class.

    Args:
        score: the primary score: the one whose threshold decides.
        scores: further scores by name, each with its own parameters, beside the paper's.
        alpha: weight of the gradient constraint in training; 0 trains without it.
        gamma: weight of the gradient loss in the GradCon score.
        latent: latent decoded at test time, "mean" or "sample" (see :mod:`solder_vae.models.scores`).
        draws: latents drawn an image when ``latent="sample"``.
        encoder: ``_target_`` and arguments of another encoder; None for the paper's with the next three.
        decoder: the same of the decoder.
        latent_channels: channels of the latent map, 10 in the paper.
        width: channels of the first convolution, 16 in the paper.
        head: "block" or "conv", see :class:`~solder_vae.models.networks.Encoder`.
        fast: compute layers by the CPU kernels of :mod:`solder_vae.models.layers`; False for the plain layers.
        lr: initial learning rate of the default optimizer, Adam.
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

    registry: ClassVar[dict[str, type[Autoencoder]]] = {}
    name: ClassVar[str]
    provides: ClassVar[frozenset[str]] = frozenset({GRADIENTS})  # to scores, see solder_vae.models.scores.Score.needs
    heads: ClassVar[int] = 1  # of the paper's encoder
    hparams: dict[str, Any]  # what makes the model anew from a checkpoint, which holds plain values only

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:  # checkpoints hold the name, not a path: loading must not import what a file says
            cls.name = name
            Autoencoder.registry[name] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        model = super().__new__(cls)
        model.hparams = arguments(cls, args, kwargs)
        return model

    def __init__(
        self,
        score: str = "recon",
        scores: Mapping[str, Mapping[str, Any]] | None = None,
        alpha: float = 0.0,
        gamma: float = 0.12,
        latent: str = "mean",
        draws: int = 1,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        latent_channels: int = LATENT_CHANNELS,
        width: int = WIDTH,
        head: str = HEADS[0],
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
        if latent not in ("mean", "sample"):
            raise UserError(f"score.latent={latent} is unknown: use mean or sample.")
        for key, value, least in (
            ("score.draws", draws, 1),
            ("model.latent_channels", latent_channels, 1),
            ("model.width", width, 1),
            ("model.lr_patience", lr_patience, 0),
            ("model.seed", seed, 0),
        ):
            check_whole_number(key, value, least)
        for key, number in {
            "score.alpha": alpha,
            "score.gamma": gamma,
            "model.lr": lr,
            "model.weight_decay": weight_decay,
        }.items():
            if not is_number(number):
                raise UserError(f"{key} must be a number, 0 or more, got {number!r}.")
        if not is_number(lr_factor) or not 0 < lr_factor < 1:
            raise UserError(f"model.lr_factor={lr_factor} does not fit: use a number between 0 and 1.")
        for key, part in {
            "model.encoder": encoder,
            "model.decoder": decoder,
            "model.optimizer": optimizer,
            "model.scheduler": scheduler,
        }.items():
            if not isinstance(part, Mapping | None):
                raise UserError(f"{key}={part} does not fit: use a _target_ and its arguments, or null.")
        self.primary_score, self.alpha = score, alpha
        self.latent, self.draws = latent, draws if latent == "sample" else 1
        self.seed = seed
        self.step = 0  # training steps so far, kept by the loop
        # What travels with the weights, see solder_vae.models.checkpoint.
        self.preprocessing: dict[str, Any] | None = None
        self.precision = FULL  # of training, see solder_vae.models.precision
        self.decision_state: dict[str, Any] | None = None
        paper = None if encoder else Encoder(self.heads, latent_channels, width, head)
        self.encoder = make_network(encoder, paper, "model.encoder")
        self.decoder = make_network(decoder, None if decoder else Decoder(latent_channels, width), "model.decoder")
        self.encoder.fast = self.decoder.fast = fast
        if alpha > 0 and not self.decoder.convolutions:
            raise UserError(
                f"score.alpha={alpha} does not fit the decoder, which names no convolutions for GradCon: use 0."
            )
        self.track_gradients()
        self.scores = self.make_scores(scores or {}, gamma)
        # Convolutions are fastest with the channels last in memory.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def make_scores(self, extra: Mapping[str, Mapping[str, Any]], gamma: float) -> dict[str, Score]:
        """The scores that the model is tested under: the paper's that it admits, and further ones.

        Raises:
            UserError: one does not fit the model, or the primary one is not among them.
        """
        provides = self.provides if self.decoder.convolutions else self.provides - {GRADIENTS}
        own = {GradConScore.name: {"gamma": gamma}}
        admitted = [kind.name for kind in PAPER_SCORES if kind.needs <= provides]
        wanted = list(dict.fromkeys([*admitted, *extra]))
        if self.primary_score not in wanted:
            raise UserError(
                f"score={self.primary_score} does not fit model={self.name}: "
                f"use one of {', '.join(f'score={name}' for name in wanted)}."
            )
        scores = {name: make_score(name, {**own.get(name, {}), **extra.get(name, {})}) for name in wanted}
        for name, score in scores.items():
            if missing := score.needs - provides:
                raise UserError(f"score={name} needs a {' and '.join(sorted(missing))}, which model={self.name} lacks.")
        return scores

    @property
    def admitted_scores(self) -> tuple[str, ...]:
        """Names of the scores that the model is tested under."""
        return tuple(self.scores)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images ``(B, 3, H, W)`` in [-1, 1] from the mean latent."""
        recon: Tensor = self.decoder(self.latents_at(self.encode(x), "mean")[0])
        return recon

    # what a model is -------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Code:
        """The encoder's output for images ``(B, 3, H, W)``: (z,) or (mu, logvar), each ``(B, C, H/8, W/8)``."""
        code: Code = self.encoder(x)
        return code

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

    def validation_summary(self) -> dict[str, float]:
        """What a validation says beside the means of its terms; the next one starts anew."""
        return {}

    def diagnostics(self) -> dict[str, NDArray[Any]]:
        """Numbers of the latest validation by name, one value for each latent unit; each name becomes a CSV file."""
        return {}

    # checkpoints ------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model"] = self.name
        checkpoint["preprocessing"] = self.preprocessing
        checkpoint["precision"] = self.precision
        checkpoint["calibration"] = self.decision_state
        checkpoint["plugins"] = self.plugins
        checkpoint["scores"] = {name: score.state() for name, score in self.scores.items() if score.fitted}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Not the precision: a run that goes on from the checkpoint may have another.
        self.preprocessing = checkpoint["preprocessing"]
        self.decision_state = checkpoint["calibration"]
        for name, state in checkpoint.get("scores", {}).items():  # not in files of earlier versions
            if name in self.scores and state:
                self.scores[name].load_state(state)

    @property
    def plugins(self) -> list[str]:
        """The modules outside this package that the model is made of: loading it needs them to be imported."""
        parts = [self, self.encoder, self.decoder, *self.scores.values()]
        return sorted({type(part).__module__ for part in parts if not type(part).__module__.startswith("solder_vae.")})

    # scoring ----------------------------------------------------------------------------------------------------

    def score(self, x: Tensor, names: Collection[str] | None = None, code: Code | None = None) -> ModelOutput:
        """Reconstruct and score images ``(B, 3, H, W)`` in [-1, 1]; the model must be in evaluation mode.

        Args:
            x: the images.
            names: of the scores to compute; all by default. GradCon is left out as long as the model has no reference
                gradients (not trained yet).
            code: of the images, where it is known already.
        """
        wanted = {name: score for name, score in self.scores.items() if names is None or name in names}
        if self.reference.steps == 0:
            wanted = {name: score for name, score in wanted.items() if GRADIENTS not in score.needs}
        gradients = any(GRADIENTS in score.needs for score in wanted.values())
        with torch.no_grad():
            code = self.encode(x) if code is None else code
            divergence = self.divergence(code, x[0].numel())
            outputs = []
            for z in self.latents_at(code, self.latent):
                recon, grad_loss = self.decode_and_compare(z, x) if gradients else (self.decoder(z), None)
                output = ModelOutput(x, code, recon, squared_error(x, recon), divergence, grad_loss, {})
                outputs.append(output._replace(scores={name: score(output) for name, score in wanted.items()}))
            return average_draws(outputs)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The reconstructions of :meth:`score` without its scores, which take far longer for GradCon."""
        return self.score(x, names=()).recon


def arguments(kind: type[Autoencoder], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is called with, by name, and the defaults of what it is not called with, its bases' included."""
    values: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Autoencoder) and "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters
            values |= {name: item.default for name, item in parameters.items() if item.default is not item.empty}
    signature = inspect.signature(kind.__init__)
    bound = signature.bind_partial(None, *args, **kwargs).arguments
    for name, value in list(bound.items())[1:]:
        values |= value if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return values


class CAE(Autoencoder, name="cae"):
    """Convolutional autoencoder: L is the mean squared error. Its arguments are those of :class:`Autoencoder`."""

    def loss_terms(self, x: Tensor, noise: Tensor, code: Code | None = None) -> tuple[dict[str, Tensor], Code]:
        code = self.encode(x) if code is None else code
        recon = squared_error(x, self.decoder(code[0])).mean()
        return {"loss": recon, "recon": recon}, code
