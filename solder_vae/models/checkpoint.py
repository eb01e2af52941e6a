"""Checkpoints: what is in one, reading it safely, writing it whole.

A checkpoint is Lightning's own (weights, optimizer, schedule, loop state) plus four keys that make it sufficient for
inspection: ``model`` (cae, vae or beta_vae), ``precision`` (of the training), ``preprocessing`` (how a picture becomes
the network's input) and ``calibration`` (for each score the threshold with its rule, and the scores of the validation
normals it came from; None until calibrated). The reference gradients are among the weights. Everything is a tensor or
a plain container, so files load with ``weights_only=True`` and cannot run code.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from solder_vae.models.autoencoder import CAE, MODELS
from solder_vae.models.checkpoint_archive import checked_archive
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import replacing

Checkpoint = dict[str, Any]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint as a dict of tensors and plain values.

    Raises:
        UserError: the file is missing, damaged, holds anything executable, or is no checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"No checkpoint at {path}: give the path of a .ckpt file that a training wrote.")
    try:
        checkpoint = torch.load(checked_archive(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds something other than tensors and plain values, so it was not loaded: "
            "use a checkpoint written by this package."
        ) from error
    except Exception as error:  # a damaged file can fail in any of the reader's steps, with any of their errors
        raise UserError(f"{path} is not a readable checkpoint (damaged or cut off?): train again.") from error
    names = list(MODELS)  # a list can be asked for what has no hash, too
    if (
        not isinstance(checkpoint, dict)
        or checkpoint.get("model") not in names
        or not isinstance(checkpoint.get("state_dict"), dict)
    ):
        raise UserError(f"{path} is not a checkpoint of solder_vae: give a file that solder_vae.train wrote.")
    return checkpoint


def load_model(path: str | Path) -> CAE:
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


def model_of(checkpoint: Checkpoint) -> CAE:
    """The model of a checkpoint that was read already, in evaluation mode on the CPU."""
    model = MODELS[checkpoint["model"]](**checkpoint["hyper_parameters"])
    model.load_state_dict(checkpoint["state_dict"])
    model.on_load_checkpoint(checkpoint)
    model.precision = checkpoint["precision"]
    return model.eval()


def member_checkpoint(model: CAE, state: dict[str, Tensor], epoch: int) -> Checkpoint:
    """The checkpoint of a model that was trained outside Lightning, as an ensemble's member is; not resumable.

    Args:
        model: of the class and settings of the trained one.
        state: its ``state_dict``.
        epoch: of the state, from 0.
    """
    checkpoint: Checkpoint = {"state_dict": state, "epoch": epoch, "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    return checkpoint


def check_resumable(path: str | Path, model: CAE, max_epochs: int) -> Checkpoint:
    """Return the checkpoint if a training of ``model`` can go on from it, up to ``max_epochs``.

    Raises:
        UserError: the file cannot be used, is of another model, or was trained under other settings.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint["model"] != model.name:
        raise UserError(
            f"{path} is a checkpoint of model={checkpoint['model']}, not of model={model.name}: "
            f"resume it with model={checkpoint['model']}."
        )
    if "optimizer_states" not in checkpoint:
        raise UserError(f"{path} holds an ensemble's member, which cannot be resumed: train it anew by its seed.")
    needed = {
        "epoch": int, "global_step": int, "callbacks": dict, "hyper_parameters": dict, "preprocessing": dict,
        "precision": str,
    }  # fmt: skip
    whole = all(isinstance(checkpoint.get(key), kind) for key, kind in needed.items())
    row = checkpoint.get("training_row", {})  # not in files of earlier versions
    whole = whole and isinstance(row, dict) and all(isinstance(key, str) for key in row)
    whole = whole and all(isinstance(value, float) for value in row.values())
    if not whole or not all(isinstance(state, dict) for state in checkpoint["callbacks"].values()):
        raise UserError(f"{path} lacks what resuming needs: give the last.ckpt of a training.")
    if checkpoint["epoch"] + 1 >= max_epochs:
        raise UserError(
            f"{path} has {checkpoint['epoch'] + 1} epochs behind it: "
            f"give a larger trainer.max_epochs than {max_epochs}."
        )
    for state in checkpoint["callbacks"].values():
        best = state.get("best_model_path") if state.get("monitor") == "val/loss" else None
        if best and not Path(best).is_file():
            raise UserError(
                f"{best}, the best epoch so far of the training to resume, is gone: put it back, or start anew."
            )
    then, now = checkpoint["hyper_parameters"], dict(model.hparams)
    changed = [
        f"{key} was {then.get(key)}, now {now.get(key)}" for key in sorted(then | now) if then.get(key) != now.get(key)
    ]
    if changed:
        raise UserError(f"{path} was trained with other settings ({'; '.join(changed)}): resume it with the same.")
    return checkpoint


def write_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        UserError: it cannot be written; a file that was there is as it was.
    """
    buffer = io.BytesIO()  # torch.save to a file would tell of a full disk in a RuntimeError
    torch.save(checkpoint, buffer)
    try:
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}): mend that, then go on from the run's last.ckpt, "
            "which is whole if it is there (resume=PATH)."
        ) from error


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's way to write checkpoints, which writes to the folder for temporary files and moves them; that leaves
    a part of one where the folder is on another file system and the move is interrupted. This one doesn't. It reads
    by :func:`read_checkpoint`."""

    def save_checkpoint(self, checkpoint: Checkpoint, path: str | Path, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> Checkpoint:
        return read_checkpoint(path)
