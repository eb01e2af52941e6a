"""The pictures of a run. Each function returns a figure of its own; nothing touches matplotlib's global state.

Colours are those of Okabe and Ito, told apart with any colour vision: blue for normal and right, vermilion for
abnormal and wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from solder_vae.evaluation.style import (
    BLACK,
    BLUE,
    GREY,
    PERCENT,
    VERMILION,
    legend_at_threshold,
    log_axis,
    mark_operating_point,
    overlay_styles,
    plain_name,
    style_axes,
    unit_square,
    write_on,
)
from solder_vae.metrics.classification import SHOWN, Metrics, defect_recalls, pr_points, roc_points, worst
from solder_vae.metrics.trade_off import operating_point

Floats = NDArray[np.float64]


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
        style_axes(axes, "epoch", quantity.replace("_", " "))
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
            log_axis(axes, "y")
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
    style_axes(axes, f"{plain_name(score)} score" + (" (logarithmic)" if logarithmic else ""), "share of the group")
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
        log_axis(axes, "x")
    beyond = int(((everything < edges[0]) | (everything > edges[-1])).sum())
    if beyond:
        axes.set_title(f"{beyond} scores beyond the axis are counted in its end bins", fontsize=8, loc="right")
    axes.yaxis.set_major_formatter(PERCENT)
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
    figure, axes = unit_square("false-call rate", "recall (1 - escape rate)")
    if _both_classes(axes, labels):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance  0.500")
        for name, colour, width in overlay_styles(scores, primary):
            false_call_rate, recall = roc_points(scores[name], labels)
            label = f"{plain_name(name)}  {results[name]['auroc']:.3f}"
            axes.plot(false_call_rate, recall, color=colour, linewidth=width, label=label)
            mark_operating_point(axes, results[name], "false_call_rate", "recall", colour)
        legend_at_threshold(axes, "AUROC", "lower right")
    return figure


def pr_curves(
    scores: Mapping[str, ArrayLike], labels: ArrayLike, results: Mapping[str, Metrics], primary: str
) -> Figure:
    """Precision against recall, overlaid as in :func:`roc_curves`; the floor is the share of abnormals."""
    figure, axes = unit_square("recall (1 - escape rate)", "precision")
    if _both_classes(axes, labels):
        floor = float(np.mean(np.asarray(labels)))
        axes.axhline(floor, color=GREY, linestyle=":", label=f"all abnormal  {floor:.3f}")
        for name, colour, width in overlay_styles(scores, primary):
            recall, precision = pr_points(scores[name], labels)
            label = f"{plain_name(name)}  {results[name]['average_precision']:.3f}"
            axes.step(recall, precision, where="post", color=colour, linewidth=width, label=label)
            mark_operating_point(axes, results[name], "recall", "precision", colour)
        legend_at_threshold(axes, "average precision", "lower left")
    return figure


def defect_recall(metrics: Metrics, score: str) -> Figure:
    """Recall of each defect type with its 95 % interval, best caught on top; of many types the worst.

    Args:
        metrics: :func:`~solder_vae.metrics.classification.evaluate` of the score.
        score: the score's name.
    """
    everything = defect_recalls(metrics)
    rows = sorted(worst(everything), key=lambda row: (row.recall, row.n))
    figure = Figure(figsize=(7.0, 1.2 + 0.4 * max(1, len(rows))), layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, f"recall of {plain_name(score)} (95 % interval)", "defect type, caught / all")
    places = np.arange(len(rows))
    recalls = np.array([row.recall for row in rows])
    spread = np.array([[row.recall - row.low for row in rows], [row.high - row.recall for row in rows]])
    axes.barh(places, recalls, height=0.6, color=BLUE, alpha=0.5)
    axes.errorbar(recalls, places, xerr=spread, fmt="o", color=BLACK, markersize=4, linewidth=1.2, capsize=3)
    axes.set_yticks(places, [f"{plain_name(row.defect)}  {row.caught} / {row.n}" for row in rows])
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(visible=False, axis="y")
    if not rows:
        write_on(axes, "no abnormal joints")
    if len(everything) > len(rows):
        axes.set_title(f"the {SHOWN} worst of {len(everything)} defect types", fontsize=10, loc="left")
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
    style_axes(axes, "latent unit, by KL", "KL per unit (nats)")
    axes.stairs(ordered, np.arange(len(ordered) + 1), fill=True, color=BLUE, alpha=0.6)
    if ordered.size and ordered[-1] > 0 and ordered[0] > 100 * ordered[-1]:
        log_axis(axes, "y")
    axes.axvline(active, color=BLACK, linestyle="--", linewidth=1.2)
    axes.set_title(f"{active} of {len(ordered)} units active, {ordered.sum():.1f} nats in all", fontsize=10, loc="left")
    axes.set_xlim(0, len(ordered))
    return figure


def _both_classes(axes: Axes, labels: ArrayLike) -> bool:
    both = len(np.unique(np.asarray(labels))) == 2
    if not both:
        write_on(axes, "undefined: the test set\nneeds normals and abnormals")
    return both


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


def trade_off_figure(normals: ArrayLike, abnormals: ArrayLike, chosen: float, score: str) -> Figure:
    """False calls per 1000 good joints against escapes per 1000 bad ones, or against the threshold where no bad
    joints are known; each with the chosen threshold.

    Args:
        normals: ``(n,)`` scores of good joints.
        abnormals: ``(m,)`` scores of bad joints, or none.
        chosen: the threshold that was set.
        score: the score's name.
    """
    good, bad = np.sort(np.asarray(normals, np.float64)), np.sort(np.asarray(abnormals, np.float64))
    cuts = np.unique(np.concatenate([good, bad, [chosen]]))

    def false_calls(thresholds: Floats) -> Floats:
        return 1000 * (1 - np.searchsorted(good, thresholds, side="right") / good.size)

    def across(thresholds: Floats) -> Floats:
        return 1000 * np.searchsorted(bad, thresholds, side="right") / bad.size if bad.size else thresholds

    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.step(false_calls(cuts), across(cuts), where="post", color=BLUE, linewidth=2)
    here = operating_point(good, bad, chosen, chosen)
    y = across(np.array([chosen]))
    low, high = here.false_calls_interval
    axes.errorbar(
        [here.false_calls],
        y,
        xerr=[[here.false_calls - low], [high - here.false_calls]],
        yerr=None
        if here.escapes is None or here.escapes_interval is None
        else [[here.escapes - here.escapes_interval[0]], [here.escapes_interval[1] - here.escapes]],
        fmt="o",
        color=VERMILION,
        ecolor=BLACK,
        elinewidth=1,
        capsize=3,
        label=f"threshold {chosen:.4g} (95 % intervals)",
        zorder=3,
    )
    axes.set_xscale("symlog", linthresh=1000 / good.size)
    axes.set_xlim(0, 1000)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    other = f"escapes per 1000 bad joints ({bad.size} known)" if bad.size else f"threshold of {score}"
    style_axes(axes, f"false calls per 1000 good joints ({good.size} known)", other)
    axes.legend(frameon=False)
    return figure
