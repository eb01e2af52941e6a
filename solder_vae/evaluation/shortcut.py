"""Shortcuts: ways to tell defects from good joints without looking at solder.

Where normals and defects were photographed in different ways, a trivial feature tells them apart, and so may a network,
whatever it was meant to learn. This is found before any training, from the tables alone.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solder_vae.data.table import ImageTable
from solder_vae.data.view import CONTROLLED, PLAIN
from solder_vae.evaluation.baselines import SIZE, Floats, trivial_scores
from solder_vae.metrics.classification import evaluate

AUROC, LOW = 0.8, 0.7
"""A shortcut is a baseline whose AUROC is at least the one, with the lower end of its 95 % interval at least the other.

A mean shift of 1.2 standard deviations between two normal distributions gives the first; the second keeps test sets of
a dozen images, on which one of four baselines is often lucky, from raising the alarm.
"""


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
    """Every trivial baseline, fitted to the training normals and measured on other images, the highest first.

    Args:
        train: normals, 1 at least.
        other: images to tell apart; without both classes the result is empty.
    """
    labels = other.labels
    if not len(train) or not 0 < labels.sum() < len(labels):
        return []
    return aurocs(trivial_scores(train, other), labels, other.defects)


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
    """One line for who is about to train on data with a shortcut; None where there is none.

    Args:
        tables: "train" and "test".
        view: the training's, see :mod:`solder_vae.data.view`.
        root: ``data.root``; None for the embedded set.
    """
    found = shortcuts(measure(tables["train"], tables["test"]), view)
    if not found:
        return None
    data = f"data.root={shlex.quote(str(root))}" if root is not None else "data=synthetic"
    way_out = "" if view == CONTROLLED else ", and train with data.view=controlled to see what of a result survives"
    return (
        f"Shortcut: AUROC [95 %] on this test set without looking at solder: {', '.join(map(str, found))}. "
        f"See python -m solder_vae.audit {data} out=audit{way_out}."
    )
