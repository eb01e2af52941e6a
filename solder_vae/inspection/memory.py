"""Other normals to compare with, without training: what ``memory=`` of ``python -m solder_vae.threshold`` does.

Scores then come from leaving one out: no normal is compared with itself, else all would look closer than a new one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solder_vae.data.table import drawn_rows
from solder_vae.evaluation.evaluate import Scores
from solder_vae.inspection.joints import Joint
from solder_vae.models.combined import Combined
from solder_vae.models.detector import Detector
from solder_vae.models.history import MEMORY as HISTORY
from solder_vae.models.history import Entry, entry
from solder_vae.models.mahalanobis import Mahalanobis, left_out_distances
from solder_vae.models.neighbours import Knn, nearest
from solder_vae.models.scores import MEMORY
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import printable

log = logging.getLogger(__name__)

KEEP = "keep"
ADD = "add"

_SAME = 1e-3
"""Deviations a feature by which two pictures differ at most that are the same one, computed twice."""


def memory_entry(model: Detector, count: int, how: str, given: str) -> Entry:
    """What a checkpoint's log says of a memory that was changed.

    Args:
        model: with its new memory.
        count: how many normals were given.
        how: "add" or "replace".
        given: the option that gave them.
    """
    total = len(memory_of(model).memory)
    done = f"{count} joints added to the memory" if how == ADD else f"memory replaced by {count} joints"
    return entry(HISTORY, f"{done} ({given}); it holds {total} now", done)


def at_most(joints: list[Joint]) -> list[Joint]:
    """The joints; of more than a memory holds a seeded choice."""
    rows = drawn_rows(len(joints), MEMORY)
    if len(rows) < len(joints):
        log.info("the memory holds %d of the %d normals, drawn by seed", MEMORY, len(joints))
    return [joints[row] for row in rows]


def memory_of(model: Detector) -> Knn:
    """The score of a model that remembers normals.

    Raises:
        UserError: there is none, or a score of somebody else's reads it and cannot be renewed.
    """
    knn = model.scores.get("knn")
    if not isinstance(knn, Knn) or not len(knn.memory):
        raise UserError(
            f"The checkpoint's scores ({', '.join(model.admitted_scores)}) remember no normals by features, so there "
            "is no memory to change: leave memory= out, or train with score=knn or score=combined."
        )
    ours = (Knn, Mahalanobis, Combined)
    for name, score in model.scores.items():
        if {"knn", "mahalanobis"} & {*score.beside} and not isinstance(score, ours):
            raise UserError(f"score={name} reads knn and cannot be renewed with it: leave memory= out.")
    return knn


def are_among(points: Tensor, others: Tensor) -> Tensor:
    """Which standardised features ``(B, D)`` are of a picture that is among others ``(N, D)``, too: ``(B,)`` bool."""
    return nearest(points, others, 1)[0][:, 0] <= _SAME * math.sqrt(points.shape[1])


def tell_of_remembered(model: Detector, primary: str, features: Tensor) -> None:
    """Warn of normals ``(N, D)`` that the score that decides finds again in its memory, which stays as it is."""
    knn = model.scores.get("knn")
    if primary in ("knn", "combined") and isinstance(knn, Knn):
        count = int(are_among(knn.standard(features), knn.memory).sum())
        if count:
            log.warning(
                "%d of the %d normals are in the memory already, so they look closer than new ones, of which more will "
                "be called than is promised: give others, or memory=add, which compares each with the others.",
                count,
                len(features),
            )


def check_types(model: Detector, types: Sequence[str], what: str, regex: str | None) -> None:
    """Check that normals that are to be added can enter the parts of a memory that is divided by component type.

    Args:
        model: with the memory.
        types: the normals', "" where not known.
        what: they are, in words.
        regex: that the checkpoint finds types in paths by, if any.

    Raises:
        UserError: no type is known.
    """
    kinds = memory_of(model).kinds
    if kinds and not any(types):
        named = ", ".join(map(printable, list(kinds)[:5])) + ", ..." * (len(kinds) > 5)
        by_path = f", or paths in which the checkpoint's data.type_regex={regex} finds one" if regex else ""
        raise UserError(
            f"memory=add: the memory compares joints within their component types ({named}), and no type is known of "
            f"the {len(types)} {what}: give a table with the columns path and type{by_path}."
        )


def renew(
    model: Detector,
    scores: Scores,
    features: Tensor,
    types: Sequence[str],
    how: str,
    pictures: Tensor | None = None,
    extend: bool = False,
) -> Scores:
    """Give the scores of a model that compare with normals other normals.

    The classifier keeps what it learned. More than :data:`~solder_vae.models.scores.MEMORY` are not remembered: the
    given ones come first, of the earlier ones evenly spaced ones stay.

    Args:
        model: its knn, mahalanobis and combined are changed.
        scores: of N normals, by name of the score, as the model scored them before.
        features: theirs, ``(N, D)``, on the CPU; N is :data:`~solder_vae.models.scores.MEMORY` or less.
        types: their component types, "" where not known.
        how: "add" them to those that are remembered, or "replace" these.
        pictures: small ones of them, ``(N, s, s, 3)`` uint8, if any.
        extend: whether they are few and no sample of the normals, such as false calls: they are remembered, and all
            that other normals have set stays: the features' means and deviations, the covariance, the scale of
            combined. So no joint gets a higher score than before by knn, and thresholds still hold.

    Returns:
        The normals' scores by the new memory, each normal compared with all others.

    Raises:
        UserError: there is no memory, or too few normals.
    """
    knn = memory_of(model)
    features = features[:, : len(knn.standard.mean)]  # a backbone's maxima are the classifier's alone
    count = len(features)
    earlier_pictures = knn.pictures
    earlier, earlier_types = remembered(knn) if how == ADD else (features[:0], [])
    if how == ADD:
        # Normals that are in the memory already would be found again as their own neighbours.
        rows = (~are_among(knn.standard(earlier), knn.standard(features))).nonzero()[:, 0].tolist()
        if count + len(rows) > MEMORY:
            rows = [rows[place] for place in np.linspace(0, len(rows) - 1, MEMORY - count).round().astype(int)]
            log.info("%d of the earlier normals stay in the memory, which holds %d", len(rows), MEMORY)
        earlier_pictures = earlier_pictures[rows] if len(earlier_pictures) else earlier_pictures
        earlier, earlier_types = earlier[rows], [earlier_types[row] for row in rows]
    if extend or (len(earlier) and not knn.kinds):
        # A type of its own would be compared with fewer normals than before: those whose type is not known are left.
        types = [kind if kind in knn.kinds else "" for kind in types]
    normals = torch.cat([features, earlier])
    if len(normals) <= knn.k:
        raise UserError(f"memory={how} needs {knn.k + 1} normals or more for score.k={knn.k}, and {count} can be read.")
    if pictures is not None and len(earlier):
        # Earlier versions kept none, and a part of the memory cannot be shown alone.
        pictures = torch.cat([pictures, earlier_pictures]) if len(earlier_pictures) else None
    types = [*types, *earlier_types]
    knn.remember(normals, types, pictures, knn.standard if extend else None)
    found = {**scores, "knn": double(knn.among_themselves()[:count])}
    if not extend and isinstance(mahalanobis := model.scores.get("mahalanobis"), Mahalanobis):
        found["mahalanobis"] = double(left_out_distances(normals, types, count))
        mahalanobis.remember(normals, types)
    if isinstance(combined := model.scores.get("combined"), Combined):
        single = {name: torch.from_numpy(found[name]).float() for name in combined.surprises}
        if not extend:
            combined.calibrate(single)
        found["combined"] = double(combined.of(single))
    log.info("the memory holds %d normals, %d of them given", len(normals), count)
    return {name: found[name] for name in scores}


def remembered(knn: Knn) -> tuple[Tensor, list[str]]:
    """The features ``(N, D)`` that a memory was made of, and the types that have a part of their own in it, else ""."""
    types = [""] * len(knn.memory)
    for kind, places in knn.kinds.items():
        for place in places.tolist():
            types[place] = kind
    return knn.standard.undo(knn.memory), types


def double(values: Tensor) -> NDArray[np.float64]:
    """Values as the thresholds take them."""
    return values.double().numpy()
