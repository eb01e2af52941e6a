"""How the joints of one call look beside the normals that a checkpoint's thresholds come from."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from solder_vae.evaluation.looks import LOOKS, Looks
from solder_vae.inspection.inspector import Inspector
from solder_vae.metrics.drift import Drift, Statistic, compare

MAHALANOBIS = "mahalanobis"

_BEYOND = 0.75
"""Of the normals' scores, which three quarters of a batch must lie beyond: two thirds of it would have to be defective
to do that."""


class BatchLooks:
    """How the joints of a batch look, collected as they come.

    Args:
        inspector: whose checkpoint keeps what they are compared with.
    """

    def __init__(self, inspector: Inspector) -> None:
        self.inspector = inspector
        self._numbers = array("d")

    def add(self, looks: Looks) -> None:
        """Take in the next joint."""
        self._numbers.extend(looks)

    def drift(self, predictions: Sequence[Mapping[str, Any]]) -> Drift:
        """The batch beside the normals, by its looks and its scores.

        Args:
            predictions: the rows of the joints that were taken in.
        """
        kept = self.inspector.looks
        columns = np.frombuffer(self._numbers).reshape(-1, len(LOOKS)).T
        batch = dict(zip(LOOKS, columns, strict=True))
        reference = dict(kept)
        for statistic, name in score_statistics(self.inspector) if kept else []:
            batch[statistic] = np.array([prediction["scores"][name] for prediction in predictions])
            reference[statistic] = np.array(self.inspector.validation_scores[name])
        return compare(batch, reference, len(predictions))


def score_statistics(inspector: Inspector) -> list[tuple[Statistic, str]]:
    """The scores to compare: the one that decides, and the distance from the normals' mean in feature space."""
    found = [(Statistic(f"score ({inspector.primary})", "rank", _BEYOND), inspector.primary)]
    if MAHALANOBIS in inspector.thresholds and inspector.primary != MAHALANOBIS:
        found.append((Statistic("distance from the mean features", "rank", _BEYOND), MAHALANOBIS))
    return found
