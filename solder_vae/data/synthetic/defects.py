"""The nine defects of the paper, by the names of the trade (IPC-A-610), each as a change to a good joint.

A defect acts at up to four points on the way from scene to surfaces and leaves the rest of the picture alone: the same
stream without it renders the same joint, soldered well. Severity runs from 0 (barely visible) to 1 (gross).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from solder_vae.data.synthetic.canvas import Canvas, Field, cover, disc, fractal, noise, segment
from solder_vae.data.synthetic.painting import pad_distance, terminal_distance
from solder_vae.data.synthetic.scene import CHIP, Scene
from solder_vae.data.synthetic.shading import Surfaces


class Defect:
    """A change to a good joint. The base class changes nothing.

    Attributes:
        name: the defect type in tables and on the command line.
        ipc: the term IPC-A-610 uses for it.
        severity: in [0, 1].
        rng: the stream for the defect's own shape.
    """

    name = ""
    ipc = ""

    def __init__(self, severity: float, rng: np.random.Generator) -> None:
        self.severity = severity
        self.rng = rng

    def on_scene(self, scene: Scene) -> Scene:
        """Change what lies on the board: component and solder volume."""
        return scene

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        """Change where solder wets: ``(H, W)`` signed distance to the wetted area, before the surface is solved."""
        return distance

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        """Change the solved surface: ``(H, W)`` height over the pad and ``(H, W)`` wetted share of each pixel."""
        return height, wetted

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        """Lay something over the finished scene, in place."""


class Bridge(Defect):
    """Solder joins the pad to the next one; as one drop they share their pressure."""

    name = "bridge"
    ipc = "Solder bridging"

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        sides = [np.sign(x) for x, _ in scene.neighbours] or [-1, 1]
        side = float(self.rng.choice(sides))
        y = scene.joint.pad_length * self.rng.uniform(0.5, 0.9)
        half = 0.06 + 0.34 * self.severity
        lean = float(self.rng.normal(0, 0.12))
        reach, along = segment(canvas, (side * 0.35, y), (side * (scene.pitch - 0.35), y + lean))
        waist = half * (1 - (0.5 - 0.3 * self.severity) * 4 * along * (1 - along))
        neck = reach - waist + np.float32(0.025) * fractal(self.rng, canvas.shape, 7, octaves=2)
        self._neck = cover(neck, 6 * canvas.pixel)
        return _smooth_union(distance, neck, 0.1)

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        # The neck hangs as a sagging web between the joints, wrinkled where it tore free of the flux.
        wrinkles = np.abs(fractal(self.rng, canvas.shape, 9, octaves=2))
        return height + self._neck * (0.05 + 0.07 * self.severity * wrinkles), wetted


class InsufficientSolder(Defect):
    """Too little solder: a low, poorly wetted fillet that leaves part of the pad bare."""

    name = "insufficient_solder"
    ipc = "Insufficient solder, minimum fillet height not met"

    def on_scene(self, scene: Scene) -> Scene:
        joint = scene.joint
        lean = replace(
            joint,
            volume=joint.volume * (1 - 0.8 * self.severity),
            wetting_angle=joint.wetting_angle + (78 - joint.wetting_angle) * self.severity,
        )
        return replace(scene, joint=lean)

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        bare = self.severity * (0.2 + 0.06 * fractal(self.rng, canvas.shape, 4))
        toe = self.severity * 0.25 * np.clip(canvas.y / scene.joint.pad_length, 0, 1)
        own = np.abs(canvas.x) < scene.pitch / 2
        return np.where(own, distance + bare + toe, distance).astype(np.float32)

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        # What solder never covered tarnished in the oven.
        bare = cover(pad_distance(canvas, scene.joint), canvas.pixel) * (1 - wetted)
        bare *= cover(-terminal_distance(canvas, scene.joint), canvas.pixel)
        stain = np.clip(0.5 + 0.5 * fractal(self.rng, canvas.shape, 9, octaves=2), 0, 1)
        surfaces.paint(bare * stain * np.float32(0.3 + 0.6 * self.severity), (0.07, 0.04, 0.02), (0.2, 0.15, 0.1), 0.5)


class ExcessiveSolder(Defect):
    """Too much solder: a convex mound that runs over the terminal and the pad's edge."""

    name = "excessive_solder"
    ipc = "Excess solder"

    def on_scene(self, scene: Scene) -> Scene:
        joint = scene.joint
        fat = replace(
            joint,
            volume=joint.volume * (1.3 + 1.6 * self.severity),
            wetting_angle=joint.wetting_angle * (1 - self.severity),
            buried=(0.05 + 0.45 * self.severity) * joint.terminal_band * (1.0 if joint.kind == CHIP else 0.6),
        )
        return replace(scene, joint=fat)

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        own = np.clip((scene.pitch / 2 - np.abs(canvas.x)) * 8, 0, 1)
        bulge = 1 + 0.5 * fractal(self.rng, canvas.shape, 4, octaves=2)
        return (distance - own * bulge * np.float32(0.02 + 0.08 * self.severity)).astype(np.float32)

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        # So much solder freezes last in its middle and shrinks there: folds and dimples.
        own = np.clip((scene.pitch / 2 - np.abs(canvas.x)) * 8, 0, 1)
        folds = np.abs(fractal(self.rng, canvas.shape, 6)) * np.minimum(height, 0.3) * 4
        return height + own * folds * np.float32(0.05 * self.severity), wetted


