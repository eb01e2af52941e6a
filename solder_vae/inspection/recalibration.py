"""Another threshold for a trained checkpoint: what ``python -m solder_vae.threshold`` does."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from solder_vae.data.listing import Listing
from solder_vae.data.names import NORMAL_NAMES
from solder_vae.evaluation import style
from solder_vae.evaluation.evaluate import Scores, decision_state, fit_thresholds
from solder_vae.evaluation.looks import Looks, looks_to_keep
from solder_vae.evaluation.plots import trade_off_figure
from solder_vae.evaluation.rule_sentence import GIVEN, VALIDATION, rule_of, rule_sentence, threshold_entry
from solder_vae.inspection.batch import UNREADABLE, unreadable_list
from solder_vae.inspection.given_joints import (
    LabelledSet,
    Seen,
    called,
    good_joints,
    labelled_records,
    remember_false_calls,
    score_labelled,
    score_normals,
)
from solder_vae.inspection.inspector import Inspector, Unreadable
from solder_vae.inspection.joints import find_joints
from solder_vae.inspection.memory import (
    ADD,
    KEEP,
    at_most,
    check_types,
    memory_entry,
    memory_of,
    renew,
    tell_of_remembered,
)
from solder_vae.metrics.by_type import OfType, fit_by_type, group, limits, own_thresholds, types_sentence
from solder_vae.metrics.threshold import FEW_NORMALS, Rule, Threshold
from solder_vae.metrics.trade_off import OperatingPoint, operations, trade_off_rows
from solder_vae.models.checkpoint import read_checkpoint, write_checkpoint
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import write_csv
from solder_vae.utils.text import printable

_log = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recalibration:
    """A checkpoint with its new threshold, not written yet.

    Attributes:
        checkpoint: as :func:`~solder_vae.models.checkpoint.read_checkpoint` reads it, recalibrated.
        old, new: the primary score's threshold before and after.
        primary: name of the primary score.
        normals: its scores of the good joints that false calls are counted on; with thresholds by type, how far they
            are above the threshold that each joint is judged by.
        abnormals: likewise of the bad joints that escapes are counted on; may be empty.
        unreadable: images that were left out.
        readable: number of images that were not.
        incomplete: whether there are pictures or folders that are not read at all.
        of_types: normals and thresholds by component type.
        of_normals: what the normals are that the thresholds come from.
        seen: what the old and the new threshold do with the labelled set.
    """

    checkpoint: dict[str, Any]
    old: Threshold
    new: Threshold
    primary: str
    normals: Floats
    abnormals: Floats
    unreadable: list[Unreadable]
    readable: int
    incomplete: bool = False
    of_types: dict[str, OfType] = field(default_factory=dict)
    of_normals: str = VALIDATION
    seen: Seen | None = None

    @property
    def chosen(self) -> float:
        """Where the trade-off is cut: the threshold, or no distance from each type's own."""
        return 0.0 if own_thresholds(self.of_types, self.primary) else self.new.value

    @property
    def status(self) -> int:
        """The exit status to report."""
        return UNREADABLE if self.unreadable or self.incomplete else 0

    @property
    def steps(self) -> list[OperatingPoint]:
        """The trade-off at the new threshold and around it."""
        return operations(self.normals, self.abnormals, self.chosen)

    @property
    def counted_on(self) -> str:
        """Which joints the trade-off is counted on."""
        normals = f"the {len(self.normals)} {self.of_normals}"
        if self.seen is None:
            return f"Counted on {normals}"
        if not self.seen.good:
            return f"False calls counted on {normals}, escapes on the bad joints of labelled={self.seen.name}"
        return f"Counted on the joints of labelled={self.seen.name}"

    def write(self, directory: Path) -> None:
        """Write calibrated.ckpt, trade_off.csv and trade_off.png."""
        write_checkpoint(self.checkpoint, directory / "calibrated.ckpt")
        write_csv(directory / "trade_off.csv", trade_off_rows(self.steps))
        figure = trade_off_figure(self.normals, self.abnormals, self.chosen, self.primary)
        style.save(figure, directory / "trade_off.png")

    def print_summary(self, out: Path) -> None:
        """The threshold, what it promises, and the trade-off as a table; on stderr what could not be read."""
        print(rule_sentence(self.new, self.primary, self.of_normals))
        if self.new.n < FEW_NORMALS:
            print(f"So few normals can promise a false-call rate of {100 / (self.new.n + 1):.1f} % at best.")
        if sentence := types_sentence(self.of_types, self.primary):
            print(sentence)
        print(f"The old threshold was {self.old.value:.4g} ({rule_of(self.old)}).")
        for sentence in self.seen.sentences(self.old) if self.seen else ():
            print(sentence)
        print()
        if own_thresholds(self.of_types, self.primary):
            print("Thresholds in this table are differences from the one that each joint is judged by.")
        print(f"{self.counted_on}:")
        Console().print(trade_off_table(self.steps))
        if not self.abnormals.size:
            print("Escapes are unknown without bad joints: give labelled=PATH to count them.")
        print(f"\nEverything is in {out}; {out / 'calibrated.ckpt'} decides by the new threshold.")
        if self.unreadable:
            print(unreadable_list(self.unreadable, self.readable), file=sys.stderr)


