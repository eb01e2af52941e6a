"""The types of a command's options; their values, and what they mean, are in ``conf/``.

Hydra refuses values of another type and keys that are not listed here. Ranges are checked where a value is used.
``conf/`` is composed on top of these types, so nothing here has a value of its own. This module imports no torch, since
``--help`` needs it, too.

A group that names a class or function by ``_target_`` is open: the parameters of that class or function are its keys.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

Group = dict[str, Any]

VALIDATION_LOSS, PSEUDO_DEFECT_AUROC = CRITERIA = ("val/loss", "val/pseudo_defect_auroc")
"""What a run may return to a sweeper."""


@dataclass
class TrainerOptions:
    """The keys of ``conf/trainer``; what else a run takes of Lightning's Trainer is in ``first_checks.OF_TRAINER``."""

    _target_: str = MISSING
    max_epochs: int | None = MISSING
    min_epochs: int = MISSING
    min_steps: int = MISSING
    accelerator: str = MISSING
    strategy: str = MISSING
    devices: int = MISSING
    precision: str = MISSING
    gradient_clip_val: float | None = MISSING


@dataclass
class LoggerOptions:
    """``conf/logger``."""

    mode: str = MISSING
    project: str = MISSING
    tags: list[str] = MISSING


@dataclass
class TrainOptions:
    """``conf/train.yaml``."""

    seed: int = MISSING
    resume: str | None = MISSING
    pictures: bool = MISSING
    skip_finished: bool = MISSING
    few_normals: str = MISSING
    plugins: list[str] = MISSING
    criterion: str = MISSING
    beta: float | int | None = MISSING
    model: Group = field(default_factory=dict)
    score: Group = field(default_factory=dict)
    data: Group = field(default_factory=dict)
    threshold: Group = field(default_factory=dict)
    callbacks: Group = field(default_factory=dict)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    logger: LoggerOptions = field(default_factory=LoggerOptions)


@dataclass
class ReproduceOptions(TrainOptions):
    """``conf/reproduce.yaml``."""

    out: str = MISSING
    jobs: int | None = MISSING
    embeddings: int = MISSING
    sampled_tests: int = MISSING
    seeds: int = MISSING
    further: list[str] = MISSING
    heads: list[str] = MISSING


@dataclass
class AuditOptions:
    """``conf/audit.yaml``."""

    out: str = MISSING
    seed: int = MISSING
    data: Group = field(default_factory=dict)


@functools.cache
def register() -> None:
    """Register the types with Hydra, as ``NAME_options`` in a defaults list, once in a process."""
    # Hydra copies the store for each group that --help lists: half of its time, and nobody changes what is in there.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    for name, options in (("train", TrainOptions), ("reproduce", ReproduceOptions), ("audit", AuditOptions)):
        node = OmegaConf.structured(options)
        if "trainer" in node:
            OmegaConf.set_struct(node.trainer, False)  # open
        ConfigStore.instance().store(f"{name}_options", node)
