"""Trivial baselines: how far colour, contrast, sharpness, size or the pixels alone tell defects from normals.

If one of the first four does as well as a network, the photographs of normals and defects may differ in how they were
taken, and the network's result proves little. They are called shortcuts. The fifth compares each image with the
training normals pixel by pixel. It is no shortcut, since it looks at the joint: a network that does no better has
learnt nothing beyond it, or recognises the board as it does. All five stand beside every result.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.image_files import LUMA
from solder_vae.data.similarity import Units, nearest_correlations, unit_pictures
from solder_vae.data.table import Images, ImageTable, drawn_rows
from solder_vae.data.transforms import CONTROLLED, PLAIN
from solder_vae.metrics.classification import evaluate

Floats = NDArray[np.float64]
Features = dict[str, Floats]

SHORTCUTS = MEAN_COLOUR, CONTRAST, SHARPNESS, SIZE = ("mean colour", "contrast", "sharpness", "size")
NEAREST = "nearest pixels"
BASELINES = (*SHORTCUTS, NEAREST)

NEAREST_OF = 10_000
"""Training normals that an image is compared with, pixel by pixel. Of more, a subset drawn by a fixed seed: 200,000
would take 20 times as long and 460 MB."""

_SAME_COLOUR = 0.5
"""Grey levels. Means and deviations closer than this to the training normals' average count as equal to it: smaller
differences come from the rounding to 8 bits, and a rank statistic would take them for information."""

_PIXELS_AT_ONCE = 1 << 22  # of the images that are made small at once

_FEATURES: WeakKeyDictionary[ImageTable, Features] = WeakKeyDictionary()
_NEAREST: WeakKeyDictionary[ImageTable, tuple[Units, WeakKeyDictionary[ImageTable, Floats]]] = WeakKeyDictionary()


def trivial_scores(train: ImageTable, other: ImageTable) -> dict[str, Floats]:
    """How far each image is from the training normals, in trivial ways.

    Args:
        train: normal images to measure from; 1 at least.
        other: N images to score.

    Returns:
        ``(N,)`` scores, one for each of :data:`BASELINES`, higher = more anomalous: the Mahalanobis distances of four
        features, and :func:`nearest_pixels`.
    """
    return {**shortcut_scores(train, other), NEAREST: nearest_pixels(train, other)}


def shortcut_scores(train: ImageTable, other: ImageTable) -> dict[str, Floats]:
    """The first four of :func:`trivial_scores`."""
    return distances(trivial_features(train), trivial_features(other))


def nearest_pixels(train: ImageTable, other: ImageTable) -> Floats:
    """1 minus the correlation with the most similar training normal, ``(N,)`` from 0 to 2.

    Grey pictures of at most 24 px a side are compared, in eight orientations (quarter turns, mirrored or not), see
    :mod:`solder_vae.data.similarity`. Computed once for each pair of tables.
    """
    if train not in _NEAREST:
        rows = np.array(drawn_rows(len(train), NEAREST_OF))
        _NEAREST[train] = np.concatenate(list(_small(train.images, rows))), WeakKeyDictionary()
    units, known = _NEAREST[train]
    if other not in known:
        parts = [1 - nearest_correlations(part, units) for part in _small(other.images, np.arange(len(other)))]
        known[other] = np.concatenate([np.empty(0), *parts])
    return known[other]


def _small(images: Images, rows: NDArray[np.int64]) -> Iterator[Units]:
    """:func:`unit_pictures` of some rows, some at a time."""
    size = max(1, _PIXELS_AT_ONCE // images.shape[1] ** 2)
    for start in range(0, len(rows), size):
        yield unit_pictures(images[rows[start : start + size]])


def distances(of_train: Features, of_other: Features) -> dict[str, Floats]:
    """:func:`shortcut_scores` from the features of both."""
    scores = {}
    for name, fitted_to in of_train.items():
        features = of_other[name]
        if name in (MEAN_COLOUR, CONTRAST):
            average = fitted_to.mean(axis=0)
            features = np.where(np.abs(features - average) < _SAME_COLOUR, average, features)
        scores[name] = mahalanobis(fitted_to, features)
    return scores


def trivial_features(table: ImageTable) -> Features:
    """:func:`named_features` of a table's images; computed once for each table, since that goes through all images."""
    if table not in _FEATURES:
        _FEATURES[table] = named_features([colour_and_edges(image) for image in table.images], table.native_size)
    return dict(_FEATURES[table])


