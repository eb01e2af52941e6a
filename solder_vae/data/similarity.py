"""How alike pictures are: the correlation of small grey ones, the better of eight orientations.

Joints of one board look alike, so a detector that looks for the nearest normal also recognises boards. The same measure
therefore serves a trivial baseline (:mod:`solder_vae.evaluation.baselines`) and a split that keeps look-alikes together
(:mod:`solder_vae.data.splits`).
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

from solder_vae.data.image_files import LUMA, Image
from solder_vae.utils.threads import tracked

SIDE = 24
"""Pixels a side that are compared; smaller pictures are compared as they are."""

_CONSTANT = 0.5
"""Grey levels. A picture whose standard deviation is below this is constant: the rest is the rounding to 8 bits."""

_AT_ONCE = 1 << 23
"""Correlations in memory at once: 32 MB."""

Units = NDArray[np.float32]


def unit_pictures(images: Image) -> Units:
    """Small grey pictures as vectors whose product is their correlation.

    Each has mean 0 and norm 1. Constant ones, which have no correlation, get a direction of their own: they are alike
    (1) to one another, and unlike (0) all others.

    Args:
        images: ``(N, S, S, 3)`` uint8.

    Returns:
        ``(N, s * s + 1)``, s the smaller of S and :data:`SIDE`.
    """
    count, side = len(images), min(SIDE, images.shape[1])
    small = np.empty((count, side * side), np.float64)
    for row, image in enumerate(images):
        small[row] = cv2.resize(image @ LUMA, (side, side), interpolation=cv2.INTER_AREA).reshape(-1)
    small -= small.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(small, axis=1)
    constant = norms < _CONSTANT * side
    units = np.zeros((count, side * side + 1), np.float32)
    units[~constant, :-1] = small[~constant] / norms[~constant, None]
    units[constant, -1] = 1
    return units


def orientations(units: Units) -> Units:
    """Pictures turned by quarters and mirrored, ``(8, N, D)`` of ``(N, D)``; the first are the pictures themselves."""
    count, length = units.shape
    side = round((length - 1) ** 0.5)
    square = units[:, :-1].reshape(count, side, side)
    turned = np.repeat(units[None], 8, axis=0)
    for place in range(8):
        mirrored = square[:, :, ::-1] if place >= 4 else square
        turned[place, :, :-1] = np.rot90(mirrored, place % 4, axes=(1, 2)).reshape(count, -1)
    return turned


def nearest_correlations(units: Units, among: Units) -> NDArray[np.float64]:
    """Each picture's correlation with the most similar of others, in the better of eight orientations.

    Args:
        units: :func:`unit_pictures`, ``(N, D)``.
        among: ``(M, D)``, M >= 1.

    Returns:
        ``(N,)`` in [-1, 1], to five decimals, which single precision is good for.
    """
    best = np.empty(len(units))
    for rows, correlations in _blocks(units, among):
        best[rows] = correlations.max(axis=1)
    return np.round(best.clip(-1, 1), 5)


def lookalikes(units: Units, above: float) -> NDArray[np.int64]:
    """The groups that look-alikes form through any number of steps (single linkage).

    Every picture is compared with every other, which takes about half a second for 2,000 and a minute for 20,000 on a
    core. Shows a progress bar on a terminal.

    Args:
        units: :func:`unit_pictures`, ``(N, D)``.
        above: pictures with this correlation or more, in one of eight orientations, are alike.

    Returns:
        ``(N,)`` number of each picture's group.
    """
    group = np.arange(len(units))
    steps = -(-len(units) // _rows_at_once(len(units)))
    for rows, correlations in tracked(_blocks(units, units), "Comparing images", steps):
        first, second = np.nonzero(correlations >= above)
        links = coo_matrix(
            (np.ones(len(first), bool), (group[first + rows.start], group[second])), shape=(len(units), len(units))
        )
        group = connected_components(links, directed=False)[1][group].astype(np.int64)
    return group


def _blocks(units: Units, among: Units) -> Iterator[tuple[slice, Units]]:
    """Block by block, some rows of ``units`` and their correlations ``(n, M)`` with all of ``among``."""
    size = _rows_at_once(len(among))
    for start in range(0, len(units), size):
        rows = slice(start, min(start + size, len(units)))
        turned = orientations(units[rows])
        products = turned.reshape(-1, units.shape[1]) @ among.T
        yield rows, products.reshape(8, -1, len(among)).max(axis=0)


def _rows_at_once(others: int) -> int:
    return max(1, _AT_ONCE // (8 * max(others, 1)))
