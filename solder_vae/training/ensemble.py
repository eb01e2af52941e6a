"""Several runs trained as one: K members of one architecture, stacked along a leading axis and vectorised by ``vmap``.

One such network is too small to keep a GPU busy; K of them side by side use more of it. Members differ in seed and, for
the beta-VAE, in beta. Each has its own weights, batch-norm statistics, reference gradients, learning-rate schedule and
best epoch, and all see the same batches, those of ``data.seed``. So member k ends, within float error, where a run of
its own would:
``seed=<its seed> beta=<its beta> data.seed=<the ensemble's>``.

The members' objectives are summed over K. The gradient of that sum with respect to one member's weights is the gradient
of that member's own objective.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from solder_vae.data.datamodule import Batch, SolderDataModule
from solder_vae.models.autoencoder import CAE, TRAINING, VALIDATION, Autoencoder
from solder_vae.models.precision import FULL
from solder_vae.models.vae import VAE, BetaVAE
from solder_vae.utils.checks import check_whole_number
from solder_vae.utils.errors import UserError

log = logging.getLogger(__name__)

Stacked = dict[str, Tensor]  # by the name in the model's state, each (K, ...)
ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8


@dataclass
class Member:
    """One member after training: its best epoch and its history, by the names that solo runs log."""

    best_loss: float = float("inf")
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class _Losses(nn.Module):
    """Gives :func:`functional_call` a ``forward`` that computes a model's losses."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        terms, _ = self.model.loss_terms(x, noise)
        return {name: terms[name] for name in terms if name != "loss"}  # L needs each member's own beta


