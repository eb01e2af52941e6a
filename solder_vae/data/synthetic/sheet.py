"""A labelled contact sheet of rendered joints."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.synthetic.render import Rendered
from solder_vae.data.transforms import prepare, prepare_mask

_TILE, _STRIP, _GAP = 112, 26, 4


def contact_sheet(joints: Sequence[Rendered], columns: int = 10) -> NDArray[np.uint8]:
    """Tiles side by side, each with its defect type, its severity and, small, its mask.

    Args:
        joints: what to show, in reading order; cropped as the network sees them.
        columns: tiles in a row.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    columns = min(columns, len(joints))
    rows = -(-len(joints) // columns)
    sheet = np.full((rows * (_TILE + _STRIP + _GAP) + _GAP, columns * (_TILE + _GAP) + _GAP, 3), 255, np.uint8)
    for number, joint in enumerate(joints):
        top = _GAP + number // columns * (_TILE + _STRIP + _GAP)
        left = _GAP + number % columns * (_TILE + _GAP)
        sheet[top : top + _TILE, left : left + _TILE] = prepare(joint.image, _TILE)
        label = joint.defect.replace("_", " ")
        _write(sheet, label, (left, top + _TILE + 10))
        if joint.mask.any():
            _write(sheet, f"{float(joint.factors['severity']):.2f}", (left, top + _TILE + 22))
            mask = np.where(prepare_mask(joint.mask, _STRIP - 2)[..., None], np.uint8(20), np.uint8(225))
            right = left + _TILE - mask.shape[1]
            sheet[top + _TILE + 1 : top + _TILE + 1 + mask.shape[0], right : right + mask.shape[1]] = mask
    return sheet


def _write(sheet: NDArray[np.uint8], text: str, at: tuple[int, int]) -> None:
    room = _TILE - _STRIP
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)[0][0]
    scale = 0.36 * min(1.0, room / width)
    cv2.putText(sheet, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
