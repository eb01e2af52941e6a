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
    sweeps = _SWEEPS if min(height, width) >= 2 * _COARSEST else 3 * _SWEEPS
    return _over_relax(fixed, np.where(fixed, value, start), load.astype(np.float32), sweeps)


def _over_relax(fixed: NDArray[np.bool_], start: Field, load: Field, sweeps: int) -> Field:
    """Sweep ``start``, ``(K, H, W)``, with the red cells first and the black ones after them; see :func:`relax`.

    The cells lie in one row with a frame about each problem. Where a line of it has an odd length, every other cell is
    red, and all four neighbours of cell f, at f - 1, f + 1, f - line and f + line, are black. So red and black are an
    array each, and a step is eight operations on plain slices of them.
    """
    problems, height, width = start.shape
    line = (width + 2) | 1
    size = (height + 2) * line + (height % 2)  # even, so that each problem begins with a red cell
    cells, free = np.zeros((problems, size), np.float32), np.zeros((problems, size), np.float32)
    framed, framed_free = (
        field[:, : (height + 2) * line].reshape(problems, height + 2, line)[:, :, : width + 2]
        for field in (cells, free)
    )
    framed[...] = np.pad(start, ((0, 0), (1, 1), (1, 1)), mode="edge")
    framed_free[:, 1:-1, 1:-1] = np.where(fixed, 0, np.float32(_OVERRELAX))
    colours = [np.ascontiguousarray(cells[:, colour::2]) for colour in (0, 1)]
    red, black = (colour.reshape(-1) for colour in colours)
    first, last = (line + 1) // 2, len(red) - (line + 1) // 2
    push = np.repeat(load, size // 2)[first:last]
    change = np.empty_like(push)
    steps = []
    for own, other, colour in ((red, black, 0), (black, red, 1)):
        up, down = (colour - line) // 2, (colour + line) // 2
        around = [other[first + shift : last + shift] for shift in (up, down, colour - 1, colour)]
        steps.append((own[first:last], around, free[:, colour::2].ravel()[first:last]))
    mirrors = [
        *_mirrors(colours, 0, 1, width + 2, line),
        *_mirrors(colours, (height + 1) * line, 1, width + 2, -line),
        *_mirrors(colours, 0, line, height + 2, 1),
        *_mirrors(colours, width + 1, line, height + 2, -1),
    ]
    for _ in range(sweeps):
        for own, (above, below, left, right), step in steps:
            np.add(above, below, change)
            np.add(change, left, change)
            np.add(change, right, change)
            np.add(change, push, change)
            np.multiply(change, np.float32(0.25), change)
            np.subtract(change, own, change)
            np.multiply(change, step, change)
            np.add(own, change, own)
        for edge, inside in mirrors:
            edge[...] = inside
    cells[:, 0::2], cells[:, 1::2] = colours
    return np.ascontiguousarray(framed[:, 1:-1, 1:-1])


def _mirrors(colours: list[Field], begin: int, stride: int, count: int, inwards: int) -> list[tuple[Field, Field]]:
    """An edge's red and black cells, and those ``inwards`` of them: views, each ``(K, about count / 2)``.

    The edge's cells are ``begin``, ``begin + stride`` and so on, ``count`` of them; stride and ``inwards`` are odd.
    """
    pairs = []
    for start, cells in ((begin, (count + 1) // 2), (begin + stride, count // 2)):
        colour = start % 2
        edge, inside = (
            slice(cell // 2, cell // 2 + stride * (cells - 1) + 1, stride) for cell in (start, start + inwards)
        )
        pairs.append((colours[colour][:, edge], colours[1 - colour][:, inside]))
    return pairs


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