class Ensemble:
    """K models stacked for training.

    Args:
        models: of one class, differing in seed and beta only; they are not changed.
        device: where to train.
    """

    def __init__(self, models: Sequence[Autoencoder], device: torch.device) -> None:
        # vmap has no batch norm for channels last on a GPU.
        self.models = [copy.deepcopy(model) for model in models]
        for model in self.models:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        first = self.models[0]
        self.alpha, self.weight_decay = first.alpha, float(first.hparams["weight_decay"])
        self.device = device
        self.losses = _Losses(first).to(device)
        self.params, self.buffers = stack_module_state([_Losses(model).to(device) for model in self.models])
        betas = [float(model.hparams.get("beta") or 0) for model in self.models]
        self.beta = torch.tensor(betas, dtype=torch.float64, device=device)
        self.moments = [{name: torch.zeros_like(value) for name, value in self.params.items()} for _ in range(2)]
        self.schedules = [plateau_schedule(model) for model in self.models]
        self.steps = 0

    def __len__(self) -> int:
        return len(self.models)

    def terms(self, x: Tensor, stream: int, step: int) -> Stacked:
        """The members' losses on one batch, each ``(K,)``: ``loss`` is L."""
        x = x.contiguous()
        noise = torch.stack([model.noise(x, stream, step) for model in self.models])

        def losses(params: Stacked, buffers: Stacked, noise: Tensor) -> Stacked:
            result: Stacked = functional_call(self.losses, (params, buffers), (x, noise))
            return result

        terms: Stacked = vmap(losses)(self.params, self.buffers, noise)
        terms["loss"] = terms["recon"] + (self.beta.to(terms["kl"]) * terms["kl"] if "kl" in terms else 0)
        return terms

    def train_step(self, x: Tensor) -> Stacked:
        """One step of every member on images ``(B, 3, H, W)``; the terms before it, each ``(K,)``."""
        self.losses.train()
        terms = self.terms(x, TRAINING, self.steps)
        objective = terms["loss"]
        if self.alpha > 0:
            terms["grad_loss"] = self.gradient_constraint(terms["recon"])
            objective = objective + self.alpha * terms["grad_loss"]
        gradients = torch.autograd.grad(objective.sum(), list(self.params.values()))
        self.update_reference(dict(zip(self.params, gradients, strict=True)))
        self.adam_step(gradients)
        return {name: value.detach() for name, value in terms.items()}

    @property
    def decoder_weights(self) -> list[str]:
        """Names of the decoder's convolution weights, in the order of the reference gradients."""
        return [name for name, value in self.params.items() if name.startswith("model.decoder.") and value.ndim == 5]

    def gradient_constraint(self, recon: Tensor) -> Tensor:
        """L_grad of every member ``(K,)``: Eq. 4, member by member."""
        if self.steps == 0:
            return torch.zeros_like(recon)
        gradients = torch.autograd.grad(
            recon.sum(), [self.params[name] for name in self.decoder_weights], create_graph=True
        )
        cosines = [
            F.cosine_similarity(gradient.flatten(1), self.buffers[f"model.reference.mean_{layer}"].flatten(1), dim=1)
            for layer, gradient in enumerate(gradients)
        ]
        return -torch.stack(cosines).mean(0)

    @torch.no_grad()
    def update_reference(self, gradients: Stacked) -> None:
        self.buffers["model.reference.steps"] += 1
        for layer, name in enumerate(self.decoder_weights):
            mean = self.buffers[f"model.reference.mean_{layer}"]
            mean += (gradients[name] - mean) / (self.steps + 1)

    @torch.no_grad()
    def adam_step(self, gradients: Sequence[Tensor]) -> None:
        """Adam (Kingma and Ba 2015, algorithm 1) with L2 penalty, each member at its own learning rate."""
        self.steps += 1
        rates = torch.tensor([schedule.get_last_lr()[0] for schedule in self.schedules], dtype=torch.float64)
        correction = [1 - beta**self.steps for beta in ADAM_BETAS]
        for (name, weight), gradient in zip(self.params.items(), gradients, strict=True):
            gradient = gradient + self.weight_decay * weight
            first, second = (moments[name] for moments in self.moments)
            first.lerp_(gradient, 1 - ADAM_BETAS[0])
            second.mul_(ADAM_BETAS[1]).addcmul_(gradient, gradient, value=1 - ADAM_BETAS[1])
            step = (first / correction[0]) / ((second / correction[1]).sqrt() + ADAM_EPS)
            weight -= rates.to(weight).reshape(-1, *[1] * (weight.ndim - 1)) * step

    @torch.no_grad()
    def validation_terms(self, x: Tensor, step: int) -> Stacked:
        """The members' losses on the ``step``-th validation batch, each ``(K,)``."""
        self.losses.eval()
        return self.terms(x, VALIDATION, step)

    def state(self, member: int) -> dict[str, Tensor]:
        """One member's ``state_dict``, unstacked, on the CPU."""
        stacked = {**self.params, **self.buffers}
        return {name.removeprefix("model."): value[member].detach().cpu().clone() for name, value in stacked.items()}


def train_ensemble(
    models: Sequence[Autoencoder],
    data: SolderDataModule,
    epochs: int,
    device: torch.device,
    after_epoch: Callable[[int, Sequence[Member]], None] = lambda epoch, members: None,
) -> list[Member]:
    """Train all models at once on the same batches.

    Args:
        models: of one class, differing in seed and beta only.
        data: set up.
        epochs: how many.
        device: where to train.
        after_epoch: called with the epoch's number, from 0, and the members as they are by then.

    Returns:
        A member for each model; ``best_state`` is the ``state_dict`` of its epoch of lowest validation loss.

    Raises:
        UserError: a member never had a finite validation loss.
    """
    ensemble = Ensemble(models, device)
    members = [Member() for _ in models]
    train_loader, val_loader = data.train_dataloader(), data.val_dataloader()
    for epoch in range(epochs):
        train_loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        train = epoch_means(train_loader, device, lambda x, step: ensemble.train_step(x))
        val = epoch_means(val_loader, device, ensemble.validation_terms)
        for index, (member, schedule) in enumerate(zip(members, ensemble.schedules, strict=True)):
            values = {f"train/{name}": value[index].item() for name, value in train.items()}
            values |= {f"val/{name}": value[index].item() for name, value in val.items()}
            member.history.append(values)
            if values["val/loss"] < member.best_loss:
                member.best_loss, member.best_epoch = values["val/loss"], epoch
                member.best_state = ensemble.state(index)
            schedule.step(values["val/loss"])
        after_epoch(epoch, members)
    for index, (model, member) in enumerate(zip(models, members, strict=True)):
        if not member.best_state:
            raise UserError(
                f"Member {index} (seed {model.seed}) never had a finite validation loss: "
                f"lower model.lr (now {model.hparams['lr']:g})."
            )
    return members


