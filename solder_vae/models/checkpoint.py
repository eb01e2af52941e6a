"""Checkpoints: what is in one, reading it safely, writing it whole.

A checkpoint is Lightning's own (weights, optimizer, schedule, loop state) plus what makes it sufficient for
inspection: ``model`` (its registered name: cae, vae, beta_vae ...), ``precision`` (of training), ``preprocessing``
(how a picture becomes the network's input), ``calibration`` (for each score the threshold with its rule, and the scores
and looks of the validation normals it came from; None until calibrated), ``scores`` (what fitted scores learned) and
``plugins`` (the modules outside this package that it needs), and ``log`` (what was done to it and when, see
:mod:`solder_vae.models.history`). The reference gradients are among the weights. Everything
is a tensor or a plain container, so files load with ``weights_only=True`` and cannot run code. Names are looked up
among the classes that are imported already; a plugin is never imported because a file says so.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solder_vae.models import annealed_vae, backbone, beta_tcvae, vae  # noqa: F401  # each registers its models
from solder_vae.models.checkpoint_archive import check_there, checked_archive, damaged
from solder_vae.models.detector import Detector
from solder_vae.models.networks import Network
from solder_vae.models.scores import Score
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_file
from solder_vae.utils.text import printable

Checkpoint = dict[str, Any]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint as a dict of tensors and plain values.

    Raises:
        UserError: the file is missing, damaged, holds anything executable, or is no checkpoint of this package.
    """
    path = Path(path)
    check_there(path)
    try:
        checkpoint = torch.load(checked_archive(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds something other than tensors and plain values, so it was not loaded: "
            "use a checkpoint written by this package."
        ) from error
    except Exception as error:  # a damaged file can fail in any of the reader's steps, with any of their errors
        raise damaged(path) from error
    if (
        not isinstance(checkpoint, dict)
        or not isinstance(checkpoint.get("model"), str)
        or not isinstance(checkpoint.get("state_dict"), dict)
    ):
        raise UserError(f"{path} is not a checkpoint of solder_vae: give a file that solder_vae.train wrote.")
    if missing := unknown_parts(checkpoint):
        raise UserError(f"{path} holds {printable(missing[0])}, which is not known here: {plugin_hint(checkpoint)}.")
    return checkpoint


def unknown_parts(checkpoint: Checkpoint) -> list[str]:
    """What a checkpoint names that no imported module defines."""
    found = [] if checkpoint["model"] in Detector.registry else [f"model={checkpoint['model']}"]
    arguments = checkpoint.get("hyper_parameters")
    if isinstance(arguments, dict):
        specs = [arguments.get(key) for key in ("encoder", "decoder")]
        targets = [spec.get("_target_") for spec in specs if isinstance(spec, dict)]
        found += [str(target) for target in targets if target not in list(Network.registry)]
        scores = arguments.get("scores")
        if not found:
            found += Detector.registry[checkpoint["model"]].unknown(arguments)
        found += [f"score={name}" for name in scores or {} if name not in list(Score.registry)]
    return found


def plugin_hint(checkpoint: Checkpoint) -> str:
    """What to do about a checkpoint that needs modules from outside."""
    plugins = checkpoint.get("plugins")
    if isinstance(plugins, list) and plugins and all(isinstance(name, str) for name in plugins):
        return f"it needs plugins=[{printable(','.join(plugins))}]; give that if you trust these modules"
    return "name the module that defines it by plugins=[MODULE]"


def load_model(path: str | Path) -> Detector:
    """The model of a checkpoint file, in evaluation mode on the CPU, with its reference gradients and calibration.

    Raises:
        UserError: the file cannot be used, see :func:`read_checkpoint`, or holds another architecture.
    """
    checkpoint = read_checkpoint(path)
    try:
        return model_of(checkpoint)
    except UserError:
        raise
    except Exception as error:  # what does not fit can fail anywhere
        raise UserError(f"{path} holds another architecture than this version's {checkpoint['model']}.") from error


def model_of(checkpoint: Checkpoint) -> Detector:
    """The model of a checkpoint that was read already, in evaluation mode on the CPU.

    Its optimizer and schedule are left out: they name classes by their path, and it is not trained on.
    """
    kind = Detector.registry[checkpoint["model"]]
    arguments = settings(checkpoint["hyper_parameters"])
    model = kind(**{key: None if key in ("optimizer", "scheduler") else value for key, value in arguments.items()})
    model.load_state_dict(checkpoint["state_dict"])
    model.on_load_checkpoint(checkpoint)
    model.precision = checkpoint["precision"]
    return model.eval()


def untrained_checkpoint(model: Detector) -> Checkpoint:
    """The checkpoint of a model that was made, not trained."""
    checkpoint: Checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    return checkpoint


def settings(hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a checkpoint's model, as this version's classes take them.

    Earlier versions gave a CAE ``beta=None``, too.
    """
    return {name: value for name, value in hyper_parameters.items() if name != "beta" or value is not None}


def plain(value: Any) -> Any:
    """The value without what safe reading refuses and others' schedules and callbacks keep: counters, NumPy numbers."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        values = {key: plain(item) for key, item in value.items()}
        return OrderedDict(values) if type(value) is OrderedDict else values
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def write_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        UserError: it cannot be written; an earlier file of that name is unchanged.
    """
    buffer = io.BytesIO()  # torch.save to a file would tell of a full disk in a RuntimeError
    others: Checkpoint = {
        key: plain(checkpoint[key]) for key in ("lr_schedulers", "optimizer_states", "callbacks") if key in checkpoint
    }
    torch.save({**checkpoint, **others}, buffer)
    try:
        with atomic_file(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}): correct that, then go on from the run's last.ckpt, "
            "which is whole if it is there (resume=PATH)."
        ) from error
