"""The drawing plane: pixel coordinates in the joint's frame, signed distances, anti-aliased coverage and noise.

Lengths are in pad widths (the pad is one wide), so that a scene is the same at every resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

_LARGE = 1 << 17  # pixels: the textures of a whole board are not worth remembering


@dataclass(frozen=True)
class Canvas:
    """Where each pixel lies on the board.

    Attributes:
        x: ``(H, W)`` across the pad, 0 on its axis, in pad widths.
        y: ``(H, W)`` along the pad, 0 at its inner (component) end, growing outwards to the toe.
        pixel: width of one pixel in pad widths.
    """

    x: Field
    y: Field
    pixel: float

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.x.shape[0], self.x.shape[1]


def make_canvas(shape: tuple[int, int], view: float, center: tuple[float, float], angle: float) -> Canvas:
    """Lay a camera frame of ``shape`` pixels over the board.

    Args:
        shape: height and width in pixels.
        view: pad widths that the short side of the frame spans.
        center: ``(x, y)`` of the frame's middle in the joint's frame, in pad widths.
        angle: rotation of the joint in the picture, radians.
    """
    pixel = view / min(shape)
    rows = (np.arange(shape[0], dtype=np.float32) - (shape[0] - 1) / 2)[:, None] * np.float32(pixel)
    cols = (np.arange(shape[1], dtype=np.float32) - (shape[1] - 1) / 2)[None, :] * np.float32(pixel)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return Canvas(
        x=cos * cols + sin * rows + np.float32(center[0]),
        y=cos * rows - sin * cols + np.float32(center[1]),
        pixel=pixel,
    )


def box(
    canvas: Canvas,
    center: tuple[float, float],
    half: tuple[float, float],
    radius: float = 0.0,
    angle: float = 0.0,
) -> Field:
    """Signed distance to a rounded rectangle, negative inside, ``(H, W)`` in pad widths."""
    dx, dy = canvas.x - np.float32(center[0]), canvas.y - np.float32(center[1])
    if angle:
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    qx = np.abs(dx) - np.float32(half[0] - radius)
    qy = np.abs(dy) - np.float32(half[1] - radius)
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
    distance: Field = outside + np.minimum(np.maximum(qx, qy), 0) - np.float32(radius)
    return distance


def disc(canvas: Canvas, center: tuple[float, float], radius: float) -> Field:
    """Signed distance to a disc, negative inside, ``(H, W)`` in pad widths."""
    dx, dy = canvas.x - np.float32(center[0]), canvas.y - np.float32(center[1])
    distance: Field = np.sqrt(dx * dx + dy * dy) - np.float32(radius)
    return distance


def segment(canvas: Canvas, start: tuple[float, float], end: tuple[float, float]) -> tuple[Field, Field]:
    """Distance to a line segment and the position along it (0 at ``start``, 1 at ``end``), each ``(H, W)``."""
    ax, ay = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    px, py = canvas.x - np.float32(start[0]), canvas.y - np.float32(start[1])
    along = np.clip((px * ax + py * ay) / (ax * ax + ay * ay + np.float32(1e-9)), 0, 1)
    distance = np.sqrt((px - along * ax) ** 2 + (py - along * ay) ** 2)
    return distance.astype(np.float32), along.astype(np.float32)


def cover(distance: Field, pixel: float) -> Field:
    """Share of each pixel inside a shape, in [0, 1], from its signed distance (a one-pixel ramp)."""
    share: Field = np.clip(np.float32(0.5) - distance * np.float32(1 / pixel), 0, 1)
    return share


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: float, stretch: float = 1.0) -> Field:
    """Smooth Gaussian noise of about unit variance, ``(H, W)``.

    Args:
        rng: the stream to draw from.
        shape: height and width in pixels.
        cells: about how many grains fit along a side.
        stretch: how many times longer the grains are down the rows than across.
    """
    rows, cols = max(3, round(cells / stretch) + 2), max(3, round(cells) + 2)
    grid = rng.standard_normal((rows, cols), dtype=np.float32)
    if shape[0] * shape[1] > _LARGE:
        return _enlarged(grid, shape)
    return _remembered(grid.tobytes(), rows, shape)


@lru_cache(maxsize=64)  # a joint and its sound twin, built one after the other, have the same textures
def _remembered(grid: bytes, rows: int, shape: tuple[int, int]) -> Field:
    field = _enlarged(np.frombuffer(grid, np.float32).reshape(rows, -1), shape)
    field.setflags(write=False)
    return field


def _enlarged(grid: Field, shape: tuple[int, int]) -> Field:
    return np.asarray(cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def fractal(rng: np.random.Generator, shape: tuple[int, int], cells: float, octaves: int = 3) -> Field:
    """Sum of ``octaves`` of :func:`noise`, each twice as fine and half as strong, ``(H, W)``."""
    total = noise(rng, shape, cells)
    for octave in range(1, octaves):
        total = total + noise(rng, shape, cells * 2**octave) * np.float32(0.5**octave)
    return total


def lumps(rng: np.random.Generator, canvas: Canvas, per_width: float) -> Field:
    """Knobs and wrinkles of solder that froze in a heap, ``(H, W)`` of about unit height, ``per_width`` a pad width."""
    cells = per_width * min(canvas.shape) * canvas.pixel
    return np.abs(noise(rng, canvas.shape, cells))
