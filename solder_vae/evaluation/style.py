"""Colours, axes and how a figure is saved: the look that all pictures share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from solder_vae.utils.files import atomic_file

if TYPE_CHECKING:
    from solder_vae.metrics.classification import Metrics

BLUE, VERMILION, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"


OTHERS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9")  # for the scores that do not decide


PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")


def save(figure: Figure, path: Path) -> None:
    """Write the figure whole or not at all, in the format of the path's suffix."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix.lstrip(".") or "png")


def style_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Logarithmic with plain numbers at 1, 2 and 5 where they fit, at 1 only over many decades."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    few = high <= 1000 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_at_threshold(axes: Axes, number: str, place: Literal["lower left", "lower right"]) -> None:
    title = f"{number} (dot: at the threshold)"
    axes.legend(title=title, frameon=False, loc=place, fontsize=9, title_fontsize=9, alignment="left")


def unit_square(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, x, y)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return figure, axes


def overlay_styles(scores: Mapping[str, ArrayLike], primary: str) -> Iterator[tuple[str, str, float]]:
    """Name, colour and line width of each curve; the primary's blue one last, on top."""
    others = [name for name in scores if name != primary]
    for place, name in enumerate(others):
        yield name, OTHERS[place % len(OTHERS)], 1.3
    yield primary, BLUE, 2.4


def mark_operating_point(axes: Axes, metrics: Metrics, x: str, y: str, colour: str) -> None:
    point = np.array([[metrics[x]], [metrics[y]]], dtype=np.float64)
    axes.plot(*point, "o", color=colour, markersize=8, markeredgecolor="white", zorder=3, clip_on=False)


def write_on(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=BLACK)


def plain_name(name: str) -> str:
    """A name as text: no mathematics between dollar signs, spaces for underscores."""
    return name.replace("$", r"\$").replace("_", " ")
