"""What can be told of a run's options before torch is imported, which takes seconds.

What only a class from outside the package knows of its values it tells itself, a little later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solder_vae.data.batches import check_transforms
from solder_vae.data.layouts import check_root
from solder_vae.metrics.threshold import Rule
from solder_vae.models.checkpoint_archive import check_there
from solder_vae.models.options import (
    EVERY_SCORE,
    OF_MODELS,
    OF_SCORES,
    Rules,
    check_admitted,
    check_known_keys,
    check_options,
    count,
    or_null,
    own_class,
    whole_number,
)
from solder_vae.models.precision import check_precision
from solder_vae.models.scores import paper_scores
from solder_vae.training.schema import CRITERIA, PSEUDO_DEFECT_AUROC, TrainerOptions
from solder_vae.utils.checks import check_choice, check_flag, check_number, check_whole_number
from solder_vae.utils.config import build
from solder_vae.utils.errors import UserError
from solder_vae.utils.plugins import import_plugins

REFUSE, ACCEPT = FEW_NORMALS_CHOICES = ("refuse", "accept")

#: What every ``conf/score`` file has; other keys are the parameters of its ``_target_``.
SHARED_SCORE_KEYS = ("_target_", "name", *EVERY_SCORE)

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")  # Lightning's names of what this package can use

MODES = ("offline", "online", "disabled")  # of Weights & Biases


def _number(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key}={value} does not fit: use a number.")


def _share(key: str, value: Any) -> None:
    check_number(key, value, above_0=True)
    if isinstance(value, float) and value > 1:
        raise UserError(f"{key}={value} does not fit: use a share up to 1.0, or a whole number of batches.")


def _duration(key: str, value: Any) -> None:
    if not re.fullmatch(r"\d\d:\d\d:\d\d:\d\d", str(value)):
        raise UserError(f"{key}={value} does not fit: use days:hours:minutes:seconds, such as '00:01:30:00'.")


#: What Lightning's Trainer takes of a run beside ``conf/trainer``; its other arguments the run gives it itself.
OF_TRAINER: Rules = {
    "max_time": or_null(_duration),
    **dict.fromkeys(("limit_train_batches", "limit_val_batches"), or_null(_share)),  # 0: no epoch would be the best
    "check_val_every_n_epoch": count,
    "gradient_clip_algorithm": or_null(partial(check_choice, choices=("norm", "value"))),
    "detect_anomaly": check_flag,
    "benchmark": or_null(check_flag),
    "profiler": or_null(partial(check_choice, choices=("simple", "advanced", "pytorch"))),
}

#: All arguments of Lightning's early stopping but ``monitor``, which is the user's own word.
OF_EARLY_STOPPING: Rules = {
    "patience": whole_number,
    "min_delta": _number,
    **dict.fromkeys(("stopping_threshold", "divergence_threshold"), or_null(_number)),
    "mode": partial(check_choice, choices=("min", "max")),
    **dict.fromkeys(("verbose", "strict", "check_finite", "log_rank_zero_only"), check_flag),
    "check_on_train_epoch_end": or_null(check_flag),
}

#: Lightning's callbacks that change what a step is, and why they do not fit.
NOT_HERE = {
    "GradientAccumulationScheduler": "batch norm and the gradient constraint need whole batches",
    "StochasticWeightAveraging": "it trains on without the gradients that GradCon keeps",
}


def check_first(config: DictConfig) -> None:
    """Check all options of a run but its data's, which :func:`check_data` checks.

    Raises:
        UserError: one does not fit, or this package cannot train so.
    """
    if not 0 <= config.seed < 1 << 32:
        raise UserError(f"seed={config.seed} does not fit: use a whole number from 0 to {(1 << 32) - 1}.")
    import_plugins(config.plugins)
    threshold_rule(config)
    check_logging(**config.logger)
    check_choice("criterion", config.criterion, CRITERIA)
    check_choice("few_normals", config.few_normals, FEW_NORMALS_CHOICES)
    if config.beta is not None and "beta" not in config.model:
        raise UserError(
            f"The model chosen has no KL divergence to weigh: drop beta={config.beta}, or use model=beta_vae."
        )
    check_trainer(config)
    check_callbacks(plain(config.callbacks))
    check_model(config)
    if config.resume is not None:
        check_there(Path(config.resume))


def check_model(config: DictConfig) -> None:
    """Check what this package knows of its own models' and scores' options; other classes do so when they are made.

    Raises:
        UserError: one does not fit.
    """
    score, model = plain(config.score), plain(config.model)
    rules = OF_SCORES.get(own_class(score["_target_"])) if "_target_" in score else {}
    if rules is not None:
        check_known_keys("score", score, {*rules, *SHARED_SCORE_KEYS}, f"score={score['name']}")
    check_options({**EVERY_SCORE, **(rules or {})}, score, "score")
    if "alpha" not in model and (given := {"optimizer", "scheduler"} & {*model}):
        raise UserError(f"This model is not trained, so it takes no {' and no '.join(sorted(given))}: leave that out.")
    kind = OF_MODELS.get(own_class(model["_target_"]))
    if kind is None:
        return
    check_known_keys("model", model, {*kind.rules, "score", "_recursive_"}, model["_target_"])
    check_options(kind.rules, model)
    if "_target_" not in score and model.get("decoder") is None:  # another decoder may not have what GradCon needs
        check_admitted(kind.name, score["name"], [*paper_scores(kind.provides), *kind.scores])
    if "lr" not in kind.rules:
        check_untrained(config, kind.name)
    if model.get("encoder") is None:
        check_size(config, kind.stride)


def plain(node: Any) -> Any:
    """A group or a list of a config in plain values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def check_untrained(config: DictConfig, name: str) -> None:
    """Check that nothing is asked of the model of this name that only training could do.

    Raises:
        UserError: something is.
    """
    if config.resume is not None:
        raise UserError(f"model={name} is not trained, so there is nothing to resume: drop resume={config.resume}.")
    if config.trainer.devices > 1:
        raise UserError(f"model={name} is not trained, so one process does it all: use trainer.devices=1.")
    if config.score.get("alpha", 0) > 0:
        raise UserError(f"model={name} is not trained, so score.alpha={config.score.alpha} has no effect: use 0.")
    if config.criterion != PSEUDO_DEFECT_AUROC:
        raise UserError(f"model={name} is not trained, so it has no loss: use criterion={PSEUDO_DEFECT_AUROC}.")


