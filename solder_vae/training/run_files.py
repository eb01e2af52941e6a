"""The files of a run: metrics.json, predictions.csv and the pictures, each written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger

from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import Image
from solder_vae.data.known import types_of
from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import PLAIN
from solder_vae.evaluation import plots, style
from solder_vae.evaluation.evaluate import Evaluation, anomaly_maps, reconstruct
from solder_vae.evaluation.reconstruction_plots import heat_pictures, reconstructions
from solder_vae.metrics.classification import pr_points, roc_points
from solder_vae.models.classifier import LEAST_OF_TYPE, LIKENESS_COLUMNS, Likeness
from solder_vae.models.detector import Detector
from solder_vae.models.scores import RECONSTRUCTION
from solder_vae.training.loggers import Dashboard, log_lineage
from solder_vae.training.resume import earlier_rows
from solder_vae.training.run_report import write_report
from solder_vae.utils.files import atomic_file
from solder_vae.utils.tables import write_csv

IMAGES_SHOWN = 64  # pictures in the table of predictions: some 10 kB each
CURVE_POINTS = 200


def write_artefacts(
    directory: Path, model: Detector, evaluation: Evaluation, numbers: Mapping[str, Any], pictures: bool = True
) -> None:
    """Write predictions.csv, metrics.json and the pictures of a run, among them its test joints in report.html.

    Args:
        directory: the run's; it holds the CSV logger's ``metrics.csv``.
        model: the tested model, in evaluation mode.
        evaluation: its test.
        numbers: see :func:`run_metrics`.
        pictures: whether to write them; they take longer than all other files.
    """
    write_csv(directory / "predictions.csv", prediction_rows(evaluation))
    for name, values in model.diagnostics().items():
        rows = [[str(unit), f"{value:.9g}"] for unit, value in enumerate(values.tolist())]
        write_csv(directory / f"{name}_per_unit.csv", [["unit", name], *rows])
    # A run is finished once this is there: before the pictures, without which its result is just as good.
    with atomic_file(directory / "metrics.json") as path:
        path.write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if pictures:
        for name, figure in figures(directory, model, evaluation):
            style.save(figure, directory / f"{name}.png")
        write_report(directory, model, evaluation)


def figures(directory: Path, model: Detector, evaluation: Evaluation) -> Iterator[tuple[str, Figure]]:
    """A run's pictures by name."""
    table, primary, metrics = evaluation.table, evaluation.primary, evaluation.metrics
    labels, threshold = table.labels, evaluation.threshold.value
    if (directory / "metrics.csv").exists():  # not where nothing was trained
        yield "loss_curves", plots.loss_curves(read_history(directory / "metrics.csv"))
    val, test = evaluation.val[primary], evaluation.test[primary]
    yield "score_histogram", plots.score_histogram(val, test, labels, threshold, primary)
    yield "roc", plots.roc_curves(evaluation.test, labels, metrics, primary)
    yield "pr", plots.pr_curves(evaluation.test, labels, metrics, primary)
    yield "defect_recall", plots.defect_recall(metrics[primary], primary)
    if "kl" in (diagnostics := model.diagnostics()):
        yield "kl_per_unit", plots.kl_per_unit(diagnostics["kl"], int(evaluation.validation["val/active_units"]))

    def recon(rows: list[int]) -> Image:
        return reconstruct(model, table.images, rows) if evaluation.recons is None else evaluation.recons[rows]

    # With thresholds by type, verdicts are those of the scores' distances from each image's own.
    shift = evaluation.limits - threshold if evaluation.of_types else 0.0

    def anomaly(rows: list[int]) -> Image:
        return heat_pictures(anomaly_maps(model, table, rows) / evaluation.map_scale)

    if RECONSTRUCTION in model.provides:
        yield "reconstructions", reconstructions(recon, table, test - shift, threshold)
    else:
        yield "anomaly_maps", reconstructions(anomaly, table, test - shift, threshold, "anomaly map")


def read_history(path: Path) -> dict[str, list[float | None]]:
    """The CSV logger's ``train/...`` and ``val/...`` series, one value an epoch (None where there is none)."""
    epochs: dict[int, dict[str, float]] = {}
    for row in earlier_rows(path):
        values = {key: float(value) for key, value in row.items() if key.startswith(("train/", "val/"))}
        if "epoch" in row:
            epochs.setdefault(int(row["epoch"]), {}).update(values)
    last = max(epochs, default=-1)
    names = sorted(set().union(*epochs.values()))
    return {name: [epochs.get(epoch, {}).get(name) for epoch in range(last + 1)] for name in names}