def recalibrate(
    path: str,
    rule: Rule,
    normals: str | None = None,
    labelled: str | None = None,
    normal: Collection[str] = NORMAL_NAMES,
    memory: str = KEEP,
    score: str | None = None,
) -> Recalibration:
    """Set a checkpoint's thresholds anew; nothing is written.

    The rule holds for the primary score; the other scores get the same rule on their own scores, as in training.
    False calls are counted on the labelled set's good joints if there are any, else on the normals.

    Args:
        path: the checkpoint.
        rule: how to set the threshold.
        normals: good joints to calibrate on instead of the checkpoint's; as ``images=`` of solder_vae.predict, without
            those that a folder or label calls bad.
        labelled: good and bad joints, as ``data.root`` of a run, for a rule that needs them and to count escapes.
        normal: names of its normal class, in lower case, as ``data.normal``.
        memory: "keep" what the scores compare with, or "add" the normals to it, or "replace" it by them. Without
            normals "add" takes the labelled set's good joints, see :func:`remember_false_calls`.

        score: the one that decides from now on; by default the one that does.

    Raises:
        UserError: a file cannot be used, or rule, memory or score do not fit.
    """
    checkpoint = read_checkpoint(path)
    inspector = Inspector.load(path)
    if score is not None and score not in inspector.thresholds:
        raise UserError(f"score={score} is not in the checkpoint: use {', '.join(inspector.thresholds)}.")
    inspector.primary = score or inspector.primary
    old, of_normals, log = inspector.threshold, inspector.of_normals, inspector.model.log
    # Whether it fits is said before anything is read.
    shown = memory != KEEP and memory_of(inspector.model).thumbnails
    unreadable: list[Unreadable] = []
    known: Scores = {name: np.array(scores) for name, scores in inspector.validation_scores.items()}
    groups = {kind: each.scores for kind, each in inspector.of_types.items()}
    scale, readable, listing = inspector.map_scale, 0, Listing()
    looks = checkpoint["calibration"].get("looks")
    if normals is not None:
        joints = good_joints(find_joints(normals, "normals", listing, normal), normals)
        joints = joints if memory == KEEP else at_most(joints)
        if memory == ADD:
            check_types(
                inspector.model, [inspector.type_of(joint) for joint in joints], "normals", inspector.type_regex
            )
        seen: list[Looks] = []
        known, features, types, pictures, scale, skipped = score_normals(inspector, joints, shown, seen)
        looks = looks_to_keep(seen, checkpoint["preprocessing"])
        of_normals = GIVEN
        if memory != KEEP:
            assert features is not None
            known = renew(inspector.model, known, features, types, memory, pictures)
            checkpoint["scores"] = inspector.model.score_states()
            log = [*log, memory_entry(inspector.model, len(types), memory, f"normals={normals}")]
        elif features is not None:
            tell_of_remembered(inspector.model, inspector.primary, features)
        groups = group(known, types)
        unreadable += skipped
        readable += len(known[inspector.primary])
    truth: LabelledSet | None = None
    before: NDArray[np.bool_] | None = None
    if labelled is not None:
        records = labelled_records(labelled, normal, listing)
        truth, skipped = score_labelled(inspector, records, labelled, shown)
        before = called(truth, inspector.primary, old, inspector.of_types)
        if memory != KEEP and normals is None:
            renewed = remember_false_calls(inspector, truth, labelled)
            checkpoint["scores"] = inspector.model.score_states()
            count = len(set(truth.digests))
            log = [*log, memory_entry(inspector.model, count, memory, f"the good joints of labelled={labelled}")]
            truth, _ = score_labelled(inspector, records, labelled)
            for name, values in renewed.items():  # as each is compared with the others
                truth.scores[name][~truth.abnormal] = values
        unreadable += skipped
        readable += len(truth.abnormal)
    sets = truth.by_score() if truth is not None and rule.needs_labelled else None
    thresholds = fit_thresholds(rule, inspector.primary, known, sets)

    def fit(kind: str, scores: Scores) -> dict[str, Threshold]:
        own_set = truth.of_type(kind).by_score() if truth is not None and rule.needs_labelled else None
        return fit_thresholds(rule, inspector.primary, scores, own_set)

    of_types = fit_by_type(groups, fit)
    tell_of_lost(own_thresholds(inspector.of_types, inspector.primary), own_thresholds(of_types, inspector.primary))
    checkpoint["calibration"] = decision_state(inspector.primary, thresholds, known, scale, of_types, looks)
    if of_normals != VALIDATION:
        checkpoint["calibration"]["normals"] = of_normals
    new = thresholds[inspector.primary]
    where = f"normals={normals}" if normals is not None else ""
    checkpoint["log"] = [*log, threshold_entry(new, inspector.primary, of_normals, where)]
    own = own_thresholds(of_types, inspector.primary)
    good = above(known[inspector.primary], groups, inspector.primary, new, own)
    bad = np.empty(0)
    if truth is not None:
        scores = truth.scores[inspector.primary]
        scores = scores - limits(new, own, truth.types, len(scores)) if own else scores
        bad = scores[truth.abnormal]
        good = good if truth.abnormal.all() else scores[~truth.abnormal]
    left_out, counted = listing.incomplete, None
    if truth is not None and before is not None:
        counted = Seen(str(labelled), truth.abnormal, before, called(truth, inspector.primary, new, of_types))
    return Recalibration(
        *(checkpoint, old, new, inspector.primary, good, bad, unreadable, readable, left_out, of_types, of_normals),
        seen=counted,
    )