def named_features(colours_and_edges: Sequence[Floats], native_size: NDArray[np.int64]) -> Features:
    """The features of N images, each ``(N, D)``.

    "mean colour": mean RGB (D = 3); "contrast": mean and standard deviation of RGB (6); "sharpness":
    logarithm of the variance of the grey image's Laplacian (1); "size": logarithm of native height and
    width (2).

    Args:
        colours_and_edges: :func:`colour_and_edges` of each image.
        native_size: ``(N, 2)``, height and width in pixels.
    """
    rows = np.array(colours_and_edges).reshape(-1, 7)
    return {
        MEAN_COLOUR: rows[:, :3],
        CONTRAST: rows[:, :6],
        SHARPNESS: np.log(rows[:, 6:] + 1.0),  # + 1 grey level, so that a constant image has a logarithm
        SIZE: np.log(native_size.astype(np.float64)),
    }


def colour_and_edges(image: NDArray[np.uint8]) -> Floats:
    """Mean RGB, its standard deviation, variance of the Laplacian, ``(7,)``."""
    mean, std = cv2.meanStdDev(image)
    return np.array([*mean[:, 0], *std[:, 0], cv2.Laplacian(image @ LUMA, cv2.CV_64F).var()])


def mahalanobis(fitted_to: Floats, features: Floats) -> Floats:
    """Mahalanobis distance sqrt((f - m)^T S^-1 (f - m)); m, S are the mean and covariance of ``fitted_to``.

    S gets a small ridge, a millionth of its own scale plus 1e-9, so that constant or collinear features
    (grey images, one size for all) don't make it singular.

    Args:
        fitted_to: ``(M, D)``, M >= 1.
        features: ``(N, D)``.

    Returns:
        ``(N,)``.
    """
    mean = fitted_to.mean(axis=0)
    centred = fitted_to - mean
    covariance = centred.T @ centred / len(fitted_to)
    ridge = 1e-6 * np.trace(covariance) / len(mean) + 1e-9
    offset = features - mean
    solved = np.linalg.solve(covariance + ridge * np.eye(len(mean)), offset.T).T
    squared: Floats = np.einsum("nd,nd->n", offset, solved)
    return np.sqrt(squared)


AUROC, LOW = 0.8, 0.7


class TrivialAuroc(NamedTuple):
    """AUROC of one trivial baseline, with its 95 % bootstrap interval."""

    baseline: str
    auroc: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.baseline} {self.auroc:.3f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def is_shortcut(self) -> bool:
        return self.auroc >= AUROC and self.low >= LOW


def measure(train: ImageTable, other: ImageTable) -> list[TrivialAuroc]:
    """The baselines that may be shortcuts, fitted to the training normals, measured on other images, the highest first.

    Args:
        train: normals, 1 at least.
        other: images to tell apart; without both classes the result is empty.
    """
    labels = other.labels
    if not len(train) or not 0 < labels.sum() < len(labels):
        return []
    return aurocs(shortcut_scores(train, other), labels, other.defects)


def aurocs(scores: Mapping[str, Floats], labels: NDArray[np.int64], defects: Sequence[str]) -> list[TrivialAuroc]:
    """How well each baseline's scores tell abnormals (label 1) from normals (0), both there; the highest first."""
    results = []
    for name, values in scores.items():
        metrics = evaluate(values, labels, defects, threshold=math.inf)
        numbers = (metrics[key] for key in ("auroc", "auroc_low", "auroc_high"))
        results.append(TrivialAuroc(name, *(float(number or 0.0) for number in numbers)))
    return sorted(results, key=lambda result: -result.auroc)


def visible(baseline: str, view: str) -> bool:
    """Whether what a baseline looks at is in the pictures of a view; size is not in the controlled ones."""
    return view == PLAIN or baseline != SIZE


def shortcuts(measured: Sequence[TrivialAuroc], view: str) -> list[TrivialAuroc]:
    """Those of the baselines that are shortcuts in a view."""
    return [result for result in measured if result.is_shortcut and visible(result.baseline, view)]


def shortcut_warning(tables: Mapping[str, ImageTable], view: str, root: str | Path | None) -> str | None:
    """One line of warning before training on data with a shortcut; None if there is none.

    Args:
        tables: "train" and "test".
        view: of the run, see :mod:`solder_vae.data.transforms`.
        root: ``data.root``; None for the embedded set.
    """
    found = shortcuts(measure(tables["train"], tables["test"]), view)
    if not found:
        return None
    data = f"data.root={shlex.quote(str(root))}" if root is not None else "data=synthetic"
    way_out = "" if view == CONTROLLED else ", and train with data.view=controlled to see how much of a result survives"
    return (
        f"Shortcut: AUROC [95 %] on this test set without looking at solder: {', '.join(map(str, found))}. "
        f"See python -m solder_vae.audit {data} out=audit{way_out}."
    )
