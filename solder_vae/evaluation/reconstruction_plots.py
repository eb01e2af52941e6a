"""Reconstructions beside their images, the right and the wrong verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike, NDArray

from solder_vae.data.image_files import Image
from solder_vae.data.table import ImageTable
from solder_vae.evaluation.style import (
    BLUE,
    VERMILION,
    plain_name,
)
from solder_vae.metrics.classification import SHOWN
from solder_vae.utils.labels import NORMAL


def choose_examples(scores: ArrayLike, defects: Sequence[str], count: int = 16) -> list[int]:
    """Rows of the test set worth showing, the same ones each time: half normals, half abnormals if there are enough.

    Of the normals the highest scores (false calls, if any) and the lowest in turn; of the defect types in turn the
    lowest score (an escape, if any), the highest, and so on inwards; of many types those with the lowest scores.
    Returned normals first, then type by type, by rising score.

    Args:
        scores: ``(N,)``.
        defects: N defect types.
        count: how many rows at most.
    """
    values = np.asarray(scores, dtype=np.float64)
    rising = np.argsort(values, kind="stable").tolist()
    normals = _inwards([row for row in reversed(rising) if defects[row] == NORMAL])
    lowest = {defects[row]: values[row] for row in reversed(rising) if defects[row] != NORMAL}
    types = sorted(sorted(lowest, key=lambda defect: (lowest[defect], defect))[:SHOWN])
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
    what: str = "reconstruction",
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
        what: is shown below each.
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
            upper.set_title("\n".join(wrap(plain_name(defects[row]), 14)), fontsize=9)
            lower = _picture(part.add_subplot(grid[1, column]), reconstructions[row], colour)
            verdict = "" if called == abnormal else "\nfalse call" if called else "\nescape"
            prediction = "abnormal" if called else NORMAL
            lower.set_xlabel(f"{prediction}\n{values[row]:.4g}{verdict}", fontsize=9, color=colour)
            if column == 0:
                upper.set_ylabel("input", fontsize=9)
                lower.set_ylabel(what, fontsize=9)
    return figure


def heat_pictures(maps: NDArray[np.float32]) -> Image:
    """Anomaly maps ``(n, S, S)`` in their unit as pictures ``(n, S, S, 3)``: black 0, white 3 and more."""
    colours: Image = (255 * colormaps["magma"](np.clip(maps / 3, 0, 1))[..., :3]).round().astype(np.uint8)
    return colours


def _picture(axes: Axes, image: NDArray[np.uint8], colour: str) -> Axes:
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
    return axes


def _inwards(rows: list[int]) -> list[int]:
    """First, last, second, second to last, and so on."""
    return [rows[place // 2] if place % 2 == 0 else rows[-1 - place // 2] for place in range(len(rows))]


def reconstructions(
    recon: Callable[[list[int]], Image],
    table: ImageTable,
    scores: NDArray[np.float64],
    threshold: float,
    what: str = "reconstruction",
) -> Figure:
    """The paper's Fig. 4: two joints of each defect type, and as many normal ones; of many types the worst.

    Args:
        recon: the reconstructions ``(n, S, S, 3)`` uint8 of some of the table's rows.
        table: the test images.
        scores: theirs, ``(N,)``.
        threshold: abnormal is called iff ``score > threshold``.
        what: ``recon`` gives, if it is something else.
    """
    types = min(SHOWN, len(set(table.defects) - {NORMAL}))
    shown = choose_examples(scores, table.defects, count=max(16, 4 * types))
    images = table.images[shown]
    return reconstruction_grid(
        images, recon(shown), [table.defects[row] for row in shown], scores[shown], threshold, what=what
    )
