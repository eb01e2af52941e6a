"""The pictures of a run. Each function returns a figure of its own; nothing touches matplotlib's global state.

Colours are those of Okabe and Ito, told apart with any colour vision: blue for normal and right, vermilion for
abnormal and wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from solder_vae.data.table import NORMAL
from solder_vae.metrics.classification import Metrics, defect_recalls, pr_points, roc_points
from solder_vae.utils.files import replacing

BLUE, VERMILION, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"
OTHERS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9")  # of the scores that do not decide

_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")

Floats = NDArray[np.float64]


def save(figure: Figure, path: Path) -> None:
    """Write the figure whole or not at all, in the format of the path's suffix."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix.lstrip(".") or "png")


def loss_curves(history: Mapping[str, Sequence[float | None]]) -> Figure:
    """Every series against the epoch; ``train/x`` and ``val/x`` share a panel.

    Args:
        history: by name, one value an epoch, None or NaN where there is none. The epoch of the lowest ``val/loss``
            is marked: there the best checkpoint was taken.
    """
    panels: dict[str, dict[str, Floats]] = {}
    for name, values in history.items():
        series = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        panels.setdefault(name.rpartition("/")[2], {})[name] = series
    columns = min(3, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns) or 1
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    for position, (quantity, group) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, position)
        _style(axes, "epoch", quantity.replace("_", " "))
        for name, series in group.items():
            validation = name.startswith("val/")
            seen = np.flatnonzero(np.isfinite(series))
            axes.plot(
                seen + 1,  # epochs are counted from 1, as in the run's log
                series[seen],
                color=VERMILION if validation else BLUE,
                label="validation" if validation else "training",
                marker="o" if len(seen) < 2 else None,
            )
        shown = np.concatenate(list(group.values()))
        shown = shown[np.isfinite(shown)]
        if shown.size and shown.min() > 0 and shown.max() > 20 * shown.min():
            _log(axes, "y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if quantity == "loss" and np.isfinite(group.get("val/loss", np.array([]))).any():
            best = int(np.nanargmin(group["val/loss"])) + 1
            axes.axvline(best, color=GREY, linestyle=":", zorder=0, label=f"best: epoch {best}")
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(frameon=False, fontsize=8)
    return figure


def score_histogram(
    validation: ArrayLike, scores: ArrayLike, labels: ArrayLike, threshold: float, score: str = "anomaly"
) -> Figure:
    """Where normals and abnormals fall on the score's axis, and where the threshold cuts.

    The axis is logarithmic where positive scores span more than a decade. Scores far beyond the rest are counted in
    the end bins, and the title says so.

    Args:
        validation: ``(n,)`` scores of the validation normals.
        scores: ``(N,)`` test scores.
        labels: ``(N,)``, 1 = abnormal.
        threshold: abnormal is called iff ``score > threshold``.
        score: the score's name.
    """
    known, values, truth = np.asarray(validation, float), np.asarray(scores, float), np.asarray(labels)
    groups = [
        (known, "validation normals", GREY, True),
        (values[truth == 0], "test normals", BLUE, False),
        (values[truth == 1], "test abnormals", VERMILION, False),
    ]
    everything = np.concatenate([known, values, [threshold]])
    logarithmic = bool(0 < 10 * everything.min() < everything.max())
    edges = np.exp(_bins(np.log(everything), math.log(threshold))) if logarithmic else _bins(everything, threshold)

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    _style(axes, f"{_plain(score)} score" + (" (logarithmic)" if logarithmic else ""), "share of the group")
    for group, name, colour, filled in groups:
        if not group.size:
            continue
        counts, _ = np.histogram(np.clip(group, edges[0], edges[-1]), edges)
        axes.stairs(
            counts / group.size,
            edges,
            fill=filled,
            color=colour,
            alpha=0.45 if filled else 1.0,
            linewidth=1.8,
            label=f"{name} ({group.size})",
        )
    axes.axvline(threshold, color=BLACK, linestyle="--", linewidth=1.2, label=f"threshold {threshold:.4g}")
    if logarithmic:
        _log(axes, "x")
    beyond = int(((everything < edges[0]) | (everything > edges[-1])).sum())
    if beyond:
        axes.set_title(f"{beyond} scores beyond the axis are counted in its end bins", fontsize=8, loc="right")
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    return figure


def roc_curves(
    scores: Mapping[str, ArrayLike], labels: ArrayLike, results: Mapping[str, Metrics], primary: str
) -> Figure:
    """ROC curves overlaid, each with its operating point; the primary score's is drawn strongest.

    Args:
        scores: ``(N,)`` test scores, by the score's name.
        labels: ``(N,)``, 1 = abnormal.
        results: :func:`~solder_vae.metrics.classification.evaluate` of each score.
        primary: one of ``scores``.
    """
    figure, axes = _square("false-call rate", "recall (1 - escape rate)")
    if _both_classes(axes, labels):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance  0.500")
        for name, colour, width in _overlay(scores, primary):
            false_call_rate, recall = roc_points(scores[name], labels)
            label = f"{_plain(name)}  {results[name]['auroc']:.3f}"
            axes.plot(false_call_rate, recall, color=colour, linewidth=width, label=label)
            _operating_point(axes, results[name], "false_call_rate", "recall", colour)
        _legend(axes, "AUROC", "lower right")
    return figure


def pr_curves(
    scores: Mapping[str, ArrayLike], labels: ArrayLike, results: Mapping[str, Metrics], primary: str
) -> Figure:
    """Precision against recall, overlaid as in :func:`roc_curves`; the floor is the share of abnormals."""
    figure, axes = _square("recall (1 - escape rate)", "precision")
    if _both_classes(axes, labels):
        floor = float(np.mean(np.asarray(labels)))
        axes.axhline(floor, color=GREY, linestyle=":", label=f"all abnormal  {floor:.3f}")
        for name, colour, width in _overlay(scores, primary):
            recall, precision = pr_points(scores[name], labels)
            label = f"{_plain(name)}  {results[name]['average_precision']:.3f}"
            axes.step(recall, precision, where="post", color=colour, linewidth=width, label=label)
            _operating_point(axes, results[name], "recall", "precision", colour)
        _legend(axes, "average precision", "lower left")
    return figure


def defect_recall(metrics: Metrics, score: str) -> Figure:
    """Recall of each defect type with its 95 % interval, best caught on top.

    Args:
        metrics: :func:`~solder_vae.metrics.classification.evaluate` of the score.
        score: the score's name.
    """
    rows = sorted(defect_recalls(metrics), key=lambda row: (row.recall, row.n))
    figure = Figure(figsize=(7.0, 1.2 + 0.4 * max(1, len(rows))), layout="constrained")
    axes = figure.add_subplot()
    _style(axes, f"recall of {_plain(score)} (95 % interval)", "defect type, caught / all")
    places = np.arange(len(rows))
    recalls = np.array([row.recall for row in rows])
    spread = np.array([[row.recall - row.low for row in rows], [row.high - row.recall for row in rows]])
    axes.barh(places, recalls, height=0.6, color=BLUE, alpha=0.5)
    axes.errorbar(recalls, places, xerr=spread, fmt="o", color=BLACK, markersize=4, linewidth=1.2, capsize=3)
    axes.set_yticks(places, [f"{_plain(row.defect)}  {row.caught} / {row.n}" for row in rows])
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(_PERCENT)
    axes.grid(visible=False, axis="y")
    if not rows:
        _say(axes, "no abnormal joints")
    return figure


def kl_per_unit(kl: ArrayLike, active: int) -> Figure:
    """KL divergence of each latent unit from the prior, largest first: how much of the latent space is in use.

    Args:
        kl: ``(D,)`` mean over images, in nats.
        active: number of active units.
    """
    ordered = np.sort(np.asarray(kl, dtype=np.float64))[::-1]
    figure = Figure(figsize=(7.0, 3.4), layout="constrained")
    axes = figure.add_subplot()
    _style(axes, "latent unit, by KL", "KL per unit (nats)")
    axes.stairs(ordered, np.arange(len(ordered) + 1), fill=True, color=BLUE, alpha=0.6)
    if ordered.size and ordered[-1] > 0 and ordered[0] > 100 * ordered[-1]:
        _log(axes, "y")
    axes.axvline(active, color=BLACK, linestyle="--", linewidth=1.2)
    axes.set_title(f"{active} of {len(ordered)} units active, {ordered.sum():.1f} nats in all", fontsize=10, loc="left")
    axes.set_xlim(0, len(ordered))
    return figure


def choose_examples(scores: ArrayLike, defects: Sequence[str], count: int = 16) -> list[int]:
    """Rows of the test set worth showing, the same ones each time: half normals, half abnormals if there are enough.

    Of the normals the highest scores (false calls, if any) and the lowest in turn; of the defect types in turn the
    lowest score (an escape, if any), the highest, and so on inwards. Returned normals first, then type by type, by
    rising score.

    Args:
        scores: ``(N,)``.
        defects: N defect types.
        count: how many rows at most.
    """
    values = np.asarray(scores, dtype=np.float64)
    rising = np.argsort(values, kind="stable").tolist()
    normals = _inwards([row for row in reversed(rising) if defects[row] == NORMAL])
    types = sorted({defect for defect in defects if defect != NORMAL})
    queues = [_inwards([row for row in rising if defects[row] == defect]) for defect in types]
    abnormals = [row for turn in zip_longest(*queues) for row in turn if row is not None]
    n_abnormal = min(len(abnormals), max(count // 2, count - len(normals)))
    chosen = normals[: count - n_abnormal] + abnormals[:n_abnormal]
    return sorted(chosen, key=lambda row: (defects[row] != NORMAL, defects[row], values[row], row))


def reconstruction_grid(
    images: NDArray[np.uint8],
    reconstructions: NDArray[np.uint8],
    defects: Sequence[str],
    scores: ArrayLike,
    threshold: float,
    columns: int = 8,
) -> Figure:
    """The paper's Fig. 4: inputs with the truth above, reconstructions with prediction and score below.

    Blue frames are right decisions, vermilion ones wrong and named: false call or escape.

    Args:
        images: ``(n, S, S, 3)`` uint8, RGB.
        reconstructions: the same of the reconstructions.
        defects: n defect types.
        scores: ``(n,)``.
        threshold: abnormal is called iff ``score > threshold``.
        columns: joints beside each other.
    """
    values = np.asarray(scores, dtype=np.float64)
    columns = max(1, min(columns, len(values)))
    blocks = math.ceil(len(values) / columns) or 1
    figure = Figure(figsize=(0.5 + 1.3 * columns, 3.6 * blocks), layout=ConstrainedLayoutEngine(h_pad=0.08))
    for block, part in enumerate(np.atleast_1d(np.asarray(figure.subfigures(blocks, 1)))):
        grid = part.add_gridspec(2, columns)
        for column, row in enumerate(range(block * columns, min(len(values), (block + 1) * columns))):
            called, abnormal = bool(values[row] > threshold), defects[row] != NORMAL
            colour = BLUE if called == abnormal else VERMILION
            upper = _picture(part.add_subplot(grid[0, column]), images[row], colour)
            upper.set_title("\n".join(wrap(_plain(defects[row]), 14)), fontsize=9)
            lower = _picture(part.add_subplot(grid[1, column]), reconstructions[row], colour)
            verdict = "" if called == abnormal else "\nfalse call" if called else "\nescape"
            prediction = "abnormal" if called else NORMAL
            lower.set_xlabel(f"{prediction}\n{values[row]:.4g}{verdict}", fontsize=9, color=colour)
            if column == 0:
                upper.set_ylabel("input", fontsize=9)
                lower.set_ylabel("reconstruction", fontsize=9)
    return figure


def _picture(axes: Axes, image: NDArray[np.uint8], colour: str) -> Axes:
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
    return axes


def _inwards(rows: list[int]) -> list[int]:
    """First, last, second, second to last, and so on."""
    return [rows[place // 2] if place % 2 == 0 else rows[-1 - place // 2] for place in range(len(rows))]


def _style(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _log(axes: Axes, which: Literal["x", "y"]) -> None:
    """Logarithmic with plain numbers at 1, 2 and 5 where they fit, at 1 only over many decades."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    few = high <= 1000 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes, number: str, place: Literal["lower left", "lower right"]) -> None:
    title = f"{number} (dot: at the threshold)"
    axes.legend(title=title, frameon=False, loc=place, fontsize=9, title_fontsize=9, alignment="left")


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    _style(axes, x, y)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return figure, axes


def _overlay(scores: Mapping[str, ArrayLike], primary: str) -> Iterator[tuple[str, str, float]]:
    """Name, colour and line width of each curve; the primary's blue one last, on top."""
    others = [name for name in scores if name != primary]
    for place, name in enumerate(others):
        yield name, OTHERS[place % len(OTHERS)], 1.3
    yield primary, BLUE, 2.4


def _operating_point(axes: Axes, metrics: Metrics, x: str, y: str, colour: str) -> None:
    point = np.array([[metrics[x]], [metrics[y]]], dtype=np.float64)
    axes.plot(*point, "o", color=colour, markersize=8, markeredgecolor="white", zorder=3, clip_on=False)


def _both_classes(axes: Axes, labels: ArrayLike) -> bool:
    both = len(np.unique(np.asarray(labels))) == 2
    if not both:
        _say(axes, "undefined: the test set\nneeds normals and abnormals")
    return both


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=BLACK)


def _bins(values: Floats, threshold: float) -> Floats:
    """About 30 bin edges over all but far-off values; one is the threshold, so that no bin lies on both sides."""
    core_low, core_high = np.quantile(values, [0.01, 0.99])
    reach = 0.5 * (core_high - core_low)
    low = min(max(values.min(), core_low - reach), threshold)
    high = max(min(values.max(), core_high + reach), threshold)
    step = (high - low) / 30 or 1.0  # a constant score gets a bin, too
    return threshold + step * np.arange(
        math.floor((low - threshold) / step), max(1, math.ceil((high - threshold) / step)) + 1
    )


def _plain(name: str) -> str:
    """A name as text: no mathematics between dollar signs, spaces for underscores."""
    return name.replace("$", r"\$").replace("_", " ")
