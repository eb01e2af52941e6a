"""Verdicts on joints drawn into the picture of their board."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

from solder_vae.board import Board, BoardJoint
from solder_vae.data.transforms import Image

# Okabe and Ito's vermilion and sky blue, told apart by the colour-blind too; thickness tells the same.
_ORANGE, _BLUE = (213, 94, 0), (86, 180, 233)


def draw_verdicts(board: Board, abnormal: Sequence[bool], notes: Sequence[str]) -> Image:
    """The board's picture with each joint in a box: thin and blue if normal, thick and orange with a note if not.

    Args:
        board: with N joints.
        abnormal: the N decisions.
        notes: N short texts, written beside the abnormal joints.
    """
    picture = board.image.copy()
    height, width = picture.shape[:2]
    unit = max(1, round(max(height, width) / 1000))
    for box, bad, note in sorted(zip(board.joints, abnormal, notes, strict=True), key=lambda item: item[1]):
        corners = (box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1)
        if bad:
            cv2.rectangle(picture, *corners, (0, 0, 0), 5 * unit)
        cv2.rectangle(picture, *corners, _ORANGE if bad else _BLUE, 3 * unit if bad else unit)
        if bad:
            _write(picture, note, box, unit)
    return picture


def _write(picture: Image, note: str, box: BoardJoint, unit: int) -> None:
    """A note above a box, or below where there is no room, in white on black."""
    text = note.encode("ascii", "replace").decode()
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * unit
    (width, height), base = cv2.getTextSize(text, font, scale, unit)
    x = max(0, min(box.x, picture.shape[1] - width))
    y = box.y - 4 * unit if box.y - height - 6 * unit > 0 else box.y + box.height + height + 4 * unit
    cv2.rectangle(picture, (x - unit, y - height - unit), (x + width + unit, y + base), (0, 0, 0), cv2.FILLED)
    cv2.putText(picture, text, (x, y), font, scale, (255, 255, 255), unit, cv2.LINE_AA)
