"""Fitting the scores that are fitted, after training, on normals as the trained model sees them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor

from solder_vae.data.image_files import Image
from solder_vae.data.table import ImageTable, drawn_rows
from solder_vae.data.transforms import to_images, to_tensor
from solder_vae.evaluation.run_model import run_model
from solder_vae.metrics.threshold import FEW_NORMALS
from solder_vae.models.detector import Detector
from solder_vae.models.scores import MEMORY, FitData, ModelOutput
from solder_vae.utils.threads import tracked

THUMBNAIL = 32
"""Pixels a side, 3 kB each: smaller than the features of most models."""

log = logging.getLogger(__name__)


def independent(table: ImageTable) -> list[int]:
    """The rows of validation normals that set a threshold: all, but of few each picture once.

    So few are joined by training normals that are left out in turn, and a copy that stays would stand in for each.
    """
    rows = table.different
    return rows if len(rows) < FEW_NORMALS else list(range(len(table)))


class TableExamples:
    """Rows of a table as a model sees them: :class:`solder_vae.models.scores.Examples`.

    Args:
        model: trained, in evaluation mode.
        table: with the images.
        rows: which of them, in ascending order.
        batch_size: images that pass through the network at once.
        what: they are, for the progress on a terminal.

    Attributes:
        names: of the scores that iterating gives.
    """

    def __init__(self, model: Detector, table: ImageTable, rows: Sequence[int], batch_size: int, what: str) -> None:
        self.model, self.table, self.rows, self.batch_size, self.what = model, table, list(rows), batch_size, what
        self.defects = [table.defects[row] for row in rows]
        self.names: tuple[str, ...] = ()
        self.types = None if table.types is None else [table.types[row] for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self) -> Iterator[Tensor]:
        """The images ``(B, 3, S, S)`` in [-1, 1], with progress on a terminal."""
        count, size = len(self), self.batch_size
        parts = (self.table.images[self.rows[start : start + size]] for start in range(0, count, size))
        return iter(tracked((to_tensor(part) for part in parts), self.what, math.ceil(count / size)))

    def __iter__(self) -> Iterator[ModelOutput]:
        needs = {need for score in self.model.scores.values() if score.fitted for need in score.needs}
        return run_model(self.model, self.batches(), names=self.names, needs=needs, types=self.types)

    @property
    def features(self) -> Tensor:
        return self._seen[0]

    @property
    def thumbnails(self) -> Tensor:
        return self._seen[1]

    @cached_property
    def _seen(self) -> tuple[Tensor, Tensor]:
        """Features and small pictures: from one pass, as large tables are decoded anew at each."""
        features: list[Tensor] = []
        small: list[Tensor] = []
        for x in self.batches():
            features.append(self.model.describe(x.to(self.model.device)).cpu())
            small.append(thumbnails(to_images(x)))
        return torch.cat(features), torch.cat(small)


def thumbnails(images: Iterable[Image]) -> Tensor:
    """Small pictures ``(N, s, s, 3)`` uint8, s = :data:`THUMBNAIL`, of N pictures ``(S, S, 3)`` uint8."""
    small = [cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for image in images]
    return torch.from_numpy(np.stack(small))


def fit_scores(
    model: Detector, tables: Mapping[str, ImageTable], batch_size: int, seed: int
) -> tuple[dict[str, Tensor], list[str]]:
    """Fit the scores of a model that are fitted.

    Args:
        model: trained, in evaluation mode, on the device to use.
        tables: "train", "val" and, where there are known defects, "known".
        batch_size: images that pass through the network at once.
        seed: of the choice where there are more than :data:`~solder_vae.models.scores.MEMORY` training normals.

    Returns:
        With fewer than ``FEW_NORMALS`` different validation normals, the scores of the N different training normals
        as if the score had not been fitted to each, ``(N,)`` by name of the scores that allow it, and their N component
        types ("": not known).
    """
    if not any(score.fitted for score in model.scores.values()):
        return {}, []
    train, counted = tables["train"], independent(tables["val"])
    few = len(counted) < FEW_NORMALS
    candidates = train.different if few else range(len(train))
    rows = [candidates[place] for place in drawn_rows(len(candidates), MEMORY, seed)]
    if len(rows) < len(candidates):
        log.info("fitted scores learn from %d of the %d training normals, drawn by seed", MEMORY, len(train))
    data = FitData(
        TableExamples(model, train, rows, batch_size, "normals"),
        validation := TableExamples(model, tables["val"], counted, batch_size, "validation"),
        TableExamples(model, known, range(len(known)), batch_size, "known defects")
        if (known := tables.get("known")) is not None
        else None,
        neighbour_features=model.neighbour_features,
    )
    left_out: dict[str, Tensor] = {}
    for name, score in model.scores.items():
        if score.fitted:
            validation.names = score.beside
            score.fit(data._replace(left_out=left_out))
        if few and score.leaves_one_out and score.usable:
            left_out[name] = score.leave_one_out(data._replace(left_out=left_out)).cpu()
    return left_out, list(data.normals.types or [""] * len(rows))
