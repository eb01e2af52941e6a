"""The files of a run: metrics.json, predictions.csv and the pictures, each written whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from solder_vae import plots
from solder_vae.evaluation import Evaluation
from solder_vae.files import replacing
from solder_vae.models import CAE


def write_artefacts(directory: Path, model: CAE, evaluation: Evaluation, validation: Mapping[str, float]) -> None:
    """Write metrics.json, predictions.csv and all pictures of a run.

    Args:
        directory: the run's; it holds the CSV logger's ``metrics.csv``.
        model: the tested model, in evaluation mode.
        evaluation: its test.
        validation: its losses on the validation set.
    """
    numbers = run_metrics(model, evaluation, validation)
    with replacing(directory / "metrics.json") as path:
        path.write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with (
        replacing(directory / "predictions.csv") as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file).writerows(prediction_rows(evaluation))
    for name, figure in figures(directory, model, evaluation):
        plots.save(figure, directory / f"{name}.png")


def run_metrics(model: CAE, evaluation: Evaluation, validation: Mapping[str, float]) -> dict[str, Any]:
    """Every number of a run, flat: ``test/...`` is the primary score's, ``test/<score>/...`` each score's.

    Nothing in it depends on the clock or the machine's load, so equal runs write equal files.
    """
    numbers: dict[str, Any] = {
        "model": model.name,
        "beta": model.hparams["beta"],
        "score": evaluation.primary,
        "seed": model.seed,
        **validation,
        **prefixed("test", evaluation.metrics[evaluation.primary]),
    }
    for name, metrics in evaluation.metrics.items():
        numbers |= prefixed(f"test/{name}", metrics)
    for name, metrics in evaluation.baselines.items():
        numbers |= prefixed(f"baseline/{name}", metrics)
    numbers["thresholds"] = {name: threshold.to_dict() for name, threshold in evaluation.thresholds.items()}
    return numbers


def prefixed(prefix: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{key}": value for key, value in metrics.items()}


def prediction_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    """Header and one row a test image; the margin is the primary score minus its threshold."""
    table, primary = evaluation.table, evaluation.primary
    names = list(evaluation.metrics)
    threshold = evaluation.threshold.value
    yield ["path", "label", "defect", *names, "threshold", "margin", "predicted"]
    for row, (path, label, defect, called) in enumerate(
        zip(table.paths, table.labels, table.defects, evaluation.predicted, strict=True)
    ):
        scores = [f"{evaluation.test[name][row]:.9g}" for name in names]  # 9 digits tell all float32 apart
        margin = evaluation.test[primary][row] - threshold
        yield [path, str(label), defect, *scores, repr(threshold), f"{margin:.9g}", str(int(called))]
