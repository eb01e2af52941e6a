"""Resuming a run: whether it may go on from a checkpoint, and how metrics.csv keeps its earlier rows."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger

from solder_vae.models.checkpoint import Checkpoint, read_checkpoint, settings
from solder_vae.models.detector import Detector, arguments
from solder_vae.utils.errors import UserError


def carry_over(path: Path, checkpoint: Mapping[str, Any], loggers: Iterable[Logger]) -> None:
    """Log again, to the CSV logger among ``loggers``, the rows of ``path`` up to ``checkpoint``.

    Otherwise the logger would begin with an empty file, even in the folder of the resumed run.

    Args:
        path: ``metrics.csv`` of the run to resume; if it is missing, nothing happens.
        checkpoint: to resume from. Later rows are left out, since those steps are done again. The epoch's own training
            row comes from the checkpoint, since a run that was stopped just after the checkpoint did not log it.
        loggers: of the new run, not used yet.
    """
    steps = checkpoint["global_step"]
    rows = earlier_rows(path, steps)
    training = checkpoint.get("training_row")  # not in files of earlier versions
    if rows and training and not any(int(row["step"]) == steps - 1 and training.keys() <= row.keys() for row in rows):
        rows.append({"epoch": checkpoint["epoch"], **training, "step": steps - 1})
    for logger in loggers:
        if isinstance(logger, CSVLogger) and rows:
            for row in rows:
                logger.log_metrics({key: value for key, value in row.items() if key != "step"}, int(row["step"]))
            logger.save()


def earlier_rows(path: Path, steps: float = math.inf) -> list[dict[str, Any]]:
    """The rows of a CSV logger's file up to a step, each without its empty cells; one of another length is dropped."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    whole = [row for row in rows if None not in (*row, *row.values()) and str(row.get("step")).isdigit()]
    return [{key: value for key, value in row.items() if value} for row in whole if int(row["step"]) < steps]


def check_resumable(path: str | Path, model: Detector, max_epochs: int | None) -> Checkpoint:
    """Return the checkpoint if a run of ``model`` can go on from it, up to ``max_epochs`` (None: not known yet).

    Raises:
        UserError: the file cannot be used, is of another model, or was trained under other settings.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint["model"] != model.name:
        raise UserError(
            f"{path} is a checkpoint of model={checkpoint['model']}, not of model={model.name}: "
            f"resume it with model={checkpoint['model']}."
        )
    needed = {
        "epoch": int, "global_step": int, "callbacks": dict, "hyper_parameters": dict, "preprocessing": dict,
        "precision": str,
    }  # fmt: skip
    whole = all(isinstance(checkpoint.get(key), kind) for key, kind in needed.items())
    whole = whole and "optimizer_states" in checkpoint
    row = checkpoint.get("training_row", {})  # not in files of earlier versions
    whole = whole and isinstance(row, dict) and all(isinstance(key, str) for key in row)
    whole = whole and all(isinstance(value, float) for value in row.values())
    if not whole or not all(isinstance(state, dict) for state in checkpoint["callbacks"].values()):
        raise UserError(f"{path} lacks what resuming needs: give the last.ckpt of a run.")
    for state in checkpoint["callbacks"].values():
        best = state.get("best_model_path") if state.get("monitor") == "val/loss" else None
        if best and not Path(best).is_file():
            raise UserError(
                f"{best}, the best epoch so far of the run to resume, is missing: put it back, or start anew."
            )
    then, now = settings(checkpoint["hyper_parameters"]), dict(model.hparams)
    if "optimizer" not in checkpoint["hyper_parameters"] and not trained_by_adam(now.get("optimizer")):
        raise UserError(f"{path} is of an earlier version, which trained with Adam: resume it with optimizer=adam.")
    # Arguments that an earlier version lacked had the values of today's defaults; Adam and its schedule had no keys.
    then = {**{key: value for key, value in arguments(type(model)).items() if key in now}, **then}
    for key in ("optimizer", "scheduler"):
        now[key] = now.get(key) if key in checkpoint["hyper_parameters"] else then.get(key)
    if not now.get("alpha"):  # then nothing reads how often the constraint is trained
        then.pop("constraint_every", None)
        now.pop("constraint_every", None)
    changed = [
        f"{key} was {then.get(key)}, now {now.get(key)}" for key in sorted(then | now) if then.get(key) != now.get(key)
    ]
    if changed:
        raise UserError(f"{path} was trained with other settings ({'; '.join(changed)}): resume it with the same.")
    if max_epochs is not None:
        check_epochs_left(path, checkpoint, max_epochs)
    return checkpoint


def trained_by_adam(optimizer: Mapping[str, Any] | None) -> bool:
    """Whether a model's ``optimizer`` is torch's Adam, which it is by default."""
    return optimizer is None or optimizer["_target_"] == "torch.optim.Adam"


def check_epochs_left(path: str | Path, checkpoint: Checkpoint, max_epochs: int) -> None:
    """Refuse to go on from a checkpoint that has had as many epochs, or whose learning rate ends at another one.

    Raises:
        UserError: it has, or does.
    """
    done = checkpoint["epoch"] + 1
    if ends_with_run(checkpoint["hyper_parameters"].get("scheduler")):
        states = checkpoint.get("lr_schedulers") or [{}]
        planned = round(states[0].get("total_steps", 0) * done / max(checkpoint["global_step"], 1))
        if max_epochs != planned or done >= planned:
            on = f"resume it with trainer.max_epochs={planned}, or train" if done < planned else "train"
            raise UserError(
                f"{path} has had {done} of {planned} epochs, and its learning rate ends with the last of them: "
                f"{on} anew for another number (with scheduler=plateau a run can be made longer)."
            )
    elif done >= max_epochs:
        raise UserError(
            f"{path} has been trained for {done} epochs: give a larger trainer.max_epochs than {max_epochs}."
        )


def ends_with_run(scheduler: Mapping[str, Any] | None) -> bool:
    """Whether a schedule of the learning rate, as a config names it, ends with the run's last step."""
    return scheduler is not None and "total_steps" in scheduler and scheduler["total_steps"] is None
