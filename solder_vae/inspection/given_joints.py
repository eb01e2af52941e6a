"""The joints that a recalibration is given, scored: good ones, and labelled ones, whose false calls it may remember."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solder_vae.data.component_types import relative
from solder_vae.data.layouts import ANEW, Record, find_records
from solder_vae.data.listing import Listing
from solder_vae.data.photos import digest_of
from solder_vae.data.table import once
from solder_vae.evaluation.anomaly_map import SCALE_QUANTILE
from solder_vae.evaluation.evaluate import Scores
from solder_vae.evaluation.fit_scores import thumbnails
from solder_vae.evaluation.looks import Looks, looks_of
from solder_vae.inspection.inspector import Inspector, Unreadable
from solder_vae.inspection.joints import Joint, check_labelled
from solder_vae.inspection.memory import ADD, check_types, renew
from solder_vae.metrics.by_type import OfType, limits, own_thresholds
from solder_vae.metrics.intervals import clopper_pearson
from solder_vae.metrics.threshold import Labelled, Threshold
from solder_vae.models.scores import MEMORY
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.text import printable
from solder_vae.utils.threads import tracked

log = logging.getLogger(__name__)

_MAPS_FOR_SCALE = 1000


@dataclass(frozen=True)
class LabelledSet:
    """Scores of a labelled set, which of its joints are bad ``(N,)``, their N component types, and of the n good
    ones digests of their pixels and, if asked for, features ``(n, D)`` and small pictures."""

    scores: Scores
    abnormal: NDArray[np.bool_]
    types: list[str]
    digests: list[str] = field(default_factory=list)
    features: Tensor | None = None
    pictures: Tensor | None = None

    def by_score(self) -> dict[str, Labelled]:
        """The good joints' scores and the bad ones', by name of the score."""
        return {name: Labelled(values[~self.abnormal], values[self.abnormal]) for name, values in self.scores.items()}

    def of_type(self, kind: str) -> LabelledSet:
        """The joints of a type."""
        rows = np.array([each == kind for each in self.types], np.bool_)
        scores = {name: values[rows] for name, values in self.scores.items()}
        return LabelledSet(scores, self.abnormal[rows], [kind] * int(rows.sum()))


@dataclass(frozen=True)
class Seen:
    """What thresholds do with a labelled set.

    Attributes:
        name: as the user gave it.
        abnormal: ``(N,)``, which of its joints are bad.
        before, now: ``(N,)``, which were called by the threshold before, by the checkpoint as it was, and which are by
            the new one.
    """

    name: str
    abnormal: NDArray[np.bool_]
    before: NDArray[np.bool_]
    now: NDArray[np.bool_]

    @property
    def good(self) -> int:
        """How many are good."""
        return int((~self.abnormal).sum())

    def sentences(self, old: Threshold) -> list[str]:
        """How many good joints are called, how many bad ones are not; and whether the good ones were chosen.

        Args:
            old: the threshold before, with the false-call rate that it promised.
        """
        good, bad = ~self.abnormal, self.abnormal
        told = []
        if good.any():
            told.append(f"{shares(self.now[good])} good joints are called")
        if bad.any():
            told.append(f"{shares(~self.now[bad])} bad ones are not")
        sentences = [f"Of labelled={self.name}: {', '.join(told)}."]
        called = int(self.before[good].sum())
        if good.any() and clopper_pearson(called, self.good)[0] > old.interval[1]:
            sentences.append(
                f"{called} of its {self.good} good joints had been called, far more than of all good joints: they were "
                "labelled because they were called, and say nothing about the rate on the line."
            )
        return sentences


def shares(chosen: NDArray[np.bool_]) -> str:
    """How many of ``(n,)`` are chosen, as a rate with its 95 % interval, too."""
    count, n = int(chosen.sum()), len(chosen)
    low, high = clopper_pearson(count, n)
    return f"{count} of {n} ({100 * count / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}])"


def called(truth: LabelledSet, primary: str, overall: Threshold, of_types: Mapping[str, OfType]) -> NDArray[np.bool_]:
    """Which of a labelled set's joints ``(N,)`` are called, each by the threshold that it is judged by."""
    own = own_thresholds(of_types, primary)
    scores = truth.scores[primary]
    above: NDArray[np.bool_] = scores > limits(overall, own, truth.types, len(scores))
    return above


def good_joints(joints: list[Joint], normals: str) -> list[Joint]:
    """The joints but for those of which a folder or a label says that they are not good; the log says how many.

    Args:
        joints: given as normals.
        normals: where, as the user gave it.

    Raises:
        UserError: none is left.
    """
    other = Counter(joint.truth for joint in joints if joint.truth not in ("", NORMAL))
    if not other:
        return joints
    kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(other.items()))
    if other.total() == len(joints):
        raise UserError(
            f"normals={normals}: none of its {len(joints)} joints is good by its folder or label ({kinds}): give good "
            "joints, or say what the good ones are called by normal=NAME."
        )
    log.warning(
        "normals=%s: %d of its %d joints are not good and left out (%s)", normals, other.total(), len(joints), kinds
    )
    return [joint for joint in joints if joint.truth in ("", NORMAL)]


