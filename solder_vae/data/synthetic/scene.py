"""What lies in front of the camera: one joint, its neighbours and the board around them, drawn from a stream.

Everything here is geometry in pad widths. Colour, light and camera are drawn elsewhere (:mod:`.conditions`), from
another stream, so that nothing about the picture's look can tell a good joint from a bad one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

CHIP, GULL_WING = "chip", "gull_wing"


@dataclass(frozen=True)
class Joint:
    """One pad, the terminal on it, and its solder.

    Attributes:
        kind: :data:`CHIP` (non-IC: the metallised end of a chip component) or :data:`GULL_WING` (IC lead).
        pad_length: length of the pad, pad widths.
        pad_radius: corner radius of the pad, pad widths.
        terminal_width: width of the terminal or lead, pad widths.
        terminal_end: y of the terminal's end face or the lead's toe, pad widths.
        terminal_radius: corner radius of the terminal's end, pad widths.
        terminal_taper: how much wider the terminal grows per pad width back from its end, as a share.
        terminal_skew: slope of the end face, which is cut off or dipped a little askew.
        terminal_height: height of the terminal or thickness of the lead, pad widths.
        terminal_band: chip: depth of the metallisation; gull wing: length of the flat foot. Pad widths.
        volume: solder volume over that of a straight-sided fillet; 1 is between concave and convex.
        wetting_angle: contact angle on the terminal's wall, degrees; small angles climb high.
        offset_x: sideways displacement of the component, pad widths.
        offset_y: displacement along the pad, pad widths.
        rotation: rotation of the component, radians.
        crown: how far solder stands in a wedge before the end face's middle: 0 level across, near 1 to the toe.
        wedge_width: width of that wedge at the end face, pad widths.
        buried: how far solder runs over the terminal's top from its end, pad widths.
        present: whether the component is there at all.
    """

    kind: str
    pad_length: float
    pad_radius: float
    terminal_width: float
    terminal_end: float
    terminal_radius: float
    terminal_taper: float
    terminal_skew: float
    terminal_height: float
    terminal_band: float
    volume: float
    wetting_angle: float
    crown: float
    wedge_width: float
    offset_x: float
    offset_y: float
    rotation: float
    buried: float = 0.0
    present: bool = True

    @property
    def climb(self) -> float:
        """Height that solder climbs on the terminal's wall, in pad widths.

        A meniscus on a vertical wall rises as sqrt(1 - sin(angle)) (de Gennes, Brochard-Wyart, Quere 2004, ch. 2).
        """
        return self.terminal_height * float(np.sqrt(1 - np.sin(np.radians(self.wetting_angle))))


@dataclass(frozen=True)
class Scene:
    """A joint with its surroundings and where the camera looks.

    Attributes:
        joint: the joint that the picture is of.
        neighbours: further joints with their x position.
        pitch: distance to the next pad, pad widths.
        view: pad widths across the short side of the frame.
        center: the frame's middle, ``(x, y)`` in pad widths.
        angle: rotation of the joint in the picture, radians.
        traces: ``(x0, y0, x1, y1, half width)`` of each trace.
        vias: ``(x, y, radius)`` of each via.
        silkscreen: ``(x0, y0, x1, y1, half width)`` of each printed line.
    """

    joint: Joint
    neighbours: tuple[tuple[float, Joint], ...]
    pitch: float
    view: float
    center: tuple[float, float]
    angle: float
    traces: tuple[tuple[float, float, float, float, float], ...]
    vias: tuple[tuple[float, float, float], ...]
    silkscreen: tuple[tuple[float, float, float, float, float], ...]


def draw_joint(rng: np.random.Generator, kind: str) -> Joint:
    """A good joint: everything within what IPC-A-610 class 3 accepts."""
    chip = kind == CHIP
    pad_length = rng.uniform(0.85, 1.25) if chip else rng.uniform(1.5, 2.3)
    return Joint(
        kind=kind,
        pad_length=pad_length,
        pad_radius=rng.uniform(0.04, 0.2) if rng.random() < 0.8 else rng.uniform(0.25, 0.48),
        terminal_width=rng.uniform(0.72, 0.9) if chip else rng.uniform(0.45, 0.68),
        terminal_end=pad_length * (rng.uniform(0.3, 0.5) if chip else rng.uniform(0.42, 0.74)),
        terminal_radius=rng.uniform(0.04, 0.16) if chip else rng.uniform(0.03, 0.2),
        terminal_taper=abs(float(rng.normal(0, 0.03 if chip else 0.14))),
        terminal_skew=float(np.clip(rng.normal(0, 0.03 if chip else 0.08), -0.2, 0.2)),
        terminal_height=rng.uniform(0.35, 0.6) if chip else rng.uniform(0.28, 0.45),
        terminal_band=rng.uniform(0.3, 0.5) if chip else pad_length * rng.uniform(0.4, 0.55),
        volume=rng.uniform(0.5, 1.0),
        wetting_angle=rng.uniform(8, 32),
        crown=rng.uniform(0.1, 1.0),
        wedge_width=rng.uniform(0.6, 1.5),
        offset_x=float(np.clip(rng.normal(0, 0.025), -0.06, 0.06)),
        offset_y=float(np.clip(rng.normal(0, 0.03), -0.07, 0.07)),
        rotation=float(np.clip(rng.normal(0, 0.02), -0.05, 0.05)),
    )


def draw_scene(rng: np.random.Generator) -> Scene:
    """A good joint, its neighbours, the board's features about it and a tight frame on the pad."""
    kind = CHIP if rng.random() < 0.5 else GULL_WING
    joint = draw_joint(rng, kind)
    pitch = rng.uniform(1.2, 1.4)
    # The frame leans to a neighbour, so that there is something to see between the two, bridged or not.
    near = int(rng.choice([-1, 1]))
    sides = [near, -near] if rng.random() < (0.4 if kind == CHIP else 0.8) else [near]
    neighbours = tuple((side * pitch, _like(rng, joint)) for side in sides)
    # Mostly as tight as an inspection window: pad and fillet fill the frame, its edges cut them off.
    view = rng.uniform(0.86, 1.2) if rng.random() < 0.6 else rng.uniform(1.2, 1.5)
    center = (
        near * rng.uniform(0.0, 1.0) * (view / 2 - 0.38) + float(rng.normal(0, 0.03)),
        joint.pad_length + rng.uniform(-0.06, 0.1) - view / 2 + float(rng.normal(0, 0.03)),
    )
    quarter = int(rng.integers(4)) * np.pi / 2
    return Scene(
        joint=joint,
        neighbours=neighbours,
        pitch=pitch,
        view=view,
        center=center,
        angle=float(quarter + np.clip(rng.normal(0, 0.035), -0.1, 0.1)),
        traces=_traces(rng, joint, pitch),
        vias=_vias(rng, joint, pitch),
        silkscreen=_silkscreen(rng, joint, pitch),
    )


