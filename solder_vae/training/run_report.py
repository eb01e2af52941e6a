"""report.html of a run: its test joints, as ``python -m solder_vae.predict`` shows new ones."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np

from solder_vae.data.image_files import Image
from solder_vae.evaluation.evaluate import Evaluation, anomaly_maps, reconstruct
from solder_vae.evaluation.joint_report import facts, headline, overlay, page, strip
from solder_vae.models.classifier import LIKENESS_COLUMNS
from solder_vae.models.detector import Detector
from solder_vae.models.scores import RECONSTRUCTION
from solder_vae.utils.files import atomic_file
from solder_vae.utils.labels import ABNORMAL, NORMAL

IN_REPORT = 1000
"""How many of the worst test joints are in a run's report: about 3 MB."""

_AT_ONCE = 64


def write_report(directory: Path, model: Detector, evaluation: Evaluation) -> None:
    """Write report.html.

    Args:
        directory: the run's.
        model: the tested model, in evaluation mode.
        evaluation: its test.
    """
    margins = evaluation.test[evaluation.primary] - evaluation.limits
    ranked = np.argsort(-margins if evaluation.of_types else -evaluation.test[evaluation.primary], kind="stable")
    worst = ranked[:IN_REPORT].tolist()
    cards = []
    for start in range(0, len(worst), _AT_ONCE):
        rows = worst[start : start + _AT_ONCE]
        pictures = strips(model, evaluation, rows)
        cards += [{**card(evaluation, row), "picture": drawn} for row, drawn in zip(rows, pictures, strict=True)]
    count = len(evaluation.table)
    html = page(
        cards,
        [],
        sorted(evaluation.val[evaluation.primary].tolist()),
        evaluation.threshold,
        primary=evaluation.primary,
        reconstructs=RECONSTRUCTION in model.provides,
        title=f"Test: {headline(count, int(evaluation.predicted.sum()))}",
        source="The test joints of the run in this folder, best.ckpt.",
        count=count,
        of_types=evaluation.of_types,
        of_normals=evaluation.of_normals,
        kinds=model.known_defects,
    )
    with atomic_file(directory / "report.html") as path:
        path.write_text(html, encoding="utf-8")


def strips(model: Detector, evaluation: Evaluation, rows: list[int]) -> list[str]:
    """Each joint's picture, reconstruction (of a model that has one) and anomaly map, as the page takes them."""
    images: Image = evaluation.table.images[rows]
    maps = anomaly_maps(model, evaluation.table, rows) / evaluation.map_scale
    panels = [images]
    if RECONSTRUCTION in model.provides:
        kept = evaluation.recons
        panels.append(reconstruct(model, evaluation.table.images, rows) if kept is None else kept[rows])
    panels.append(np.stack([overlay(image, heat) for image, heat in zip(images, maps, strict=True)]))
    return [strip(each) for each in zip(*panels, strict=True)]


def card(evaluation: Evaluation, row: int) -> dict[str, Any]:
    """What the page says of a test joint, as of an inspected one."""
    table, primary, among = evaluation.table, evaluation.primary, evaluation.judged_among[row]
    score, limit = float(evaluation.test[primary][row]), float(evaluation.limits[row])
    own = evaluation.of_types.get(among)
    normals = np.sort(evaluation.val[primary] if own is None else own.scores[primary])
    file = Path(table.paths[row])
    likeness = evaluation.likeness
    return {
        "path": table.paths[row],
        "score": score,
        "threshold": limit,
        "margin": score - limit,
        "label": ABNORMAL if score > limit else NORMAL,
        "rank": bisect_left(normals.tolist(), score) / len(normals),
        **({} if table.types is None else {"component": table.types[row], "judged_among": among}),
        "scores": {name: float(values[row]) for name, values in evaluation.test.items()},
        **({} if likeness is None else dict(zip(LIKENESS_COLUMNS, likeness[row], strict=True))),
        **facts(file if file.is_file() else None, table.defects[row]),
    }
