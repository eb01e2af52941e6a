"""The plots of a sweep: metrics against each setting, all settings beside the result, ROC curves overlaid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from solder_vae.evaluation.baselines import BASELINES
from solder_vae.evaluation.style import BLUE, GREY, OTHERS, plain_name, style_axes, unit_square
from solder_vae.metrics.classification import roc_points
from solder_vae.studies.sweeps.runs import Run
from solder_vae.studies.sweeps.table import Row, heading, known, order, show
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import read_table

COLOURS, MARKERS = (BLUE, *OTHERS), "os^Dvp"  # of scores, in their order; a seventh has other pairs of both
PANELS = {"auroc": "AUROC", "f1": "F1", "precision": "precision", "recall": "recall"}
_FLOORS = {"f1": "test/floor_f1", "precision": "test/floor_precision"}
_MOST = 8  # settings that a reader can tell apart

Floats = NDArray[np.float64]


def figures(rows: Sequence[Row]) -> Iterator[tuple[str, Figure, str]]:
    """The plots that these rows allow: name, figure, caption."""
    for key in rows[0].settings if rows else ():
        yield from curves_against(key, rows)
    if len(rows) > 1:
        yield "parallel", parallel_coordinates(rows), "Each line is a run under one score, coloured by its AUROC."
    for score in dict.fromkeys(row.score for row in rows):
        chosen = [row for row in rows if row.score == score]
        if curves := [(row, curve) for row in chosen[:_MOST] if (curve := mean_roc(row)) is not None]:
            left = f" The first {_MOST} of {len(chosen)} settings." if len(chosen) > _MOST else ""
            yield f"roc_{score}", roc_overlay(curves), f"ROC of {score}, recall averaged over seeds at each rate.{left}"


def curves_against(key: str, rows: Sequence[Row]) -> Iterator[tuple[str, Figure, str]]:
    """Metrics against a swept setting, a figure for each combination of the others."""
    caption = (
        f"Metrics against {heading(key)}, a line a score; the band spans the seeds. Dotted: calling everything "
        "abnormal (0.5 for AUROC); dashed: the best trivial baseline."
    )
    others = sorted({other_settings(row, key) for row in rows})
    for number, other in enumerate(others[:_MOST]):
        chosen = [row for row in rows if other_settings(row, key) == other and row.settings.get(key) is not None]
        if len({repr(row.settings[key]) for row in chosen}) > 1:
            yield f"{key}_{number}", against(key, chosen, other), caption


def other_settings(row: Row, left_out: str) -> str:
    """What a row was run with beside one setting, as text."""
    told = {heading(key): show(value) for key, value in row.settings.items() if key != left_out}
    return ", ".join(f"{key} {value}" for key, value in told.items() if value)  # a model without beta has none to tell


def against(key: str, rows: Sequence[Row], title: str) -> Figure:
    """Four metrics against a setting: mean over seeds as a line a score, smallest to largest as a band.

    Settings that are no numbers stand side by side, without a line between them.
    """
    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    figure.suptitle(plain_name(title), fontsize=10)
    values = sorted({row.settings[key] for row in rows}, key=order)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = [float(value) if numeric else float(place) for place, value in enumerate(values)]
    for panel, (metric, name) in enumerate(PANELS.items(), start=1):
        axes = figure.add_subplot(2, 2, panel)
        style_axes(axes, heading(key), name)
        for number, score in enumerate(dict.fromkeys(row.score for row in rows)):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            points = {row.settings[key]: known(row.values(metric)) for row in rows if row.score == score}
            there = [(x, points[value]) for x, value in zip(places, values, strict=True) if points.get(value)]
            xs = [x for x, _ in there]
            low, middle, high = (np.array([f(found) for _, found in there]) for f in (np.min, np.mean, np.max))
            if numeric:
                axes.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)
            else:
                axes.vlines(xs, low, high, color=colour, alpha=0.5)
            line = "-" if numeric else ""
            axes.plot(xs, middle, color=colour, marker=marker, markersize=5, linestyle=line, label=score)
        references(axes, metric, [run for row in rows for run in row.runs])
        if numeric:
            number_axis(axes, places)
        else:
            axes.set_xticks(places, [plain_name(show(value)) for value in values])
            axes.set_xlim(-0.5, len(places) - 0.5)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False, fontsize=9)
    return figure


def references(axes: Axes, metric: str, runs: Sequence[Run]) -> None:
    """The floor and the best trivial baseline of a metric as horizontal lines."""
    floor = known([run.numbers.get(_FLOORS.get(metric, "")) for run in runs]) or ([0.5] if metric == "auroc" else [])
    if floor:
        axes.axhline(float(np.mean(floor)), color=GREY, linestyle=":", linewidth=1.4, label="floor")
    trivial = {name: known([run.numbers.get(f"baseline/{name}/{metric}") for run in runs]) for name in BASELINES}
    if means := {name: float(np.mean(values)) for name, values in trivial.items() if values}:
        best = max(means, key=lambda name: means[name])
        label = f"best trivial baseline ({PANELS.get(metric, metric)}: {best})"
        axes.axhline(means[best], color=GREY, linestyle="--", linewidth=1.2, label=label)


def number_axis(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where values span much, with room for 0, and a tick at each value as long as there are few."""
    positive = [value for value in values if value > 0]
    wide = positive and (0 in values or max(positive) > 10 * min(positive))
    if wide and min(values) >= 0:
        axes.set_xscale("symlog", linthresh=min(positive)) if 0 in values else axes.set_xscale("log")
    if len(values) <= 10:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.set_xticks([], minor=True)