def tell_of_lost(before: Collection[str], after: Collection[str]) -> None:
    """Warn of types that had a threshold of their own before and have none after."""
    if lost := sorted({*before} - {*after}):
        _log.warning(
            "Without a threshold of their own from now on are the types %s, each of which takes %d normals or more: "
            "their joints are judged by the threshold over all.",
            ", ".join(map(printable, lost)),
            FEW_NORMALS,
        )


def above(
    scores: Floats, groups: Mapping[str, Scores], primary: str, overall: Threshold, own: Mapping[str, Threshold]
) -> Floats:
    """Scores of normals as they are; with thresholds by type, how far each is above the one it is judged by.

    Args:
        scores: of all normals, ``(n,)``.
        groups: every score of those of known type.
        primary: the score in question.
        overall, own: its thresholds.
    """
    if not own:
        return scores
    typed = [groups[kind][primary] - own[kind].value for kind in own]
    rest = Counter(scores.tolist())
    rest.subtract(score for kind in own for score in groups[kind][primary].tolist())
    return np.concatenate([*typed, np.array(sorted(rest.elements())) - overall.value])


def trade_off_table(steps: list[OperatingPoint]) -> Table:
    """False calls per 1000 good joints against escapes per 1000 bad ones; * is the threshold that was set."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for header in (
        "",
        "threshold",
        "false calls per\n1000 good joints",
        "[95 %]",
        "escapes per\n1000 bad joints",
        "[95 %]",
    ):
        table.add_column(header.replace("[", r"\["), justify="right", vertical="bottom")
    for step in steps:
        escapes = "-" if step.escapes is None else f"{step.escapes:.1f}"
        table.add_row(
            "*" if step.chosen else "",
            f"{step.threshold:.5g}",
            f"{step.false_calls:.1f}",
            _interval(step.false_calls_interval),
            escapes,
            "" if step.escapes_interval is None else _interval(step.escapes_interval),
            style="bold" if step.chosen else None,
        )
    return table


def _interval(low_high: tuple[float, float]) -> str:
    low, high = low_high
    return rf"\[{low:.1f}, {high:.1f}]"
