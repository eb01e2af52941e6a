"""CAE, VAE and beta-VAE as LightningModules: the training loop's steps, and what differs between the three."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from solder_vae.models.gradcon import GradCon
from solder_vae.models.losses import squared_error
from solder_vae.models.networks import Decoder, Encoder
from solder_vae.models.precision import FULL
from solder_vae.models.scores import gradcon_score, recon_score
from solder_vae.utils.distributed import loss_weight, world_size
from solder_vae.utils.errors import UserError

log = logging.getLogger(__name__)

TRAINING, VALIDATION = 0, 1  # streams of the reparameterisation noise


Posterior = tuple[Tensor, ...]  # what the encoder says of a batch: (z,) or (mu, logvar)


class ModelOutput(NamedTuple):
    """What a model says of a batch: reconstructions ``(B, 3, H, W)`` in [-1, 1] and each score ``(B,)`` by name."""

    recon: Tensor
    scores: dict[str, Tensor]


def is_number(value: object) -> bool:
    """Whether a config value is a finite number, 0 or greater."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


class CAE(GradCon, pl.LightningModule):
    """Convolutional autoencoder: L is the mean squared error.

    Args:
        beta: must be None; it is here so that ``model=cae beta=3`` is told why not.
        score: the primary score, "recon" or "gradcon": the one whose threshold decides.
        alpha: weight of the gradient constraint in training; 0 trains without it.
        gamma: weight of the gradient loss in the GradCon score.
        latent: latent decoded at test time, "mean" or "sample" (see :mod:`solder_vae.models.scores`).
        draws: latents drawn an image when ``latent="sample"``.
        lr: Adam's initial learning rate.
        weight_decay: L2 penalty.
        lr_factor: factor of the learning rate when the validation loss stops falling ...
        lr_patience: ... for more than this many epochs.
        seed: seeds the reparameterisation noise; each step's noise depends on it and the step alone, so that a
            resumed training goes on exactly as an uninterrupted one.

    Raises:
        UserError: a value does not fit the model.
    """

    name = "cae"
    admitted_scores: tuple[str, ...] = ("recon", "gradcon")
    heads = 1

    def __init__(
        self,
        beta: float | None = None,
        score: str = "recon",
        alpha: float = 0.0,
        gamma: float = 0.12,
        latent: str = "mean",
        draws: int = 1,
        lr: float = 1e-2,
        weight_decay: float = 1e-4,
        lr_factor: float = 0.1,
        lr_patience: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.check_beta(beta)
        if score not in self.admitted_scores:
            raise UserError(
                f"score={score} does not fit model={self.name}: "
                f"use one of {', '.join(f'score={name}' for name in self.admitted_scores)}."
            )
        if latent not in ("mean", "sample"):
            raise UserError(f"score.latent={latent} is unknown: use mean or sample.")
        if draws < 1:
            raise UserError(f"score.draws={draws} is too few: use 1 or more.")
        for key, value in {
            "score.alpha": alpha,
            "score.gamma": gamma,
            "model.lr": lr,
            "model.weight_decay": weight_decay,
        }.items():
            if not is_number(value):
                raise UserError(f"{key} must be a number, 0 or more, got {value!r}.")
        # Plain values only, so that checkpoints load with weights_only=True; the run's config is logged elsewhere.
        self.save_hyperparameters(logger=False)
        self.primary_score, self.alpha, self.gamma = score, alpha, gamma
        self.latent, self.draws = latent, draws if latent == "sample" else 1
        self.seed = seed
        # What travels with the weights, see solder_vae.models.checkpoint.
        self.preprocessing: dict[str, Any] | None = None
        self.precision = FULL  # of the training, see solder_vae.models.precision
        self.decision_state: dict[str, Any] | None = None
        self.encoder = Encoder(self.heads)
        self.decoder = Decoder()
        self.track_gradients()
        # Convolutions are fastest with the channels last in memory.
        self.to(memory_format=torch.channels_last)

    def check_beta(self, beta: float | None) -> None:
        if beta is not None:
            raise UserError(f"model=cae has no KL divergence to weigh: drop beta={beta}, or use model=beta_vae.")

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images ``(B, 3, H, W)`` in [-1, 1] from the mean latent."""
        recon: Tensor = self.decoder(self.encoder(x)[0])
        return recon

    # training ---------------------------------------------------------------------------------------------------

    def noise(self, x: Tensor, stream: int, step: int) -> Tensor:
        """The noise that :meth:`loss_terms` needs for a batch: none here."""
        return x.new_empty(0)

    def loss_terms(self, x: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Posterior]:
        """The objective's terms, averaged over the batch (``loss`` is L, ``recon`` its first term), and the code."""
        (z,) = posterior = self.encoder(x)
        recon = squared_error(x, self.decoder(z)).mean()
        return {"loss": recon, "recon": recon}, posterior

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x = batch["image"]
        terms, _ = self.loss_terms(x, self.noise(x, TRAINING, self.global_step))
        weight = loss_weight(x)
        objective = weight * terms["loss"]  # J = L + alpha * L_grad
        if self.alpha > 0:
            terms["grad_loss"] = self.gradient_constraint(weight * terms["recon"])
            objective = objective + self.alpha * terms["grad_loss"]
        self.log_means("train", terms, x)
        return objective

    def log_means(self, split: str, terms: dict[str, Tensor], images: Tensor) -> None:
        """Log means over this rank's images, to be averaged over an epoch's images.

        Args:
            split: "train" or "val".
            terms: means over this rank's images.
            images: of the batch ``(B, ...)``.
        """
        self.log_dict(
            {f"{split}/{name}": value.detach() for name, value in terms.items()},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            # Lightning averages the ranks' numbers of images, too, and would round down what does not divide evenly.
            batch_size=len(images) * world_size(),
        )

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Posterior]:
        x = batch["image"]
        terms, posterior = self.loss_terms(x, self.noise(x, VALIDATION, batch_idx))
        self.log_means("val", terms, x)
        return {"posterior": posterior}

    def configure_optimizers(self) -> Any:
        hparams = self.hparams
        optimizer = torch.optim.Adam(self.parameters(), hparams["lr"], weight_decay=hparams["weight_decay"], fused=True)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=hparams["lr_factor"], patience=hparams["lr_patience"]
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm of all gradients, or with the algorithm "value" each gradient.

        Lightning's own refuses a fused optimizer in mixed precision, as a scaled loss would need; none is scaled here.
        """
        if not gradient_clip_val or gradient_clip_val < 0:  # no clipping, as for Lightning
            return
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Nothing: Lightning calls this after the epoch's checkpoint is written, and a resumed training would miss
        that epoch's step. :meth:`on_train_epoch_end` comes before the checkpoint."""

    def on_train_epoch_end(self) -> None:
        if (self.current_epoch + 1) % (self.trainer.check_val_every_n_epoch or 1) == 0:
            scheduler: Any = self.lr_schedulers()
            scheduler.step(self.trainer.callback_metrics["val/loss"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model"] = self.name
        checkpoint["preprocessing"] = self.preprocessing
        checkpoint["precision"] = self.precision
        checkpoint["calibration"] = self.decision_state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Not the precision: a training that goes on from the checkpoint may have another.
        self.preprocessing = checkpoint["preprocessing"]
        self.decision_state = checkpoint["calibration"]

    # scoring ----------------------------------------------------------------------------------------------------

    def latents(self, posterior: Posterior) -> list[Tensor]:
        """The latents to decode for scoring, each ``(B, 10, H/8, W/8)``."""
        return [posterior[0]]

    def compute_scores(
        self, x: Tensor, recon: Tensor, grad_loss: Tensor | None, posterior: Posterior
    ) -> dict[str, Tensor]:
        """Every score this model admits, each ``(B,)``."""
        error = recon_score(x, recon)
        scores = {"recon": error}
        if grad_loss is not None:
            scores["gradcon"] = gradcon_score(error, grad_loss, self.gamma)
        return scores

    def score(self, x: Tensor) -> ModelOutput:
        """Reconstruct and score images ``(B, 3, H, W)`` in [-1, 1]; the model must be in evaluation mode.

        GradCon is left out as long as the model has no reference gradients (not trained yet).
        """
        with torch.no_grad():
            posterior = self.encoder(x)
            results = []
            for z in self.latents(posterior):
                if self.reference.steps > 0:
                    recon, grad_loss = self.decode_and_compare(z, x)
                else:
                    recon, grad_loss = self.decoder(z), None
                results.append(ModelOutput(recon, self.compute_scores(x, recon, grad_loss, posterior)))
            return average_draws(results)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The reconstructions of :meth:`score` without its scores, which take far longer for GradCon."""
        return torch.stack([self.decoder(z) for z in self.latents(self.encoder(x))]).mean(0)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return {"index": batch["index"], **self.score(batch["image"]).scores}


def average_draws(results: list[ModelOutput]) -> ModelOutput:
    """Mean of the results of several latent draws."""
    recon = torch.stack([result.recon for result in results]).mean(0)
    scores = {name: torch.stack([result.scores[name] for result in results]).mean(0) for name in results[0].scores}
    return ModelOutput(recon, scores)
