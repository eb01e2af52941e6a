"""What is on the rendered board: packages, where they sit, which joints are defective. Millimetres, y up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solder_vae.data.synthetic.defects import DEFECTS
from solder_vae.data.synthetic.scene import CHIP, GULL_WING
from solder_vae.utils.labels import NORMAL

PAD_MM = 0.8  # a pad's width: the unit of a scene
SIZE_MM = (24.0, 18.0)
WINDOW_MM = 1.0  # side of the box that is inspected of each joint, as tight as the tightest of the data set
FIDUCIALS = {"F1": (1.2, 1.2), "F2": (22.8, 1.2), "F3": (1.2, 16.8), "F4": (22.8, 16.2)}
_TOE = 0.1  # how far the box reaches beyond the pad's outer end, pad widths
BRIDGE, MISSING, SHIFTED = "bridge", "missing_component", "shifted_component"
OF_CHIPS = (MISSING, SHIFTED)
"""Of a chip as a whole, so of both its joints."""


@dataclass(frozen=True)
class Package:
    """A package: kind of joint, joints on each of its two sides, and measures in millimetres.

    Attributes:
        pitch: from joint to joint along a side.
        inner: from the package's middle to the pads' inner ends.
        pad_length: length of a pad.
    """

    name: str
    kind: str
    count: int
    pitch: float
    inner: float
    pad_length: float

    def pads(self) -> list[tuple[float, float, float]]:
        """Each pad's inner end from the middle, unrotated, ``(x, y)`` in mm, and where it points, degrees.

        Numbered counter-clockwise from the left column's top, as packages are.
        """
        rows = [((self.count - 1) / 2 - row) * self.pitch for row in range(self.count)]
        return [(-self.inner, y, 180.0) for y in rows] + [(self.inner, -y, 0.0) for y in rows]


PACKAGES = {
    package.name: package
    for package in (
        Package("C0603", CHIP, 1, 1.3, 0.35, 0.85),
        Package("SO8", GULL_WING, 4, 1.27, 1.9, 1.6),
    )
}


@dataclass(frozen=True)
class Placed:
    """A component on the board: its middle in mm, y up, and its rotation in degrees counter-clockwise."""

    name: str
    package: str
    x: float
    y: float
    rotation: float


def layout() -> list[Placed]:
    """Two packages, and chips around them, at quarter turns."""
    placed = [Placed("U1", "SO8", 7.2, 11.2, 0), Placed("U2", "SO8", 16.6, 11.2, 90)]
    spots = [(x, 3.2, 90.0) for x in np.arange(4.2, 21, 1.95)] + [(x, 6.1, 0.0) for x in (13.2, 16.6, 20.0)]
    spots += [(2.3, 6.1, 90.0), (21.6, 9.0, 180.0), (21.6, 12.6, 270.0)]
    placed += [Placed(f"C{index}", "C0603", float(x), y, turn) for index, (x, y, turn) in enumerate(spots, 1)]
    return placed


def choose_defects(components: Sequence[Placed], count: int, rng: np.random.Generator) -> dict[str, str]:
    """Defect type of each joint. Each component has one at most, so that they do not run into one another."""
    defects = {
        f"{component.name}.{pad}": NORMAL
        for component in components
        for pad in range(1, 2 * PACKAGES[component.package].count + 1)
    }
    chosen = rng.permutation(len(components))[:count]
    for turn, index in enumerate(chosen):
        component = components[int(index)]
        package = PACKAGES[component.package]
        # Boards of earlier versions have no shifted chips, and the same seed is to give the same board.
        kinds = [kind for kind in DEFECTS if fits(kind, package) and kind != SHIFTED]
        kind = kinds[(turn + int(rng.integers(2))) % len(kinds)]
        defects |= _on(component, kind, rng)
    return defects


def choose_of(
    kinds: Sequence[str], components: Sequence[Placed], count: int, rng: np.random.Generator
) -> dict[str, str]:
    """As :func:`choose_defects`, of these kinds alone, each as often as the others while components are left for it."""
    defects = choose_defects(components, 0, rng)
    free = [components[int(index)] for index in rng.permutation(len(components))]
    for turn in range(count):
        kind = kinds[turn % len(kinds)]
        component = next((each for each in free if fits(kind, PACKAGES[each.package])), None)
        if component is not None:
            free.remove(component)
            defects |= _on(component, kind, rng)
    return defects


def fits(kind: str, package: Package) -> bool:
    """Whether a component of the package can have a defect: bridges need a neighbour, large packages stay in place."""
    return kind != BRIDGE if package.kind == CHIP else kind not in OF_CHIPS


def _on(component: Placed, kind: str, rng: np.random.Generator) -> dict[str, str]:
    """The defect of each joint that a component has it on."""
    count = 2 * PACKAGES[component.package].count
    hit = range(1, count + 1) if kind in OF_CHIPS else [int(rng.integers(count)) + 1]
    return {f"{component.name}.{pad}": kind for pad in hit}


def inspection_window(package: Package, pad: int) -> tuple[float, float]:
    """Middle of the box ``WINDOW_MM`` wide that is inspected of a joint, from the package's middle, in mm."""
    x, y, direction = package.pads()[pad]
    out = package.pad_length + _TOE * PAD_MM - WINDOW_MM / 2
    return x + out * float(np.cos(np.radians(direction))), y
