"""How a picture becomes a square: its central square alone, or the whole of it, fitted in.

``square`` is the paper's crop. ``letterbox`` is for boxes of elongated parts, whose solder lies at the two ends: the
whole picture is shrunk or enlarged until its longer side fits, and lies in the middle; the two bars left over get one
colour, the mean of the picture's own edges beside them. A constant bar can be reconstructed, so it adds next to nothing
to a score and nothing to a heat map, and it begins with the smallest step that a constant can have. A picture continued
by its mirror image would show each defect at its edge twice, and the heat map would mark one where there is no joint.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SQUARE, LETTERBOX = CROPS = ("square", "letterbox")

ELONGATED = 1.5
"""Images of a larger ratio of sides lose more than a third of their area to the square."""

ROUND_UP = 0.5 + 2**-10
"""Added to a letterbox's means before these are cut to whole grey levels: halves, which its sizes make often, then
always go up. Rounded to the nearest, they would go where rounding errors send them, in an exported graph elsewhere."""

MANY = 0.1
"""From this share of elongated images on it is said what the square cuts off."""


def fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of a whole picture once its longer side is ``size``, in whole pixels, 1 at least."""
    longest = max(height, width)
    rows, columns = (max(1, (2 * side * size + longest) // (2 * longest)) for side in (height, width))
    return rows, columns


def edge_colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean ``(3,)`` of the two edges of ``(H, W, 3)`` along its longer side, rounded."""
    edges = image[[0, -1]] if image.shape[1] > image.shape[0] else image[:, [0, -1]]
    pixels = edges.reshape(-1, image.shape[2]).astype(np.int64)
    return np.asarray((2 * pixels.sum(axis=0) + len(pixels)) // (2 * len(pixels)), np.uint8)


def cut_off(native_size: ArrayLike) -> str:
    """What the square cuts off of elongated pictures, in a sentence; empty if these are a tenth or less.

    Args:
        native_size: ``(N, 2)``, height and width in pixels.
    """
    sides = np.asarray(native_size, np.int64).reshape(-1, 2)
    short, long = sides.min(axis=1), sides.max(axis=1)
    elongated = long > ELONGATED * short
    if not len(sides) or elongated.mean() <= MANY:
        return ""
    lost = float((1 - short[elongated] / long[elongated]).mean())
    return (
        f"{100 * elongated.mean():.0f} % of the images are longer than {ELONGATED:g}:1, and the central square cuts "
        f"off {100 * lost:.0f} % of their area: data.crop=letterbox shows them whole."
    )