def _like(rng: np.random.Generator, joint: Joint) -> Joint:
    """A neighbour: the same package, soldered in the same oven, not the same joint."""
    return replace(
        joint,
        volume=joint.volume * rng.uniform(0.85, 1.15),
        wetting_angle=rng.uniform(8, 32),
        crown=rng.uniform(0.1, 1.0),
        terminal_skew=joint.terminal_skew + float(rng.normal(0, 0.02)),
        offset_y=joint.offset_y + float(rng.normal(0, 0.02)),
    )


def _traces(
    rng: np.random.Generator, joint: Joint, pitch: float
) -> tuple[tuple[float, float, float, float, float], ...]:
    lines = []
    if rng.random() < 0.6:  # the pad's own connection, out over the toe
        half = rng.uniform(0.1, 0.3)
        lines.append((0.0, joint.pad_length - 0.1, float(rng.normal(0, 0.3)), joint.pad_length + 2, half))
    for _ in range(int(rng.integers(0, 3))):
        side = rng.choice([-1, 1]) * pitch * rng.uniform(0.42, 0.58)
        lines.append((side, -2.0, side + float(rng.normal(0, 0.1)), 4.0, rng.uniform(0.05, 0.1)))
    return tuple(lines)


def _vias(rng: np.random.Generator, joint: Joint, pitch: float) -> tuple[tuple[float, float, float], ...]:
    if rng.random() > 0.2:
        return ()
    side = rng.choice([-1, 1]) * rng.uniform(0.7, 0.9)
    return ((float(side), joint.pad_length * rng.uniform(0.2, 1.2), rng.uniform(0.12, 0.2)),)


def _silkscreen(
    rng: np.random.Generator, joint: Joint, pitch: float
) -> tuple[tuple[float, float, float, float, float], ...]:
    if rng.random() > 0.3:
        return ()
    half = rng.uniform(0.03, 0.06)
    y = joint.pad_length + rng.uniform(0.12, 0.3)
    x = rng.uniform(0.62, 0.75)
    lines = [(-x, y, x, y, half), (x, y, x, -2.0, half), (-x, y, -x, -2.0, half)]
    return tuple(lines[: int(rng.integers(1, 4))])