class SolderFlag(Defect):
    """A spike of solder drawn out of the joint as it froze."""

    name = "solder_flag"
    ipc = "Solder projection (icicle, flag)"

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        joint = scene.joint
        start = (self.rng.uniform(-0.3, 0.3), joint.pad_length * self.rng.uniform(0.6, 0.85))
        turn = self.rng.uniform(-1.9, 1.9)  # mostly outwards or sideways
        length = 0.2 + 0.8 * self.severity
        end = (start[0] + length * float(np.sin(turn)), start[1] + length * float(np.cos(turn)))
        reach, along = segment(canvas, start, end)
        radius = (0.06 + 0.12 * self.severity) * (1 - 0.8 * along)
        ridge = np.sqrt(np.maximum(radius * radius - reach * reach, 0))
        base = joint.climb * (0.6 + 0.6 * self.severity * along)
        spike = cover(reach - radius, canvas.pixel)
        # The foot of the spike rises smoothly out of the fillet.
        root = np.clip(along * 4, 0, 1)
        raised = np.maximum(height, root * (base + 2.0 * ridge) + (1 - root) * height)
        return height + spike * (raised - height), np.maximum(wetted, spike)


class Dewetting(Defect):
    """Solder wetted the pad, then drew back into irregular mounds and left a thin dull film."""

    name = "dewetting"
    ipc = "Dewetting"

    def on_scene(self, scene: Scene) -> Scene:
        # What drew back stands the higher.
        return replace(scene, joint=replace(scene.joint, volume=scene.joint.volume * (1 + self.severity)))

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        relief = fractal(self.rng, canvas.shape, 6, octaves=2)
        own = (pad_distance(canvas, scene.joint) < 0) & (terminal_distance(canvas, scene.joint) > 0.03)
        level = np.quantile(relief[own], 0.08 + 0.5 * self.severity) if own.any() else -9.0
        retreat = np.where(np.abs(canvas.x) < 0.55, np.float32(level) - relief, -9) * np.float32(0.06)
        return np.maximum(distance, retreat.astype(np.float32))

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        film = cover(pad_distance(canvas, scene.joint), canvas.pixel) * (1 - wetted)
        film *= cover(-terminal_distance(canvas, scene.joint), canvas.pixel)
        surfaces.paint((0.6 + 0.35 * self.severity) * film, (0.07, 0.06, 0.05), (0.17, 0.16, 0.15), 0.5)


class PinHoles(Defect):
    """Gas that broke through the surface as it froze left small deep holes."""

    name = "pin_holes"
    ipc = "Pin holes, blowholes"

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        own = (np.abs(canvas.x) < 0.45) & (wetted > 0.9) & (terminal_distance(canvas, scene.joint) > 0.05)
        places = np.flatnonzero(own)
        self._pit = np.zeros(canvas.shape, np.float32)
        for _ in range(1 + int(self.severity * 5)):
            if not len(places):
                break
            at = int(self.rng.choice(places))
            center = (float(canvas.x.flat[at]), float(canvas.y.flat[at]))
            radius = self.rng.uniform(0.8, 1.2) * (0.025 + 0.055 * self.severity)
            distance = disc(canvas, center, radius)
            self._pit = np.maximum(self._pit, np.clip(0.6 - distance / radius, 0, 1))
            height = height + np.float32(0.02) * np.exp(-((distance / (0.5 * radius)) ** 2))  # raised lip
        return height - np.float32(0.12) * self._pit, wetted

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        surfaces.paint(np.clip(1.5 * self._pit, 0, 1), (0.015, 0.012, 0.01), (0.05, 0.045, 0.04), 0.6)