def parallel_coordinates(rows: Sequence[Row]) -> Figure:
    """Every run under every score as a line across its settings and results, coloured by AUROC."""
    keys = [key for key in rows[0].settings if len({repr(row.settings[key]) for row in rows}) > 1]
    columns: dict[str, list[Any]] = {heading(key): [] for key in keys} | {"score": [], "AUROC": [], "F1": []}
    for row in rows:
        for auroc, f1 in zip(row.values("auroc"), row.values("f1"), strict=True):
            if auroc is not None and f1 is not None:
                values = [*(row.settings[key] for key in keys), row.score, auroc, f1]
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
    figure = Figure(figsize=(max(6.0, 1.7 * len(columns)), 4.4), layout="constrained")
    axes = figure.add_subplot()
    heights = np.array([scaled(axes, x, column) for x, column in enumerate(columns.values())])
    aurocs = np.array(columns["AUROC"], dtype=np.float64)
    shades = Normalize(aurocs.min(), aurocs.max()) if aurocs.size else Normalize(0, 1)
    colours = mpl.colormaps["viridis"]
    jitter = np.linspace(-0.012, 0.012, len(aurocs))  # lines with the same settings stay apart
    for line in np.argsort(aurocs):
        axes.plot(heights[:, line] + jitter[line], color=colours(shades(aurocs[line])), linewidth=1.1, alpha=0.8)
    axes.set_xticks(range(len(columns)), [plain_name(name) for name in columns])
    axes.tick_params(axis="x", length=0, pad=10)
    axes.set_yticks([])
    axes.set(xlim=(-0.3, len(columns) - 0.5), ylim=(-0.06, 1.06))
    axes.spines[:].set_visible(False)
    figure.colorbar(ScalarMappable(shades, colours), ax=axes, label="AUROC", shrink=0.8)
    return figure


def scaled(axes: Axes, x: int, column: Sequence[Any]) -> Floats:
    """Places of a column's values on its axis from 0 to 1, drawn with its ticks; logarithmic where values span much."""
    distinct = sorted(set(column), key=order)
    axes.axvline(x, color=GREY, linewidth=0.8, zorder=0)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct) and len(distinct) > 1:
        low, high = float(distinct[0]), float(distinct[-1])
        logarithmic = low > 0 and high > 10 * low
        place = (
            (lambda v: math.log(v / low) / math.log(high / low))
            if logarithmic
            else (lambda v: (v - low) / (high - low))
        )
        ticks = distinct if len(distinct) <= 6 else [low, high]
    else:
        place = lambda v: (distinct.index(v) + 0.5) / len(distinct)  # noqa: E731
        ticks = distinct
    for value in ticks:
        text = f"{value:.3g}" if isinstance(value, float) else show(value) or "none"
        axes.text(
            x + 0.03,
            place(value) + 0.02,
            plain_name(text),
            fontsize=8,
            bbox={"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.8},
        )
    return np.array([place(value) for value in column])


def mean_roc(row: Row) -> tuple[Floats, Floats] | None:
    """False-call rates and recalls averaged over seeds (vertical averaging: Fawcett 2006, section 8); None without."""
    grid = np.linspace(0, 1, 201)
    recalls = [np.interp(grid, *curve) for run in row.runs if (curve := roc_of(run, row.score)) is not None]
    return (grid, np.mean(recalls, axis=0)) if recalls else None


def roc_of(run: Run, score: str) -> tuple[Floats, Floats] | None:
    """A run's ROC curve from its ``predictions.csv``; None where that is missing or has one class only."""
    try:
        lines = [line for _, line in read_table(run.folder / "predictions.csv", ("label", score))]
        labels, scores = [int(line["label"]) for line in lines], [float(line[score]) for line in lines]
    except (UserError, ValueError):
        return None
    return roc_points(scores, labels) if len(set(labels)) == 2 else None


def roc_overlay(curves: Sequence[tuple[Row, tuple[Floats, Floats]]]) -> Figure:
    """ROC curves of several settings under one score."""
    figure, axes = unit_square("false-call rate", "recall (1 - escape rate)")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(curves)))
    keys = [key for key in curves[0][0].settings if len({repr(row.settings[key]) for row, _ in curves}) > 1]
    for (row, (rates, recalls)), shade in zip(curves, shades, strict=True):
        name = ", ".join(f"{heading(key)} {show(row.settings[key]) or 'none'}" for key in keys) or row.score
        axes.plot(rates, recalls, color=shade, linewidth=1.6, label=plain_name(name))
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)  # covers no curve
    return figure
