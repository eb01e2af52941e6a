"""Inspecting new joints from Python, a few lines from files to decisions.

    inspector = Inspector.load("outputs/run/best.ckpt")
    for verdict in inspector.score(["a.png", "b.png"]):
        print(verdict.name, verdict.label, verdict.margin)

Everything that a decision needs is in the checkpoint: weights, preprocessing, threshold, scores of the validation
normals, unit of the anomaly map, reference gradients. docs/use/inspection.md says more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solder_vae.data.component_types import check_regex, type_in
from solder_vae.data.framing import CROPS, SQUARE
from solder_vae.data.image_files import Image
from solder_vae.data.transforms import PLAIN, VIEWS, to_images, to_tensor
from solder_vae.evaluation.anomaly_map import output_map
from solder_vae.evaluation.looks import kept_looks
from solder_vae.evaluation.rule_sentence import known_normals
from solder_vae.evaluation.run_model import run_model
from solder_vae.inspection.joints import Joint, Picture, named_joints, read_ahead
from solder_vae.metrics.by_type import ALL, OfType, own_thresholds
from solder_vae.metrics.intervals import finite_number
from solder_vae.metrics.threshold import Threshold
from solder_vae.models.checkpoint import load_model
from solder_vae.models.classifier import LIKENESS_COLUMNS, Likeness
from solder_vae.models.detector import Detector
from solder_vae.models.neighbours import Near
from solder_vae.utils.checks import check_choice, no_device
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import ABNORMAL, NORMAL
from solder_vae.utils.text import printable
from solder_vae.utils.threads import in_threads

UNCALIBRATED = "The checkpoint has no usable calibration: take the best.ckpt of a finished run."


class Unreadable(NamedTuple):
    """A joint whose picture cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The result of inspecting one joint.

    Attributes:
        name: of the joint: its file's path, or ``image <index>``.
        score: the primary score; higher = more anomalous.
        threshold: abnormal iff ``score > threshold``.
        rank: share of the validation normals that score lower, in [0, 1].
        scores: every score of the model by name.
        image: ``(S, S, 3)`` uint8, as the network sees it.
        recon: ``(S, S, 3)`` uint8, its reconstruction; None of a model that does not reconstruct.
        heat_map: ``(S, S)`` float32, 0 or greater: smoothed error of each pixel (of a backbone: its
            part of the squared distance) in the unit that the checkpoint
            fixes, in which 99 % of the pixels of validation normals are below 1.
        likeness: which type of known defect it looks like, if it is defective, and with what probability; None where
            the checkpoint tells no types apart.
        component: type of the component, "" where it is not known.
        judged_among: the type whose threshold and normals decided, or "all types"; "" if the checkpoint has no types.
        near: of an abnormal joint, the good joint and the known defect that it is nearest to, as far as the checkpoint
            keeps pictures of them.
        features: ``(D,)`` float32, by which it is compared with normals; None where no score of the model needs them.
        native_size: height and width of its picture in pixels, before it was made the network's.
    """

    name: str
    score: float
    threshold: float
    rank: float
    scores: dict[str, float]
    image: Image
    recon: Image | None
    heat_map: NDArray[np.float32]
    likeness: Likeness | None = None
    component: str = ""
    judged_among: str = ""
    features: NDArray[np.float32] | None = None
    near: tuple[Near, ...] = ()
    native_size: tuple[int, int] = (0, 0)

    @property
    def margin(self) -> float:
        """Score minus threshold: positive = abnormal, near 0 = a close call."""
        return self.score - self.threshold

    @property
    def abnormal(self) -> bool:
        return self.score > self.threshold

    @property
    def label(self) -> str:
        """ "normal" or "abnormal"."""
        return ABNORMAL if self.abnormal else NORMAL

    @property
    def row(self) -> dict[str, Any]:
        """What the tables and the report say of the joint: all but its pictures."""
        return {
            "path": self.name,
            "score": self.score,
            "threshold": self.threshold,
            "margin": self.margin,
            "label": self.label,
            "rank": self.rank,
            **({"component": self.component, "judged_among": self.judged_among} if self.judged_among else {}),
            "scores": self.scores,
            **({} if self.likeness is None else dict(zip(LIKENESS_COLUMNS, self.likeness, strict=True))),
        }


class Inspector:
    """Scores joints and decides on them as a checkpoint says.

    An image's verdict does not depend on what else is in the batch, on the order or on the thread (scores agree to
    the rounding of single precision, about 1e-6). Several threads may use one inspector at once: they decode side by
    side and take turns with the network, which uses all cores by itself.

    Args:
        model: in evaluation mode, calibrated.

    Raises:
        UserError: the model lacks what a decision needs.
    """

    def __init__(self, model: Detector) -> None:
        calibration: Any = model.decision_state
        preprocessing: Any = model.preprocessing
        try:
            self.primary: str = calibration["primary"]
            overall = OfType.from_dict(calibration)
            self.thresholds = overall.thresholds
            self.validation_scores: dict[str, list[float]] = {
                name: scores.tolist() for name, scores in overall.scores.items()
            }
            self.of_types = {str(kind): OfType.from_dict(each) for kind, each in calibration.get("types", {}).items()}
            self.type_regex: str | None = preprocessing.get("type_regex")
            check_regex("data.type_regex", self.type_regex, "")
            self.map_scale = finite_number(calibration["map_scale"])
            #: What the normals are that the thresholds come from, in words.
            self.of_normals = known_normals(calibration.get("normals"))
            #: How the normals look that the thresholds come from; empty of checkpoints of earlier versions.
            self.looks = kept_looks(calibration)
            self.image_size: int = preprocessing["image_size"]
            self.view, self.crop = preprocessing.get("view", PLAIN), preprocessing.get("crop", SQUARE)
            check_choice("data.view", self.view, VIEWS)  # checkpoints of before there were views have the plain one
            check_choice("data.crop", self.crop, CROPS)
            usable = (
                self.primary in self.thresholds
                and set(model.admitted_scores) >= self.thresholds.keys()
                and self.map_scale > 0
                and all(each.scores.keys() == self.thresholds.keys() for each in self.of_types.values())
                and type(self.image_size) is int
                and self.image_size > 0
                and self.image_size % model.stride == 0
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise UserError(UNCALIBRATED) from error
        if not usable:
            raise UserError(UNCALIBRATED)
        #: The primary score's thresholds by type, of the types that have normals enough; and their normals, sorted.
        self.own = own_thresholds(self.of_types, self.primary)
        self._normals_of = {kind: self.of_types[kind].scores[self.primary].tolist() for kind in self.own}
        self.model = model.eval()
        self.threads = 1
        self._idle: SimpleQueue[Detector] = SimpleQueue()  # a model for each; who takes one out has it alone
        self._idle.put(self.model)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Inspector:
        """The inspector of a checkpoint.

        Args:
            path: ``best.ckpt`` of a run, or ``calibrated.ckpt`` that ``python -m solder_vae.threshold`` wrote.
            device: where the network runs.

        Raises:
            UserError: the file cannot be used or has no calibration, or there is no such device.
        """
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise no_device(str(device))
        model = load_model(path)
        try:
            inspector = cls(model)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        model.to(device)
        return inspector

    @property
    def identity(self) -> str:
        """The model's name and that of the score that decides."""
        return f"{self.model.name}/{self.primary}"

    @property
    def threshold(self) -> Threshold:
        """The threshold that decides, with its rule and the false-call rate to expect."""
        return self.thresholds[self.primary]

    @property
    def normals(self) -> list[float]:
        """The primary score of the validation normals, sorted."""
        return self.validation_scores[self.primary]

    def type_of(self, joint: Joint) -> str:
        """The joint's component type: as a table tells it, else as its path does by the checkpoint's type_regex."""
        return joint.type or type_in(joint.place, self.type_regex)

    def score(
        self, images: str | Path | Image | Iterable[str | Path | Image], types: Sequence[str] | None = None
    ) -> list[Verdict]:
        """Inspect images.

        Args:
            images: paths of files or uint8 RGB arrays ``(H, W, 3)`` of any size, mixed as you like; one of them
                alone; or a batch ``(N, H, W, 3)``.
            types: the component type of each; by default what the checkpoint's type_regex finds in the paths.

        Returns:
            A verdict on each, in the same order.

        Raises:
            UserError: an image cannot be read, or an array is something else. (:meth:`inspect` goes on.)
        """
        verdicts = []
        named = named_joints(images)
        if types is not None:
            named = [joint._replace(type=kind) for joint, kind in zip(named, types, strict=True)]
        for result in self.inspect(named):
            if isinstance(result, Unreadable):
                raise UserError(result.reason)
            verdicts.append(result)
        return verdicts

    def inspect(self, joints: Iterable[Joint]) -> Iterator[Verdict | Unreadable]:
        """Inspect joints one by one as they come, decoding ahead; memory does not grow with their number.

        An unreadable picture takes its joint's place in the results.
        """
        batches = read_ahead(joints, self.image_size, self.view, self.crop)
        if self.threads == 1:
            yield from chain.from_iterable(map(self.decide, batches))
            return
        decided = in_threads(lambda batch: [*self.decide(batch)], batches, self.threads, 1, self.threads + 2)
        yield from chain.from_iterable(decided)

    def share_out(self, threads: int = 0) -> None:
        """Let :meth:`inspect` share batches out over so many threads, with one thread for each of torch's kernels.

        0 is as many as torch has, by default one a core. Scores are those of one thread. Where other programs keep
        cores busy, threads that share a kernel wait for each other all the time; threads with a batch each do not. One
        thread a kernel then holds for the whole process.
        """
        threads = threads or torch.get_num_threads()
        torch.set_num_threads(1)
        for _ in range(threads - self.threads):
            self._idle.put(self.model.twin())
        self.threads = max(threads, self.threads)

    def decide(self, batch: Sequence[tuple[Joint, Picture | UserError]]) -> Iterator[Verdict | Unreadable]:
        """Verdicts on joints whose pictures are read already, all scored together."""
        good = [(joint, found) for joint, found in batch if not isinstance(found, UserError)]
        verdicts = self._verdicts(good) if good else iter(())
        for joint, found in batch:
            yield Unreadable(joint.name, printable(str(found))) if isinstance(found, UserError) else next(verdicts)

    def _verdicts(self, joints: Sequence[tuple[Joint, Picture]]) -> Iterator[Verdict]:
        """Verdicts on joints that have pictures."""
        types = [self.type_of(joint) for joint, _ in joints]
        model = self._idle.get()
        try:
            images = to_tensor(np.stack([picture.image for _, picture in joints]))
            (result,) = run_model(model, [images], names=self.thresholds, types=types)
            columns = {name: finite(values) for name, values in result.scores.items()}
            maps = (output_map(result) / self.map_scale).cpu().numpy()
            recons = None if result.recon is None else to_images(result.recon)
            likeness = model.likeness(result.features)
            features = None if result.features is None else result.features.detach().cpu().numpy()
            near = self._near(model, result.features, columns[self.primary], types)
        finally:
            self._idle.put(model)
        for row, ((joint, picture), kind) in enumerate(zip(joints, types, strict=True)):
            scores = {name: values[row] for name, values in columns.items()}
            score = scores[self.primary]
            threshold, normals, among = self.threshold, self.normals, ALL if self.of_types else ""
            if kind in self.own:
                threshold, normals, among = self.own[kind], self._normals_of[kind], kind
            yield Verdict(
                *(joint.name, score, threshold.value, bisect_left(normals, score) / len(normals), scores),
                image=picture.image,
                recon=None if recons is None else recons[row],
                heat_map=maps[row],
                likeness=None if likeness is None else likeness[row],
                component=kind,
                judged_among=among,
                features=None if features is None else features[row],
                near=near[row],
                native_size=picture.native_size,
            )

    def _near(
        self, model: Detector, features: Tensor | None, scores: Sequence[float], types: Sequence[str]
    ) -> list[tuple[Near, ...]]:
        """What each of B images is shown beside; only the abnormal ones are, and most are not."""
        found: list[tuple[Near, ...]] = [()] * len(scores)
        limits = [self.own.get(kind, self.threshold).value for kind in types]
        rows = [row for row, (score, limit) in enumerate(zip(scores, limits, strict=True)) if score > limit]
        if features is not None and rows:
            for row, near in zip(rows, model.near(features[rows], [types[row] for row in rows]), strict=True):
                found[row] = near
        return found


def finite(scores: Tensor) -> list[float]:
    """The scores ``(B,)`` as numbers; one too large for single precision becomes the largest that fits.

    Raises:
        UserError: a score is NaN, which would count as normal.
    """
    if scores.isnan().any():
        raise UserError("The model's scores are not numbers: its checkpoint is damaged or its training diverged.")
    limit = torch.finfo(scores.dtype).max
    numbers: list[float] = scores.clamp(-limit, limit).double().tolist()
    return numbers
