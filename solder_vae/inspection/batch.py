"""A batch of joints from files to tables and report: what ``python -m solder_vae.predict`` does."""

from __future__ import annotations

import heapq
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any

from solder_vae.evaluation.joint_report import facts, headline, page
from solder_vae.evaluation.rule_sentence import decision_sentence
from solder_vae.inspection.drift import BatchLooks
from solder_vae.inspection.inspector import Inspector, Unreadable
from solder_vae.inspection.joints import Joint
from solder_vae.inspection.predictions import inspect_on_processes, inspect_rows
from solder_vae.metrics.drift import Drift
from solder_vae.models.classifier import LIKENESS_COLUMNS
from solder_vae.models.history import line
from solder_vae.models.scores import RECONSTRUCTION
from solder_vae.utils.labels import ABNORMAL
from solder_vae.utils.tables import write_csv
from solder_vae.utils.text import cell_safe, printable
from solder_vae.utils.threads import tracked

#: Exit status of a command that had to leave images out; and of one that is strict and found drift.
UNREADABLE, DRIFTED = 3, 4

IN_REPORT = 10_000
"""How many of the worst joints are in the report, since browsers are slow with more. The tables have all joints."""

_TOLD = 20


@dataclass(frozen=True)
class Inspection:
    """The result of a batch of joints.

    Attributes:
        predictions: :attr:`Verdict.row <solder_vae.inspection.inspector.Verdict>` of each, in the order of the joints.
        unreadable: what could not be inspected.
        seconds: time for decoding, scoring and drawing together.
        drift: how the batch differs from the normals that the thresholds come from.
    """

    predictions: list[dict[str, Any]]
    unreadable: list[Unreadable]
    seconds: float
    drift: Drift

    @property
    def abnormal(self) -> int:
        """How many joints were called abnormal."""
        return sum(prediction["label"] == ABNORMAL for prediction in self.predictions)

    @property
    def status(self) -> int:
        """The exit status to report: 0, or :data:`UNREADABLE`."""
        return UNREADABLE if self.unreadable else 0


def inspect_into(
    directory: Path,
    inspector: Inspector,
    joints: Iterable[Joint],
    source: str,
    processes: int = 1,
    count: int | None = None,
    told: Callable[[Joint, dict[str, Any]], None] = lambda joint, row: None,
) -> Inspection:
    """Inspect joints, with a progress bar on a terminal; write predictions.csv, predictions.json and report.html.

    Args:
        directory: where to write; it exists.
        inspector: makes the decisions.
        joints: files or arrays, with names; they may be made as they are asked for.
        source: names the checkpoint, for the reader.
        processes: number of processes that share the joints.
        count: of the joints; needed where they are no list.
        told: is called with each joint and its row.
    """
    started = time.monotonic()
    predictions: list[dict[str, Any]] = []
    unreadable: list[Unreadable] = []
    count = len(joints) if count is None and isinstance(joints, Sequence) else count or 0
    asked, awaited = tee(joints)
    rows = inspect_rows(inspector, asked) if processes == 1 else inspect_on_processes(inspector, asked, processes)
    looks = BatchLooks(inspector)
    worst: list[tuple[float, int, dict[str, Any]]] = []  # a heap of (score, -row, picture)
    said: list[dict[str, str]] = []  # what the report says of each joint beside its row
    for row, joint in zip(tracked(rows, "Inspecting", count), awaited, strict=True):
        if isinstance(row, Unreadable):
            unreadable.append(row)
            continue
        prediction, look, draw = row
        looks.add(look)
        told(joint, prediction)
        place = (prediction["margin" if inspector.of_types else "score"], -len(predictions))
        predictions.append(prediction)
        said.append(facts(joint.image if isinstance(joint.image, Path) else joint.file, joint.truth))
        if len(worst) < IN_REPORT:
            heapq.heappush(worst, (*place, draw()))
        elif place > worst[0][:2]:
            heapq.heapreplace(worst, (*place, draw()))
    cards = [
        {**predictions[-minus_row], **said[-minus_row], **drawn} for _, minus_row, drawn in sorted(worst, reverse=True)
    ]
    write_csv(
        directory / "predictions.csv", csv_rows(list(inspector.thresholds), predictions, bool(inspector.of_types))
    )
    drift = looks.drift(predictions)
    write_json(directory / "predictions.json", inspector, predictions, unreadable, source, drift)
    inspection = Inspection(predictions, unreadable, time.monotonic() - started, drift)
    html = page(
        cards,
        unreadable,
        inspector.normals,
        inspector.threshold,
        primary=inspector.primary,
        reconstructs=RECONSTRUCTION in inspector.model.provides,
        title=headline(len(predictions), inspection.abnormal),
        of_types=inspector.of_types,
        kinds=inspector.model.known_defects,
        source=f"Checkpoint {printable(source)}.",
        count=len(predictions),
        drift=drift.sentence,
        log=inspector.model.log,
        of_normals=inspector.of_normals,
    )
    (directory / "report.html").write_text(html, encoding="utf-8")
    return inspection


