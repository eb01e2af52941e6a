"""What Lightning calls: training, validation and test steps, the optimizer and the schedule of its learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from solder_vae.models.autoencoder import TRAINING, Autoencoder
from solder_vae.utils.distributed import loss_weight, world_size
from solder_vae.utils.errors import UserError, refusal


class TrainingModule(pl.LightningModule):
    """The loop around a model, which it trains in place.

    Its state and its checkpoints are the model's own, see :mod:`solder_vae.models.checkpoint`. The model itself knows
    nothing of Lightning, which takes longer to import than torch: an inspection does without.
    """

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model
        self.save_hyperparameters(model.hparams, logger=False)

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """The model's."""
        state: dict[str, Any] = self.model.state_dict(*arguments, **options)
        return state

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """The model's."""
        return self.model.load_state_dict(*arguments, **options)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_NAME] = "kwargs"  # Lightning's word: they are arguments of a class
        self.model.on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.model.on_load_checkpoint(checkpoint)

    def on_train_start(self) -> None:
        self.model.start_training(len(self.trainer.train_dataloader.dataset))  # type: ignore[union-attr]

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.model.update_reference()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x = batch["image"]
        self.model.step = self.global_step
        terms, _ = self.model.loss_terms(x, self.model.noise(x, TRAINING, self.global_step))
        weight = loss_weight(x)
        objective = weight * terms["loss"]  # J = L + alpha * L_grad
        if alpha := self.model.alpha_of(self.global_step):
            terms["grad_loss"] = self.model.gradient_constraint(weight * terms["recon"])
            objective = objective + alpha * terms["grad_loss"]
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

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        x = batch["image"]
        self.log_means("val", self.model.validation_terms(x, self.model.encode(x), batch_idx), x)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.model.validation_summary().items():
            self.log(name, value, sync_dist=True)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score a batch: ``trainer.test(module, data)`` logs each score's AUROC as ``test/<score>/auroc``."""
        with torch.inference_mode(False):  # GradCon needs gradients, also where the Trainer has switched them off
            output = self.model.score(batch["image"].clone())
        self._tested.append({"label": batch["label"], **output.scores})

    def on_test_epoch_start(self) -> None:
        self._tested: list[dict[str, Tensor]] = []

    def on_test_epoch_end(self) -> None:
        columns = {key: torch.cat([batch[key] for batch in self._tested]) for key in self._tested[0]}
        labels = columns.pop("label")
        for name, values in columns.items():
            # By ranks, since torchmetrics takes scores outside [0, 1] for logits and squashes them.
            ranks = torch.unique(values, return_inverse=True)[1].double()
            self.log(f"test/{name}/auroc", binary_auroc(ranks / ranks.max().clamp_min(1), labels))

    def configure_optimizers(self) -> Any:
        hparams = self.model.hparams
        if hparams["optimizer"] is None:
            optimizer: Any = torch.optim.Adam(
                self.parameters(), hparams["lr"], weight_decay=hparams["weight_decay"], fused=True
            )
        else:
            optimizer = made(hparams["optimizer"], "model.optimizer", self.parameters())
        if hparams["scheduler"] is None:
            scheduler: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=hparams["lr_factor"], patience=hparams["lr_patience"]
            )
            interval = "epoch"
        else:
            spec = dict(hparams["scheduler"])
            interval = spec.pop("interval", "epoch")
            if "total_steps" in spec:
                steps = int(self.trainer.estimated_stepping_batches)
                spec["total_steps"] = given = steps if spec["total_steps"] is None else spec["total_steps"]
                if isinstance(given, int) and given < steps:
                    raise UserError(
                        f"model.scheduler.total_steps={given} ends before the run's {steps} steps: "
                        "use null, which is as many as the run has."
                    )
            scheduler = made(spec, "model.scheduler", optimizer)
        self.steps_by_epoch = interval == "epoch"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": interval, "monitor": "val/loss", "strict": False},
        }

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
        """Step a schedule of steps. One of epochs is left alone: Lightning calls this after the epoch's checkpoint is
        written, and a resumed run would miss that step. :meth:`on_train_epoch_end` comes before the checkpoint."""
        if not self.steps_by_epoch:
            scheduler.step()

    def on_train_epoch_end(self) -> None:
        if not self.steps_by_epoch or (self.current_epoch + 1) % (self.trainer.check_val_every_n_epoch or 1):
            return
        scheduler: Any = self.lr_schedulers()
        if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step()
        elif "val/loss" in self.trainer.callback_metrics:  # not with limit_val_batches=0
            scheduler.step(self.trainer.callback_metrics["val/loss"])

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Every score of a batch's images, beside their places in the table."""
        with torch.inference_mode(False):
            return {"index": batch["index"].clone(), **self.model.score(batch["image"].clone()).scores}


def check_optimization(model: Autoencoder) -> None:
    """Try the optimizer and the schedule of a model on a number, so that what does not fit is told before the training.

    Raises:
        UserError: a class cannot be imported, or does not take or work with its values.
    """
    number = torch.nn.Parameter(torch.ones(()))
    optimizer: Any = torch.optim.SGD([number], lr=1.0)
    for key in ("optimizer", "scheduler"):
        spec = model.hparams[key]
        if spec is None:
            continue
        spec = {name: value for name, value in spec.items() if name != "interval"}
        if "total_steps" in spec and spec["total_steps"] is None:
            spec["total_steps"] = 100
        tried = made(spec, f"model.{key}", [number] if key == "optimizer" else optimizer)
        try:
            for loss in (1.0, 2.0, 3.0):
                number.grad = torch.ones(())
                if key == "optimizer":
                    optimizer = tried
                    optimizer.step()
                elif isinstance(tried, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    tried.step(loss)
                else:
                    optimizer.step()
                    tried.step()
        except Exception as error:
            raise UserError(
                f"model.{key} ({spec['_target_']}) does not work with what is given: {str(error).rstrip('.!')}."
            ) from error


def made(spec: Mapping[str, Any], key: str, first: Any) -> Any:
    """What the class of ``spec["_target_"]`` makes of an argument and the spec's other values.

    Only what a user's config names comes here: a loaded checkpoint's optimizer and scheduler are left out, see
    :func:`solder_vae.models.checkpoint.model_of`.

    Raises:
        UserError: there is no such class, or it does not take these values.
    """
    module, _, name = str(spec.get("_target_")).rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{key} names {spec.get('_target_')}, which cannot be imported ({error}).") from error
    try:
        return kind(first, **{name: value for name, value in spec.items() if name != "_target_"})
    except Exception as error:
        raise refusal(error, kind, key, spec["_target_"], given_by_us=1) from error
