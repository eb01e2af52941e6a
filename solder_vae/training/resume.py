"""The curve of a training that goes on: what metrics.csv held before stays in it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger


def carry_over(path: Path, checkpoint: Mapping[str, Any], loggers: Iterable[Logger]) -> None:
    """Log again, to the CSV logger among ``loggers``, what ``path`` holds of the steps behind ``checkpoint``.

    The logger would begin with an empty file, also in the very folder of the training that goes on.

    Args:
        path: ``metrics.csv`` of the training to resume; without it nothing happens.
        checkpoint: to resume from. Later rows are of work that is done anew; its own training row, which a training
            stopped in the moment after the checkpoint did not log, comes from the checkpoint.
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


def earlier_rows(path: Path, steps: int) -> list[dict[str, Any]]:
    """The rows of a CSV logger's file up to a step, each without its empty cells; a last one cut short is dropped."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    whole = [row for row in rows if None not in row.values() and str(row.get("step")).isdigit()]
    return [{key: value for key, value in row.items() if value} for row in whole if int(row["step"]) < steps]
