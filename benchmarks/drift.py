"""How often drift is told: ``python -m benchmarks.drift checkpoint=PATH images=DIR|CSV [other=DIR] [defects=DIR]``.

``images`` are good joints that the checkpoint has not seen. Batches are drawn from them as they are and changed: the
first line says how often drift is told where there is none, the others how often it is told where there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from solder_vae.data.image_files import Image, read_image
from solder_vae.evaluation.looks import Looks
from solder_vae.inspection.drift import BatchLooks
from solder_vae.inspection.inspector import Inspector, Unreadable
from solder_vae.inspection.joints import Joint, find_joints
from solder_vae.inspection.predictions import inspect_rows
from solder_vae.metrics.drift import Drift
from solder_vae.utils.cli import command, parse
from solder_vae.utils.document import markdown

Change = Callable[[Image], Image]
Rows = list[tuple[Looks, dict[str, Any]]]


@dataclass(frozen=True)
class Options:
    checkpoint: str
    images: str
    other: str = ""
    defects: str = ""
    batches: int = 200
    seed: int = 0


def times(*factors: float) -> Change:
    """Multiply the channels, or all by one factor, as a lamp does that is brighter or of another colour."""
    return lambda image: np.clip(np.rint(image * np.array(factors)), 0, 255).astype(np.uint8)


def blur(deviation: float) -> Change:
    """A camera out of focus; ``deviation`` of the Gaussian, in the photograph's pixels."""
    return lambda image: cv2.GaussianBlur(image, (0, 0), deviation).astype(np.uint8)


AS_THEY_ARE = "as they are"

SIZES = (50, 160)

CHANGES: dict[str, Change] = {
    AS_THEY_ARE: lambda image: image,
    "gain 1.1": times(1.1),
    "gain 1.3": times(1.3),
    "gain 1.6": times(1.6),
    "gain 0.8": times(0.8),
    "warmer lamp: red x 1.08, blue x 0.9": times(1.08, 1, 0.9),
    "much warmer lamp: red x 1.15, blue x 0.8": times(1.15, 1, 0.8),
    "blur, deviation 1 px": blur(1),
    "blur, deviation 2 px": blur(2),
}


def inspected(inspector: Inspector, images: str, change: Change) -> Rows:
    """Looks and row of each picture, changed."""
    joints = (
        Joint(joint.name, change(read_image(Path(str(joint.image)))), joint.type, joint.place)
        for joint in find_joints(images)
    )
    return [(row[1], row[0]) for row in inspect_rows(inspector, joints) if not isinstance(row, Unreadable)]


def drift_of(inspector: Inspector, batch: Sequence[tuple[Looks, dict[str, Any]]]) -> Drift:
    looks = BatchLooks(inspector)
    for look, _ in batch:
        looks.add(look)
    return looks.drift([row for _, row in batch])


def in_order(rows: Rows) -> Rows:
    """By the numbers in the names: neighbours on a board are mostly numbered one after the other."""
    return sorted(rows, key=lambda row: [int(part) if part.isdigit() else part for part in parts(row[1]["path"])])


def parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def found(
    inspector: Inspector, plain: Rows, changed: dict[str, Rows], defects: Rows, size: int, options: Options
) -> Iterator[tuple[str, list[Drift]]]:
    """By name what is found in batches of one size."""
    generator = np.random.default_rng(options.seed)

    def drawn(rows: Rows, count: int = size) -> Rows:
        return [rows[row] for row in generator.choice(len(rows), count, replace=count > len(rows))]

    def drifts(batch: Callable[[], Rows]) -> list[Drift]:
        return [drift_of(inspector, batch()) for _ in range(options.batches)]

    yield AS_THEY_ARE, drifts(lambda: drawn(plain))
    ordered, starts = in_order(plain), range(0, len(plain) - size + 1, size)
    yield "neighbours in the order of their files", [drift_of(inspector, ordered[at : at + size]) for at in starts]
    for share in (0.1, 0.3, 0.5) if defects else ():
        bad = round(share * size)
        yield f"of them {share:.0%} defects", drifts(lambda bad=bad: drawn(plain, size - bad) + drawn(defects, bad))  # type: ignore[misc]
    for name, rows in changed.items():
        yield name, drifts(lambda rows=rows: drawn(rows))  # type: ignore[misc]


def run(arguments: list[str]) -> int:
    options = parse(Options, arguments, __doc__ or "")
    inspector = Inspector.load(options.checkpoint)
    plain = inspected(inspector, options.images, CHANGES[AS_THEY_ARE])
    changed = {name: inspected(inspector, options.images, change) for name, change in list(CHANGES.items())[1:]}
    if options.other:
        changed["another board"] = inspected(inspector, options.other, CHANGES[AS_THEY_ARE])
    defects = inspected(inspector, options.defects, CHANGES[AS_THEY_ARE]) if options.defects else []
    lines: dict[str, list[str]] = {}
    for size in SIZES:
        for name, drifts in found(inspector, plain, changed, defects, size, options):
            told = [drift for drift in drifts if drift.told]
            words = told[len(told) // 2].found[0].words if told else ""
            lines[name] = [*lines.get(name, [])[:-1], f"{len(told)} of {len(drifts)}", words]
    header = ["joints", *(f"told, {size} a batch" for size in SIZES), "in words"]
    print(markdown(header, [[name, *cells] for name, cells in lines.items()]))
    return 0


if __name__ == "__main__":
    command(run)