def run_metrics(
    model: Detector, evaluation: Evaluation, validation: Mapping[str, float], known: Sequence[str] = ()
) -> dict[str, Any]:
    """Every number of a run, flat: ``test/...`` is the primary score's, ``test/<score>/...`` each score's.

    Nothing in it depends on the clock or the machine's load, so equal runs write equal files.

    Args:
        model: the tested model.
        evaluation: its test.
        validation: the validation's numbers.
        known: the type of each known defect; ``known/<type>`` counts them.
    """
    preprocessing = model.preprocessing or {}
    numbers: dict[str, Any] = {
        "model": model.name,
        "beta": model.hparams.get("beta"),
        "score": evaluation.primary,
        "alpha": model.alpha,
        "seed": model.seed,
        "view": preprocessing.get("view", PLAIN),
        **({} if (crop := preprocessing.get("crop", SQUARE)) == SQUARE else {"crop": crop}),
        **({"known": len(known), **prefixed("known", types_of(known))} if known else {}),
        "precision": model.precision,
        **validation,
        **prefixed("test", evaluation.metrics[evaluation.primary]),
    }
    for name, metrics in evaluation.metrics.items():
        numbers |= prefixed(f"test/{name}", metrics)
    for name, metrics in evaluation.baselines.items():
        numbers |= prefixed(f"baseline/{name}", metrics)
    if evaluation.localisation is not None:
        numbers |= prefixed("test/localisation", evaluation.localisation)
    if evaluation.trivial_localisation is not None:
        numbers |= prefixed("baseline/mean image/localisation", evaluation.trivial_localisation)
    if evaluation.likeness is not None:
        numbers |= prefixed("test", type_accuracy(evaluation.table.defects, evaluation.likeness, types_of(known)))
    if evaluation.of_types:
        numbers["thresholds_by_type"] = {
            kind: {name: threshold.to_dict() for name, threshold in each.thresholds.items()}
            for kind, each in evaluation.of_types.items()
            if each.thresholds
        }
    numbers["thresholds"] = {name: threshold.to_dict() for name, threshold in evaluation.thresholds.items()}
    return numbers


def type_accuracy(defects: Sequence[str], likeness: Sequence[Likeness], known: Mapping[str, int]) -> dict[str, Any]:
    """How many test defects of the types that are told apart look like their own type.

    Args:
        defects: each test image's type.
        likeness: what each looks like.
        known: how many known defects there are of each type.
    """
    told = {kind for kind, count in known.items() if count >= LEAST_OF_TYPE}
    right = [found.type == defect for defect, found in zip(defects, likeness, strict=True) if defect in told]
    return {"type_accuracy": sum(right) / len(right) if right else None, "type_n": len(right)}


