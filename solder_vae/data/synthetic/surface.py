r"""The solder's free surface: a relaxed Young-Laplace meniscus whose volume is given.

Young and Laplace (1805): the pressure jump over a liquid surface is its tension times twice the mean curvature. At
the size of a solder joint gravity hardly matters (Bond number well under one), so the pressure is one constant per
drop, and for moderate slopes the curvature is the Laplacian:

.. math:: \nabla^2 h = -p

with the surface pinned at the edge of the wetted pad (:math:`h = 0`) and held by the wetted wall of the terminal
(:math:`h = w`). The equation is linear in p, so :math:`h = h_0 + p\,h_1`, with h_0 the surface without pressure and
h_1 that of unit pressure on flat edges; the volume then gives p in closed form. A small volume gives p < 0, a concave
fillet; a large one p > 0, a convex one. Drops that touch share one pressure: this is what makes a bridge.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.synthetic.canvas import Field

_COARSEST = 14  # cells along the short side where the cascade starts
_SWEEPS = 24  # red-black sweeps per level: within 1 % of a direct solution on the grids used here
_OVERRELAX = 1.8


def relax(fixed: NDArray[np.bool_], value: Field, load: Field) -> Field:
    """Solve ``laplace(u) = -load`` on unit cells by cascadic red-black over-relaxation.

    Args:
        fixed: ``(H, W)``, cells whose value is given.
        value: ``(K, H, W)``, the given values of K problems solved together; also read only where ``fixed``.
        load: ``(K,)``, the right-hand side of each problem, in 1 / cell².

    Returns:
        ``(K, H, W)``. The frame's edges are mirrors: the surface goes on beyond the picture.
    """
    height, width = fixed.shape
    if min(height, width) >= 2 * _COARSEST:
        coarse = relax(fixed[::2, ::2], value[:, ::2, ::2], load * np.float32(4))
        start = np.stack([cv2.resize(u, (width, height), interpolation=cv2.INTER_LINEAR) for u in coarse])
    else:
        start = np.zeros_like(value)
    padded = np.pad(np.where(fixed, value, start), ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = padded[:, 1:-1, 1:-1]
    red = (np.add.outer(np.arange(height), np.arange(width)) % 2).astype(bool)
    steps = [np.where(fixed | colour, 0, _OVERRELAX).astype(np.float32) for colour in (red, ~red)]
    push = load[:, None, None].astype(np.float32)
    for _ in range(_SWEEPS if min(height, width) >= 2 * _COARSEST else 3 * _SWEEPS):
        for step in steps:
            around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
            inner += step * (np.float32(0.25) * (around + push) - inner)
        padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]
        padded[:, :, 0], padded[:, :, -1] = padded[:, :, 1], padded[:, :, -2]
    return np.ascontiguousarray(inner)


def meniscus(wetted: Field, terminal: Field, climb: Field, volume: Field, bare: float) -> Field:
    """Height of the solder's surface.

    Args:
        wetted: ``(H, W)`` in [0, 1], where solder wets the board side (terminals included).
        terminal: ``(H, W)`` in [0, 1], where a terminal or lead stands.
        climb: ``(H, W)``, how high solder wets the terminal's wall, in pad widths.
        volume: ``(H, W)``, the solder volume over that of a straight-sided fillet (the surface of zero pressure), or,
            for a drop that no terminal holds, over a mean thickness of ``bare``; averaged over each drop.
        bare: that thickness, in pad widths.

    Returns:
        ``(H, W)`` float32 in pad widths, 0 where dry, at least 0 everywhere.
    """
    height, width = wetted.shape
    # Half resolution: a meniscus is smooth, and the solve is what costs.
    size = (max(width // 2, 8), max(height // 2, 8))
    wet, term, top, asked = (
        cv2.resize(field, size, interpolation=cv2.INTER_AREA) for field in (wetted, terminal, climb, volume)
    )
    inside, held = wet > 0.5, term > 0.5
    value = np.stack([np.where(held, top, 0), np.zeros_like(top)]).astype(np.float32)
    flat, bulge = relax(~inside | held, value, np.array([0, 1], np.float32))
    pressure = np.zeros_like(flat)
    count, drops = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    for drop in range(1, count):
        cells = (drops == drop) & ~held
        lift = float(bulge[cells].sum())
        if lift > 1e-6:
            straight = float(flat[cells].sum())
            target = straight if straight > 1e-3 * cells.sum() else bare * float(cells.sum())
            pressure[cells] = (float(asked[cells].mean()) * target - straight) / lift
    surface = np.maximum(flat + pressure * bulge, 0)
    # Cubic, or the facets of the coarse grid would show in the highlights.
    fine = cv2.resize(surface.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.maximum(np.asarray(fine, dtype=np.float32), 0)
