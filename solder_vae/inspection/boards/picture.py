"""A board's joints drawn into its picture: their boxes, and the verdicts on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.image_files import Image
from solder_vae.inspection.boards.board import Board, BoardJoint

# Okabe and Ito's vermilion and sky blue, told apart by the colour-blind too; thickness tells the same.
_ORANGE, _BLUE = (213, 94, 0), (86, 180, 233)

_STRAIGHT = [(0, -1), (0, 1), (1, 0), (-1, 0)]
_DIRECTIONS = np.array([*_STRAIGHT, (1, -1), (-1, -1), (1, 1), (-1, 1), *_STRAIGHT, *_STRAIGHT])
_RINGS = 16  # how many of its heights a note may lie away from its box


def predictions_on_board(board: Board, rows: Sequence[Mapping[str, Any]]) -> Image:
    """The board's picture with the predictions of its joints, as :func:`verdicts_on_board` draws them.

    Args:
        board: with N joints.
        rows: of each of them, in the same order.
    """
    return verdicts_on_board(board, [row["margin"] for row in rows], [str(row.get("type", "")) for row in rows])


def verdicts_on_board(board: Board, margins: Sequence[float], looks: Sequence[str] = ()) -> Image:
    """The board's picture with each joint in a box: thin and blue if normal, thick and orange with its name if not.

    Args:
        board: with N joints.
        margins: of each of them, score minus threshold, in the same order; abnormal iff positive.
        looks: the type of defect that each looks like, "" where none is known; written at the abnormal ones.

    Returns:
        ``(H, W, 3)`` uint8, as large as the picture.
    """
    picture = board.image.copy()
    unit = unit_of(picture)
    looks = looks or [""] * len(margins)
    drawn = sorted(zip(board.joints, margins, looks, strict=True), key=lambda each: each[1])  # the worst on top
    for box, margin, _ in drawn:
        corners = corners_of(box)
        if margin > 0:
            cv2.rectangle(picture, *corners, (0, 0, 0), 5 * unit)
            cv2.rectangle(picture, *corners, _ORANGE, 3 * unit)
        else:
            cv2.rectangle(picture, *corners, _BLUE, unit)
    worst_first = [
        (box, f"{box.name} +{margin:.2g}\n{look.replace('_', ' ')}".strip())
        for box, margin, look in reversed(drawn)
        if margin > 0
    ]
    write_notes(picture, worst_first, board.joints, unit)
    return picture


def boxes_on_board(board: Board) -> Image:
    """The board's picture ``(H, W, 3)`` uint8 with the box and name of each joint, before there are verdicts."""
    picture = board.image.copy()
    unit = unit_of(picture)
    for box in board.joints:
        cv2.rectangle(picture, *corners_of(box), (0, 0, 0), 3 * unit)
        cv2.rectangle(picture, *corners_of(box), _BLUE, unit)
    write_notes(picture, [(box, box.name) for box in board.joints], board.joints, unit)
    return picture


def unit_of(picture: Image) -> int:
    """The width of a thin line in pixels."""
    height, width = picture.shape[:2]
    return int(max(1, round(max(height, width) / 1000)))


def corners_of(box: BoardJoint) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first and the last pixel of a box."""
    return (box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1)


def write_notes(
    picture: Image, notes: Sequence[tuple[BoardJoint, str]], boxes: Sequence[BoardJoint], unit: int
) -> None:
    """Write a note to each of some boxes, in white on black, where it hides neither a joint nor another note.

    A note that has no room beside its box lies further away, at the end of a line.

    Args:
        picture: ``(H, W, 3)``, drawn into.
        notes: the box of each, and the text, of one line or more; the first ones get the best places.
        boxes: of all joints.
        unit: width of a thin line.
    """
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * unit
    taken = np.array([[box.x, box.y, box.x + box.width, box.y + box.height] for box in boxes], dtype=np.int64)
    lines: list[tuple[tuple[int, int], tuple[int, int]]] = []
    texts: list[tuple[str, int, int]] = []
    for box, note in notes:
        rows = note.encode("ascii", "replace").decode().splitlines()
        (_, height), base = cv2.getTextSize(rows[0], font, scale, unit)
        width = max(cv2.getTextSize(row, font, scale, unit)[0][0] for row in rows)
        step = height + base
        size = width + 2 * unit, step * len(rows) + 2 * unit
        x, y = place(box, size, taken, picture.shape[:2], 4 * unit)
        taken = np.vstack([taken, [x, y, x + size[0], y + size[1]]])
        start, end = between(box, (x, y), size)
        if math.dist(start, end) > 8 * unit:
            lines.append((start, end))
        cv2.rectangle(picture, (x, y), (x + size[0] - 1, y + size[1] - 1), (0, 0, 0), cv2.FILLED)
        texts += [(row, x + unit, y + unit + height + step * number) for number, row in enumerate(rows)]
    for start, end in lines:
        cv2.line(picture, start, end, (0, 0, 0), 3 * unit, cv2.LINE_AA)
        cv2.line(picture, start, end, (255, 255, 255), unit, cv2.LINE_AA)
    for text, x, y in texts:
        cv2.putText(picture, text, (x, y), font, scale, (255, 255, 255), unit, cv2.LINE_AA)


def place(
    box: BoardJoint, size: tuple[int, int], taken: NDArray[np.int64], shape: tuple[int, ...], gap: int
) -> tuple[int, int]:
    """The upper left corner of a note beside its box: the nearest place that hides least of what is taken.

    Args:
        box: what it belongs to.
        size: the note's width and height.
        taken: ``(N, 4)`` rectangles: left, upper, right, lower.
        shape: the picture's height and width.
        gap: pixels between box and note.
    """
    width, height = size
    middle = np.array([box.x + box.width / 2, box.y + box.height / 2])
    reach = np.array([(box.width + width) / 2, (box.height + height) / 2]) + gap
    # Straight above and below a note begins where the box does; then it ends there, then it is in the middle. Beside
    # the box it is in the middle, then lower, then higher.
    starts = _DIRECTIONS * reach
    starts[:2, 0], starts[8:10, 0] = (width - box.width) / 2, (box.width - width) / 2
    starts[10:12, 1], starts[14:16, 1] = (height - box.height) / 2, (box.height - height) / 2
    rings = np.arange(_RINGS)[:, None, None] * height * _DIRECTIONS
    corners = (middle + starts + rings).reshape(-1, 2) - np.array(size) / 2
    corners = np.clip(np.rint(corners), 0, [max(shape[1] - width, 0), max(shape[0] - height, 0)]).astype(np.int64)
    left, upper = corners[:, :1], corners[:, 1:]
    within = (taken[:, :2] < corners.max(0) + size) & (taken[:, 2:] > corners.min(0))
    taken = taken[within.all(1)]
    across = np.minimum(left + width, taken[:, 2]) - np.maximum(left, taken[:, 0])
    down = np.minimum(upper + height, taken[:, 3]) - np.maximum(upper, taken[:, 1])
    hidden = (across.clip(0) * down.clip(0)).sum(1)
    best = corners[int(hidden.argmin())]
    return int(best[0]), int(best[1])


def between(box: BoardJoint, corner: tuple[int, int], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The points of a box and of a note that are nearest to each other, for the line between them."""
    ends = []
    for low, length, other, other_length in (
        (box.x, box.width, corner[0], size[0]),
        (box.y, box.height, corner[1], size[1]),
    ):
        point = min(max(low + length // 2, other), other + other_length)
        ends.append((min(max(point, low), low + length), point))
    (x, note_x), (y, note_y) = ends
    return (x, y), (note_x, note_y)
