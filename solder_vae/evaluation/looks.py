"""How photographs look, whatever is on them: brightness, contrast, sharpness, colour, size; for :mod:`~.metrics.drift`.

Measured on the picture as the network sees it, so that what a view takes away (brightness and colour of the controlled
one) is not compared either: it changes no score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.image_files import MIN_SIDE
from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import PLAIN
from solder_vae.metrics.drift import KEPT, Statistic, sample
from solder_vae.metrics.intervals import finite_number

BRIGHTNESS = Statistic("brightness", "ratio", 1.12)
CONTRAST = Statistic("contrast", "ratio", 1.15)
OVEREXPOSED = Statistic("overexposed pixels", "difference", 0.12)
SHARPNESS = Statistic("sharpness", "ratio", 1.75)
RED = Statistic("share of red", "ratio", 1.05)
BLUE = Statistic("share of blue", "ratio", 1.05)
SIZE = Statistic("size", "ratio", 2.0)

LOOKS = (BRIGHTNESS, CONTRAST, OVEREXPOSED, SHARPNESS, RED, BLUE, SIZE)
"""With changes that boards of one production, photographed alike, stay below (docs/use/line.md has the figures)."""

_IN_ANY_VIEW = (SHARPNESS, SIZE)

_WHITE = 250  # grey levels: of a saturated sensor, noise and compression leave about that

Looks = tuple[float, ...]
"""A value for each of :data:`LOOKS`."""


def looks_of(image: NDArray[np.uint8], native_size: Sequence[int]) -> Looks:
    """How a picture looks.

    Args:
        image: ``(S, S, 3)`` RGB, as the network sees it.
        native_size: height and width in pixels before cropping and resizing.

    Returns:
        Mean grey level, its standard deviation, the share of pixels above 249, the deviation of the Laplacian against
        that of the grey levels (so that contrast alone does not change it), red's and blue's shares of the colour, and
        the geometric mean of the native sides.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(grey))
    edges = _sharpness(grey, min(native_size))
    red, green, blue = cv2.mean(image)[:3]
    colour = max(red + green + blue, 1.0)
    white = float(np.count_nonzero(grey >= _WHITE) / grey.size)
    height, width = native_size
    return mean, deviation, white, edges, red / colour, blue / colour, (height * width) ** 0.5


def _sharpness(grey: NDArray[Any], native_side: int) -> float:
    """The deviation of the Laplacian against that of the grey levels, at the photograph's own resolution.

    Of a photograph that was made larger, all edges are soft.
    """
    side = max(min(native_side, len(grey)), MIN_SIDE)
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA) if side < len(grey) else grey
    edges, deviation = (float(cv2.meanStdDev(each)[1][0, 0]) for each in (cv2.Laplacian(small, cv2.CV_32F), small))
    return (edges + 1) / (deviation + 1)


def looks_of_table(table: ImageTable) -> list[Looks]:
    """:func:`looks_of` of a table's images; of more than a reference keeps, of evenly spaced ones."""
    rows = np.linspace(0, len(table) - 1, min(KEPT, len(table))).round().astype(int)
    return [looks_of(table.images[row], table.native_size[row]) for row in rows.tolist()]


def looks_to_keep(looks: Sequence[Looks], preprocessing: Mapping[str, Any] | None) -> dict[str, list[float]]:
    """What a checkpoint keeps of the looks of its normals: by name, of what is in pictures of its view."""
    shown = LOOKS if (preprocessing or {}).get("view", PLAIN) == PLAIN else _IN_ANY_VIEW
    columns = zip(LOOKS, np.array(looks, np.float64).reshape(-1, len(LOOKS)).T, strict=True)
    return {statistic.name: sample(values) for statistic, values in columns if statistic in shown and len(values)}


def kept_looks(state: Mapping[str, Any]) -> dict[Statistic, NDArray[np.float64]]:
    """What a checkpoint's decision state keeps; empty of those of earlier versions.

    Raises:
        TypeError, ValueError, AttributeError: it is damaged.
    """
    kept: Mapping[str, Iterable[Any]] = state.get("looks", {})
    known = {statistic.name: statistic for statistic in LOOKS}
    found = {known[name]: [finite_number(value) for value in values] for name, values in kept.items() if name in known}
    return {statistic: np.array(values) for statistic, values in found.items() if values}