def check_size(config: DictConfig, stride: int) -> None:
    """Check that images fit a network of this stride.

    Raises:
        UserError: they do not.
    """
    size, batch = config.data.image_size, config.data.batch_size
    check_whole_number("data.image_size", size, 1)
    if size % stride:
        raise UserError(f"data.image_size={size} does not fit the network: use a multiple of {stride}.")
    if batch == 1 and size == stride:
        raise UserError(
            f"data.batch_size=1 with data.image_size={size} leaves batch norm a single pixel, which has no variance: "
            "use 2 images or more."
        )


def check_data(data: DictConfig) -> None:
    """Check the data's options by making their source, before a transform brings torch.

    Args:
        data: the group of the config.

    Raises:
        UserError: one does not fit.
    """
    if "root" in data:
        check_root(data.root)
    if "transforms" in data:
        if data.transforms is not None:
            check_transforms(plain(data.transforms), (dict,))
        build(data, transforms=[])
    else:
        build(data)


def check_trainer(config: DictConfig) -> None:
    """Check the trainer's options.

    Raises:
        UserError: one does not fit, or this package cannot train so.
    """
    options = config.trainer
    if options.max_epochs is not None:
        check_whole_number("trainer.max_epochs", options.max_epochs, 1)
    check_whole_number("trainer.min_epochs", options.min_epochs, 1)
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
    if options["_target_"] == "pytorch_lightning.Trainer":
        known = {"accumulate_grad_batches", *OF_TRAINER, *(field.name for field in fields(TrainerOptions))}
        check_known_keys("trainer", options, known, "a run")
        check_options(OF_TRAINER, plain(options), "trainer")
        every, epochs = options.get("check_val_every_n_epoch", 1), options.max_epochs
        if epochs is not None and every > epochs:
            raise UserError(
                f"trainer.check_val_every_n_epoch={every} does not fit trainer.max_epochs={epochs}: "
                "no epoch would be validated, and none the best."
            )
    check_choice("trainer.accelerator", options.accelerator, ACCELERATORS)
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


def check_callbacks(callbacks: Mapping[str, Any]) -> None:
    """Check ``conf/callbacks``: the classes that each key names, and what is known of Lightning's early stopping.

    Raises:
        UserError: one does not fit.
    """
    for name, callback in callbacks.items():
        if not isinstance(callback, Mapping) or "_target_" not in callback:
            raise UserError(f"callbacks.{name}={callback} does not fit: use a _target_ and its arguments.")
        if why := NOT_HERE.get(str(callback["_target_"]).rpartition(".")[2]):
            raise UserError(f"callbacks.{name}={callback['_target_']} is not supported, since {why}: leave it out.")
        if callback["_target_"] == "pytorch_lightning.callbacks.EarlyStopping":
            check_known_keys(f"callbacks.{name}", callback, {*OF_EARLY_STOPPING, "monitor"}, callback["_target_"])
            check_options(OF_EARLY_STOPPING, callback, f"callbacks.{name}")


def check_logging(mode: str, project: str, tags: Sequence[str]) -> None:
    """Check ``conf/logger``.

    Raises:
        UserError: an unknown mode, or a name or a tag that is empty.
    """
    check_choice("logger.mode", mode, MODES)
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
