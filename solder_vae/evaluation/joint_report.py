"""The report on joints: one self-contained HTML file, worst joint first, in which each joint can be given a verdict.

An inspection and the test of a training write it. All that varies is one JSON object inside the page (:func:`page`),
see :func:`~solder_vae.utils.document.fill_page`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.image_files import LUMA, Image, base64_of_jpeg
from solder_vae.data.names import NORMAL_NAMES
from solder_vae.evaluation.rule_sentence import VALIDATION, decision_sentence
from solder_vae.metrics.by_type import OfType, own_thresholds
from solder_vae.metrics.threshold import Threshold
from solder_vae.models.history import Entry, line, lines
from solder_vae.utils.document import fill_page
from solder_vae.utils.labels import UNDECIDED

#: The heat map's colours between these multiples of its unit; below the first nothing is drawn.
HEAT_LOW, HEAT_HIGH = 0.5, 2.0
_COLOURS = np.array([[255, 237, 120], [253, 141, 60], [227, 26, 28], [177, 0, 110]])
_FULL_AT = 0.25  # share of the ramp after which the colour is most opaque ...
_OPACITY = 0.85  # ... which lets the joint shine through

_LARGEST = 128  # pixels a side in the report
_BARS = 60


def strip(panels: Sequence[Image]) -> str:
    """Pictures ``(S, S, 3)`` beside each other, as base64 of a JPEG image."""
    side = min(panels[0].shape[0], _LARGEST)
    return base64_of_jpeg(
        np.hstack([cv2.resize(panel, (side, side), interpolation=cv2.INTER_AREA) for panel in panels])
    )


def facts(file: Path | None, truth: str) -> dict[str, str]:
    """What a report says of a joint beside its verdict: where its picture lies, which makes it possible to judge it and
    to use the judgement; and what it really is, where that is known.

    Args:
        file: its picture; the path is made absolute, so that a table of verdicts may be saved anywhere.
        truth: "normal", a type of defect, "undecided" or "".
    """
    known = {"truth": truth} if truth not in ("", UNDECIDED) else {}
    return {**({"file": str(file.absolute())} if file is not None else {}), **known}


def overlay(image: NDArray[np.uint8], heat_map: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The heat map over the image in grey, so that colour means anomaly and nothing else.

    Args:
        image: ``(S, S, 3)`` uint8.
        heat_map: ``(S, S)`` in its unit, see :class:`~solder_vae.inspection.inspector.Verdict`.

    Returns:
        ``(S, S, 3)`` uint8.
    """
    heat = np.clip((heat_map - HEAT_LOW) / (HEAT_HIGH - HEAT_LOW), 0, 1)
    stops = np.linspace(0, 1, len(_COLOURS))
    colour = np.stack([np.interp(heat, stops, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    opacity = _OPACITY * np.clip(heat / _FULL_AT, 0, 1)[..., None]
    grey = 0.9 * (image @ LUMA)[..., None]
    mixed: NDArray[np.uint8] = np.rint((1 - opacity) * grey + opacity * colour).astype(np.uint8)
    return mixed


def page(
    joints: Sequence[dict[str, Any]],
    unreadable: Sequence[tuple[str, str]],
    normals: Sequence[float],
    threshold: Threshold,
    *,
    primary: str,
    reconstructs: bool,
    title: str,
    source: str,
    count: int,
    of_types: Mapping[str, OfType] | None = None,
    kinds: Sequence[str] = (),
    drift: str = "",
    log: Sequence[Entry] = (),
    of_normals: str = VALIDATION,
) -> str:
    """The report as HTML.

    Args:
        joints: of each its row, its ``picture``, and its :func:`facts`.
        unreadable: what could not be inspected, and why.
        normals: scores of the normals that the thresholds come from, sorted.
        threshold: the one that decided.
        primary: name of the score that decided.
        reconstructs: whether the pictures show reconstructions.
        title, source: the page's title, and where all of it comes from.
        count: how many joints there are; where these are not all of them, the page says so.
        of_types: normals and thresholds by component type.
        kinds: types of defects that are known, to choose from.
        log: what was done to the model.
        of_normals: what the normals are.
        drift: how the joints differ from those the model was trained on, "" where nothing is to be told.
    """
    if len(joints) < count:
        source += f" Here are the {len(joints)} worst joints; predictions.csv has all {count}."
    own = own_thresholds(of_types or {}, primary)
    scores = {kind: (of_types or {})[kind].scores[primary].tolist() for kind in own}
    data = {
        "title": title,
        "drift": drift,
        "log": {"line": line(log), "lines": lines(log)},
        "of_normals": of_normals,
        "sentence": decision_sentence(threshold, primary, of_normals, of_types or {}),
        "source": source,
        "primary": primary,
        "panels": ["joint", *(["reconstruction"] if reconstructs else []), "anomaly map"],
        "threshold": threshold.value,
        "normals": len(normals),
        "axis": axis(normals, threshold.value),
        "types": {
            kind: {"threshold": own[kind].value, "normals": own[kind].n, "axis": axis(scores[kind], own[kind].value)}
            for kind in own
        },
        "typed": bool(of_types),
        "heat": {
            "low": HEAT_LOW,
            "high": HEAT_HIGH,
            "colours": [f"rgb({red},{green},{blue})" for red, green, blue in _COLOURS.tolist()],
        },
        "image": "data:image/jpeg;base64,",
        "unreadable": [{"name": name, "reason": reason} for name, reason in unreadable],
        "kinds": list(kinds),
        "reserved": sorted({*NORMAL_NAMES, UNDECIDED}),
        "id": identity(source, joints),
        "joints": list(joints),
    }
    return fill_page("predictions.html", data)


def headline(joints: int, abnormal: int) -> str:
    """How many joints were called abnormal."""
    share = f" ({100 * abnormal / joints:.1f} %)" if joints else ""
    return f"{abnormal} of {joints} joints called abnormal{share}"


def axis(normals: Sequence[float], threshold: float) -> dict[str, Any]:
    """The axis on which joints are shown among the normals: its ends, and the normals' histogram, highest bar 1.

    It ends half its length past the threshold and nearly all normals, so that far-off scores do not squeeze the others.
    Scores beyond the axis are marked.
    """
    scores = np.asarray(normals, dtype=np.float64)
    low = min(float(scores.min()), threshold)
    high = max(float(np.quantile(scores, 0.995)), threshold)
    high += 0.5 * (high - low) or max(abs(low), 1.0)
    counts, _ = np.histogram(np.minimum(scores, high), _BARS, (low, high))
    return {"low": low, "high": high, "bars": np.round(counts / max(counts.max(), 1), 3).tolist()}


def identity(source: str, joints: Sequence[Mapping[str, Any]]) -> str:
    """What tells a report from others, so that a browser keeps the verdicts of each apart: its joints and scores."""
    content = json.dumps([source, [[joint.get("file", joint["path"]), joint["score"]] for joint in joints]])
    return blake2b(content.encode(), digest_size=12).hexdigest()