class FluxResidue(Defect):
    """Flux left on and around the joint: an amber or white film, thickest at its rim."""

    name = "flux_residue"
    ipc = "Flux residues (cleanliness)"

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        relief = fractal(self.rng, canvas.shape, 4)
        near = np.clip(pad_distance(canvas, scene.joint) * 2, -0.2, 2)
        film = relief - near - np.float32(1.1 - 1.5 * self.severity)
        body = np.clip(film * 3, 0, 1)
        rim = np.exp(-((film / 0.18) ** 2))
        colour = (0.42, 0.20, 0.03) if self.rng.random() < 0.6 else (0.55, 0.52, 0.42)
        opacity = (0.35 + 0.4 * self.severity) * body + 0.3 * rim * self.severity
        crackle = 1 + 0.25 * noise(self.rng, canvas.shape, 24)
        surfaces.height += np.float32(0.012) * body + np.float32(0.01) * rim
        surfaces.paint(np.clip(opacity * crackle, 0, 0.95).astype(np.float32), colour, (0.05, 0.05, 0.05), 0.35)


class MissingComponent(Defect):
    """Pad and solder without the component, torn off after soldering: the break is rough, dull and dark."""

    name = "missing_component"
    ipc = "Missing component"

    def on_scene(self, scene: Scene) -> Scene:
        self._was = scene.joint
        return replace(scene, joint=replace(scene.joint, present=False, volume=1.5 - 0.5 * self.severity))

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        seat = terminal_distance(canvas, self._was) + 0.03 * fractal(self.rng, canvas.shape, 8, octaves=2)
        # A brittle fracture follows the grains: facets, where frozen solder is smooth.
        facets = np.abs(fractal(self.rng, canvas.shape, 13, octaves=2))
        self._torn = cover(seat, 2 * canvas.pixel) * wetted * np.float32(0.2 + 0.8 * self.severity)
        fracture = 0.03 + np.float32(0.08) * facets
        return height + self._torn * (fracture - height), wetted

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        surfaces.paint(0.7 * self._torn, (0.05, 0.045, 0.04), (0.36, 0.34, 0.32), 0.35)


class ShiftedComponent(Defect):
    """The component sits beside its pad: side overhang or skew. Where it was to stand the solder is dragged."""

    name = "shifted_component"
    ipc = "Side overhang, misaligned component"

    def on_scene(self, scene: Scene) -> Scene:
        joint = self._was = scene.joint
        side, twist = self.rng.choice([-1, 1]), self.rng.choice([-1, 1])
        share = self.rng.uniform(0.2, 1.0)  # how much is overhang, the rest is skew
        moved = replace(
            joint,
            offset_x=joint.offset_x + float(side * share * (0.1 + 0.4 * self.severity)),
            offset_y=joint.offset_y - 0.1 * self.severity * float(self.rng.random()),
            rotation=joint.rotation + float(twist * (1.2 - share) * (0.1 + 0.6 * self.severity)),
        )
        return replace(scene, joint=moved)

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        seat = cover(terminal_distance(canvas, self._was), 4 * canvas.pixel) * wetted
        smear = np.abs(noise(self.rng, canvas.shape, 12, stretch=3))
        return height + seat * smear * np.float32(0.06 * self.severity), wetted


DEFECTS: dict[str, type[Defect]] = {
    defect.name: defect
    for defect in (
        Bridge,
        InsufficientSolder,
        ExcessiveSolder,
        SolderFlag,
        Dewetting,
        PinHoles,
        FluxResidue,
        MissingComponent,
        ShiftedComponent,
    )
}


def _smooth_union(first: Field, second: Field, radius: float) -> Field:
    """Union of two signed distances with a fillet of about ``radius`` where they meet (Quilez's polynomial form)."""
    mix = np.clip(0.5 + 0.5 * (second - first) / radius, 0, 1)
    return (second + mix * (first - second) - radius * mix * (1 - mix)).astype(np.float32)