def csv_rows(
    scores: Sequence[str], predictions: Iterable[dict[str, Any]], by_component: bool = False
) -> Iterator[list[str]]:
    """Header and one row for each joint; 9 digits are enough for every number of single precision.

    What a defect looks like is in the last two columns, where the checkpoint tells types apart.
    """
    predictions = list(predictions)
    typed = bool(predictions) and LIKENESS_COLUMNS[0] in predictions[0]
    own = ["component", "judged_among"] if by_component else []
    last = LIKENESS_COLUMNS if typed else ()
    yield ["path", "score", "threshold", "margin", "label", "rank", *own, *scores, *last]
    for row in predictions:
        numbers = [f"{row['score']:.9g}", repr(row["threshold"]), f"{row['margin']:.9g}"]
        others = (f"{row['scores'][name]:.9g}" for name in scores)
        by = (cell_safe(printable(row[key])) for key in own)
        looks = [row["type"], f"{row['type_probability']:.4g}"] if typed else []
        yield [row["path"], *numbers, row["label"], f"{row['rank']:.6g}", *by, *others, *looks]


def write_json(
    path: Path,
    inspector: Inspector,
    predictions: Sequence[dict[str, Any]],
    unreadable: Sequence[Unreadable],
    source: str,
    drift: Drift,
) -> None:
    """The rows, how the decision was made, what was left out, and how the batch differs from the normals."""
    content = json_head(inspector, unreadable, source, drift)
    before, after = json.dumps(content, indent=1, allow_nan=False).rsplit("]", 1)
    with path.open("w", encoding="utf-8") as file:  # line by line, as the text of many takes more memory than they do
        file.write(before)
        for number, prediction in enumerate(predictions):
            file.write((",\n  " if number else "\n  ") + json.dumps(prediction, allow_nan=False))
        file.write(f"\n ]{after}\n")


def json_head(inspector: Inspector, unreadable: Sequence[Unreadable], source: str, drift: Drift) -> dict[str, Any]:
    """What the JSON says beside its rows, whose list ``predictions`` is empty here and comes last."""
    typed = bool(inspector.of_types)
    return {
        "checkpoint": printable(source),
        "score": inspector.primary,
        "threshold": inspector.threshold.to_dict(),
        **({"thresholds_by_type": {kind: own.to_dict() for kind, own in inspector.own.items()}} if typed else {}),
        "drift": drift.to_dict(),
        "unreadable": [{"path": item.name, "reason": item.reason} for item in unreadable],
        "predictions": [],
    }


def print_summary(inspector: Inspector, inspection: Inspection, out: Path) -> None:
    """The counts, what the threshold promises, the speed; on stderr what could not be read."""
    joints = len(inspection.predictions)
    if inspection.drift.told:
        print(inspection.drift.sentence)
    print(f"{headline(joints, inspection.abnormal)}.")
    print(decision_sentence(inspector.threshold, inspector.primary, inspector.of_normals, inspector.of_types))
    if told := line(inspector.model.log):
        print(f"The checkpoint: {told}")
    if joints:
        print(f"{inspection.seconds:.1f} s, {joints / inspection.seconds:.0f} joints a second from file to report.")
    print(f"Everything is in {out}: open report.html in a browser.")
    if inspection.unreadable:
        print(unreadable_list(inspection.unreadable, joints), file=sys.stderr)


def unreadable_list(unreadable: Sequence[Unreadable], readable: int) -> str:
    """How many images could not be read, and which, the first ones by name."""
    lines = [f"{len(unreadable)} of {readable + len(unreadable)} images could not be read and were left out:"]
    lines += [f"  {item.reason}" for item in unreadable[:_TOLD]]
    if len(unreadable) > _TOLD:
        lines.append(f"  and {len(unreadable) - _TOLD} more")
    return "\n".join(lines)
