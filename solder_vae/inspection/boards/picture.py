"""Verdicts on joints drawn into the picture of their board."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

from solder_vae.data.image_files import Image
from solder_vae.inspection.boards.board import Board, BoardJoint

# Okabe and Ito's vermilion and sky blue, told apart by the colour-blind too; thickness tells the same.
_ORANGE, _BLUE = (213, 94, 0), (86, 180, 233)


def verdicts_on_board(board: Board, margins: Sequence[float]) -> Image:
    """The board's picture with each joint in a box: thin and blue if normal, thick and orange with its name if not.

    Args:
        board: with N joints.
        margins: of each of them, score minus threshold, in the same order; abnormal iff positive.

    Returns:
        ``(H, W, 3)`` uint8, as large as the picture.
    """
    picture = board.image.copy()
    unit = max(1, round(max(picture.shape[:2]) / 1000))
    drawn = sorted(zip(board.joints, margins, strict=True), key=lambda pair: pair[1])  # the worst on top
    for box, margin in drawn:
        corners = (box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1)
        if margin > 0:
            cv2.rectangle(picture, *corners, (0, 0, 0), 5 * unit)
            cv2.rectangle(picture, *corners, _ORANGE, 3 * unit)
        else:
            cv2.rectangle(picture, *corners, _BLUE, unit)
    for box, margin in drawn:
        if margin > 0:
            _write(picture, f"{box.name} +{margin:.2g}", box, unit)
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