def score_normals(
    inspector: Inspector, joints: list[Joint], shown: bool, looks: list[Looks]
) -> tuple[Scores, Tensor | None, list[str], Tensor | None, float, list[Unreadable]]:
    """Scores, features, types and, if wanted, small pictures of good joints, the anomaly map's unit that they fix, and
    what can't be read. How each looks is added to ``looks``. Of copies one counts: they are no independent normals, and
    would be each other's neighbours.
    """
    digests: set[str] = set()
    copies = 0
    step = math.ceil(len(joints) / _MAPS_FOR_SCALE)
    rows: list[dict[str, float]] = []
    features: list[NDArray[np.float32]] = []
    types: list[str] = []
    small: list[Tensor] = []
    maps: list[NDArray[np.float32]] = []
    unreadable: list[Unreadable] = []
    for result in tracked(inspector.inspect(joints), "Inspecting", len(joints)):
        if isinstance(result, Unreadable):
            unreadable.append(result)
            continue
        if (digest := digest_of(result.image)) in digests:
            copies += 1
            continue
        digests.add(digest)
        if len(rows) % step == 0:
            maps.append(result.heat_map)
        rows.append(result.scores)
        types.append(result.component)
        small += [thumbnails([result.image])] if shown else []
        looks.append(looks_of(result.image, result.native_size))
        features += [result.features] if result.features is not None else []
    if not rows:
        raise UserError(f"None of the {len(joints)} normals can be read; the first: {unreadable[0].reason}")
    if copies:
        log.warning("%d of the %d normals are copies of others and do not count.", copies, len(rows) + copies)
    scale = inspector.map_scale * float(np.quantile(np.stack(maps), SCALE_QUANTILE))
    seen = torch.from_numpy(np.stack(features)) if features else None
    return columns(rows), seen, types, torch.cat(small) if shown else None, scale, unreadable


def remember_false_calls(inspector: Inspector, truth: LabelledSet, labelled: str) -> Scores:
    """Add a labelled set's good joints to what the scores compare with; their scores, each compared with all others.

    Nothing else changes, as they are no sample of the good joints: their thresholds still come from the normals.

    Raises:
        UserError: the score that decides has no memory, there are none, or no type of them is known where one must be.
    """
    good = np.flatnonzero(~truth.abnormal)
    if inspector.primary == "mahalanobis":
        raise UserError(
            "score=mahalanobis compares with no single normals, so false calls can't be added to them: give the good "
            "joints of today by normals=PATH memory=add, or leave memory= out."
        )
    if not len(good):
        raise UserError(f"labelled={labelled} has no good joints to remember: leave memory= out, or label some normal.")
    if len(good) > MEMORY:
        raise UserError(f"labelled={labelled} has {len(good)} good joints, and the memory holds {MEMORY}: label fewer.")
    assert truth.features is not None
    rows, of_each = once(truth.digests)  # copies would be each other's neighbours
    scores = {name: values[good[rows]] for name, values in truth.scores.items()}
    types = [truth.types[row] for row in good[rows]]
    check_types(inspector.model, types, f"good joints of labelled={labelled}", inspector.type_regex)
    pictures = None if truth.pictures is None else truth.pictures[rows]
    found = renew(inspector.model, scores, truth.features[rows], types, ADD, pictures, extend=True)
    return {name: values[of_each] for name, values in found.items()}


def labelled_records(root: str, normal: Collection[str], listing: Listing) -> list[Record]:
    """The joints of a labelled set."""
    check_labelled(root)
    listed = Listing()
    try:
        records = find_records(Path(root), normal=normal, skip=True, listing=listed)
    except UserError as error:  # whose advice names options of a training
        text = str(error).replace(f", {ANEW}", "")
        raise UserError(re.sub(r"data\.normal=\[([^]]*)\]", r"normal=\1", text)) from error
    listing.unread += listed.unread
    listing.denied += listed.denied
    return records


def score_labelled(
    inspector: Inspector, records: list[Record], root: str, shown: bool = False
) -> tuple[LabelledSet, list[Unreadable]]:
    """Scores and labels of a labelled set, and the images that could not be read."""
    rows: list[dict[str, float]] = []
    features: list[NDArray[np.float32]] = []
    small: list[Tensor] = []
    digests: list[str] = []
    abnormal: list[bool] = []
    types: list[str] = []
    unreadable: list[Unreadable] = []
    folder = Path(root) if Path(root).is_dir() else Path(root).parent
    joints = [Joint(record.name, record.path, record.type, relative(record.path, folder)) for record in records]
    for record, result in zip(records, tracked(inspector.inspect(joints), "Inspecting", len(joints)), strict=True):
        if isinstance(result, Unreadable):
            unreadable.append(result)
        else:
            rows.append(result.scores)
            abnormal.append(record.defect != NORMAL)
            types.append(result.component)
            if record.defect == NORMAL:
                digests.append(digest_of(result.image))
                features += [result.features] if result.features is not None else []
                small += [thumbnails([result.image])] if shown else []
    if not rows:
        raise UserError(f"None of the {len(joints)} labelled images can be read; the first: {unreadable[0].reason}")
    seen = torch.from_numpy(np.stack(features)) if features else None
    pictures = torch.cat(small) if small else None
    return LabelledSet(columns(rows), np.array(abnormal), types, digests, seen, pictures), unreadable


def columns(rows: list[dict[str, float]]) -> Scores:
    """Each score's values ``(N,)``."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
