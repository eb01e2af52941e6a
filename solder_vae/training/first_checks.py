"""What can be told of a run's options before torch is imported, which takes seconds.

What only a model, an optimizer or Lightning knows of its values they tell themselves, a little later.
"""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from solder_vae.metrics.threshold import Rule
from solder_vae.models.precision import check_precision
from solder_vae.training.schema import CRITERIA
from solder_vae.utils.checks import check_whole_number
from solder_vae.utils.config import build
from solder_vae.utils.errors import UserError
from solder_vae.utils.plugins import import_plugins

REFUSE, ACCEPT = FEW_NORMALS_CHOICES = ("refuse", "accept")

MODES = ("offline", "online", "disabled")  # of Weights & Biases


def check_first(config: DictConfig) -> None:
    """Check all options of a run but its model's and its data's.

    Raises:
        UserError: one does not fit, or this package cannot train so.
    """
    if not 0 <= config.seed < 1 << 32:
        raise UserError(f"seed={config.seed} does not fit: use a whole number from 0 to {(1 << 32) - 1}.")
    import_plugins(config.plugins)
    threshold_rule(config)
    check_logging(**config.logger)
    if config.criterion not in CRITERIA:
        raise UserError(f"criterion={config.criterion} is unknown: use {' or '.join(CRITERIA)}.")
    if config.few_normals not in FEW_NORMALS_CHOICES:
        raise UserError(f"few_normals={config.few_normals} is unknown: use {' or '.join(FEW_NORMALS_CHOICES)}.")
    if config.beta is not None and "beta" not in config.model:
        raise UserError(
            f"The model chosen has no KL divergence to weigh: drop beta={config.beta}, or use model=beta_vae."
        )
    check_trainer(config)


def check_data(data: DictConfig) -> None:
    """Check the data's options by making their source, before a transform brings torch.

    Args:
        data: the group of the config.

    Raises:
        UserError: one does not fit.
    """
    build(data, **({"transforms": []} if "transforms" in data else {}))


def check_trainer(config: DictConfig) -> None:
    """Check the trainer's options.

    Raises:
        UserError: one does not fit, or this package cannot train so.
    """
    options = config.trainer
    if options.max_epochs is not None:
        check_whole_number("trainer.max_epochs", options.max_epochs, 1)
    check_whole_number("trainer.min_steps", options.min_steps, 0)
    clip = options.gradient_clip_val
    if clip is not None and not 0 < clip < float("inf"):
        raise UserError(f"trainer.gradient_clip_val={clip} does not fit: use a number above 0, or null.")
    check_precision(options.precision)
    if options.get("accumulate_grad_batches", 1) != 1:
        raise UserError(
            "trainer.accumulate_grad_batches is not supported, since batch norm and the gradient constraint need "
            "whole batches: raise data.batch_size instead, with trainer=ddp where one device cannot hold it."
        )
    strategy, devices, batch = config.trainer.strategy, options.devices, config.data.batch_size
    check_whole_number("trainer.devices", devices, 1)
    check_whole_number("data.batch_size", batch, 1)
    if strategy not in ("auto", "ddp"):
        raise UserError(f"trainer.strategy={strategy} is unknown: use auto (one device) or ddp (several).")
    if devices > 1 and strategy == "auto":
        raise UserError(f"trainer.devices={devices} needs data parallelism: add trainer=ddp, or use 1.")
    if batch % devices:
        raise UserError(
            f"data.batch_size={batch} cannot be shared out evenly among trainer.devices={devices}: use a multiple."
        )


def check_logging(mode: str, project: str, tags: Sequence[str]) -> None:
    """Check ``conf/logger``.

    Raises:
        UserError: an unknown mode, or a name or a tag that is empty.
    """
    if mode not in MODES:
        raise UserError(f"logger.mode={mode} is unknown: use {', '.join(MODES)}.")
    if not project:
        raise UserError("logger.project is empty: use a name.")
    if not all(tags):
        raise UserError("logger.tags has an empty one: use words, such as [night,line3].")


def threshold_rule(config: DictConfig) -> Rule:
    """The rule that ``config.threshold`` names.

    Raises:
        UserError: it names none, a parameter does not fit, or the rule needs defective joints.
    """
    rule = build(config.threshold)
    if not isinstance(rule, Rule):
        raise UserError(
            f"threshold={config.threshold} is not a threshold rule: "
            "its _target_ must be a subclass of solder_vae.metrics.threshold.Rule."
        )
    if rule.needs_labelled:
        raise UserError(
            f"threshold={rule.name} needs good and bad joints, and a run sets its threshold by good ones alone: "
            f"train with another rule, then use python -m solder_vae.threshold rule={rule.name} labelled=PATH."
        )
    return rule