def epoch_means(loader: DataLoader[Batch], device: torch.device, step: Callable[[Tensor, int], Stacked]) -> Stacked:
    """Means over a loader's images of what ``step(images, number of the batch)`` gives, each ``(K,)``."""
    sums: Stacked = {}
    count = 0
    for number, batch in enumerate(loader):
        x = batch["image"].to(device, non_blocking=True)
        count += len(x)
        for name, value in step(x, number).items():
            sums[name] = sums.get(name, 0) + len(x) * value
    return {name: (total / count).cpu() for name, total in sums.items()}


def plateau_schedule(model: Autoencoder) -> ReduceLROnPlateau:
    """The learning-rate schedule of one member, as its solo run would have; it drives no weights itself."""
    hparams = model.hparams
    stand_in = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=hparams["lr"])
    return ReduceLROnPlateau(stand_in, factor=hparams["lr_factor"], patience=hparams["lr_patience"])


def ensemble_configs(config: DictConfig) -> list[DictConfig]:
    """The config of each member of an ensemble: every beta with every seed; none without ``trainer.ensemble``.

    Raises:
        UserError: the ensemble is not possible.
    """
    seeds, betas = config.trainer.ensemble, config.trainer.betas
    if betas is not None and not betas:
        raise UserError(f"trainer.betas={betas} does not fit: use for example trainer.betas=[0.1,1,3].")
    check_whole_number("trainer.ensemble", seeds, 1)
    if seeds == 1 and betas is None:
        return []
    if config.trainer.devices > 1:
        raise UserError("An ensemble trains in one process: drop trainer=ddp, or the ensemble.")
    if config.trainer.get("gradient_clip_val") is not None:
        raise UserError("An ensemble does not clip gradients: drop trainer.gradient_clip_val=..., or the ensemble.")
    if config.resume is not None:
        raise UserError("An ensemble cannot be resumed: drop resume=..., or train its members one by one.")
    if config.trainer.precision not in ("auto", FULL):
        raise UserError(f"An ensemble trains in single precision: drop trainer.precision={config.trainer.precision}.")
    members = []
    for beta in betas or [config.beta]:
        for seed in range(config.seed, config.seed + seeds):
            member = config.copy()
            # All members see the same data in the same order.
            member.data.seed, member.seed, member.beta = config.data.seed, seed, beta
            member.trainer.ensemble, member.trainer.betas = 1, None
            members.append(member)
    return members


def check_model(model: Autoencoder) -> None:
    """Check that an ensemble trains a model as a run of its own would: by Eq. 1, Adam and the plateau schedule.

    Raises:
        UserError: it does not.
    """
    optimizer, scheduler = model.hparams["optimizer"] or {}, model.hparams["scheduler"] or {}
    plain = {"torch.optim.Adam": optimizer, "torch.optim.lr_scheduler.ReduceLROnPlateau": scheduler}
    if type(model) not in (CAE, BetaVAE, VAE) or any(
        spec.get("_target_", name) != name for name, spec in plain.items()
    ):
        raise UserError(
            "An ensemble trains cae, vae and beta_vae with optimizer=adam and scheduler=plateau: drop trainer.ensemble."
        )
    if optimizer.keys() - {"_target_", "lr", "weight_decay", "fused"} or scheduler.keys() - {
        "_target_",
        "factor",
        "patience",
    }:
        raise UserError(
            "An ensemble knows no further options of optimizer and scheduler: drop them, or trainer.ensemble."
        )


def log_members(epoch: int, members: Sequence[Member]) -> None:
    losses = [member.history[-1]["val/loss"] for member in members]
    log.info("epoch %d  val/loss of the members %.5g to %.5g", epoch + 1, min(losses), max(losses))