def prefixed(prefix: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{key}": value for key, value in metrics.items()}


def prediction_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    """Header and one row a test image; the margin is the primary score minus its threshold."""
    table, primary = evaluation.table, evaluation.primary
    names = list(evaluation.metrics)
    limits, types, among = evaluation.limits, table.types, evaluation.judged_among
    typed = ["component", "judged_among"] if types is not None else []
    likeness = evaluation.likeness
    looking = LIKENESS_COLUMNS if likeness else ()
    yield ["path", "label", "defect", *names, "threshold", "margin", "predicted", *typed, *looking]
    for row, (path, label, defect, called) in enumerate(
        zip(table.paths, table.labels, table.defects, evaluation.predicted, strict=True)
    ):
        scores = [f"{evaluation.test[name][row]:.9g}" for name in names]  # 9 digits tell all float32 apart
        threshold = float(limits[row])
        margin = evaluation.test[primary][row] - threshold
        looks = [likeness[row].type, f"{likeness[row].probability:.4g}"] if likeness else []
        by = [] if types is None else [types[row], among[row]]
        yield [path, str(label), defect, *scores, repr(threshold), f"{margin:.9g}", str(int(called)), *by, *looks]


# What a dashboard needs of the scores and of the trivial baselines; metrics.json has the rest.
_OF_SCORES = ("auroc", "average_precision", "precision", "recall", "f1", "false_call_rate", "escape_rate", "threshold")
_OF_BASELINES = ("auroc", "f1")
_ONCE = ("test/auroc_low", "test/auroc_high", "test/floor_f1", "test/floor_precision")


def summary_numbers(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a run that dashboards show, out of those of :func:`run_metrics`."""
    shown = {}
    for key, value in numbers.items():
        part, _, rest = key.partition("/")
        name = rest.rpartition("/")[2]
        wanted = {
            "val": True,
            "test": name in ("pixel_auroc", "aupro") or name in _OF_SCORES or key in _ONCE,
            "baseline": name in _OF_BASELINES,
        }
        if isinstance(value, int | float) and rest and "defect/" not in rest and wanted.get(part, False):
            shown[key] = value
    return shown


def log_artefacts(
    directory: Path,
    evaluation: Evaluation,
    numbers: Mapping[str, Any],
    tables: Mapping[str, ImageTable],
    loggers: Iterable[Logger],
) -> None:
    """Send the test's numbers, pictures, predictions, data and model to Weights & Biases.

    metrics.csv holds the training curves only.
    """
    scalars = summary_numbers(numbers)
    scalars |= {key: value for key, value in numbers.items() if key.partition("/")[0] == "known"}
    facts = {**{key: numbers[key] for key in ("model", "score", "beta", "seed")}, **scalars}
    for logger in loggers:
        if isinstance(logger, Dashboard):
            logger.attempt(log_results, logger, directory, evaluation, scalars)
            logger.attempt(log_lineage, logger, tables, directory / "best.ckpt", facts)


def log_results(dashboard: Dashboard, directory: Path, evaluation: Evaluation, scalars: Mapping[str, float]) -> None:
    import wandb

    results = {key: value for key, value in scalars.items() if not key.startswith("val/")}
    dashboard.log_metrics(results)
    # The validation's numbers are those of the best epoch: in the summary, beside the curves' own. A result is one
    # number, so it stands there by its plain name, not as test/f1.max.
    best = {f"best/{key[4:]}": value for key, value in scalars.items() if key.startswith("val/")}
    dashboard.experiment.summary.update({**best, **results})
    for picture in sorted(directory.glob("*.png")):
        dashboard.log_image(f"pictures/{picture.stem}", [str(picture)])
    header, *rows = prediction_rows(evaluation)
    shown = rows_with_pictures(evaluation)
    images = [wandb.Image(evaluation.table.images[row]) if row in shown else None for row in range(len(rows))]
    table = [[*line, image] for line, image in zip(rows, images, strict=True)]
    dashboard.log_table("predictions", [*header, "image"], table)
    for name, chart in native_curves(evaluation):
        dashboard.experiment.log({f"curves/{name}": chart})


def rows_with_pictures(evaluation: Evaluation) -> set[int]:
    """The test images whose pictures stand in the table: the clearest mistakes, then the highest scores."""
    margin = evaluation.test[evaluation.primary] - evaluation.limits
    wrong = evaluation.predicted != (np.asarray(evaluation.table.labels) == 1)
    ranked = np.lexsort((-margin, np.where(wrong, -np.abs(margin), 0.0), ~wrong))
    return set(ranked[:IMAGES_SHOWN].tolist())


def native_curves(evaluation: Evaluation) -> Iterator[tuple[str, Any]]:
    """ROC and precision-recall curves of every score as charts of Weights & Biases; none where a class is missing."""
    import wandb

    labels = evaluation.table.labels
    if len(set(np.asarray(labels).tolist())) < 2:
        return
    for name, points, x, title in (
        ("roc", roc_points, "false-call rate", "ROC: recall against false calls"),
        ("pr", pr_points, "recall", "Precision against recall"),
    ):
        curves = {score: thinned(*points(values, labels)) for score, values in evaluation.test.items()}
        xs, ys = [list(a) for a, _ in curves.values()], [list(b) for _, b in curves.values()]
        yield name, wandb.plot.line_series(xs, ys, keys=list(curves), title=title, xname=x)


def thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """At most :data:`CURVE_POINTS` points of a curve, both ends among them."""
    kept = np.unique(np.linspace(0, len(x) - 1, CURVE_POINTS).round().astype(int))
    return x[kept].tolist(), y[kept].tolist()
