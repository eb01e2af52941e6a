"""Good solder with the component gone or astray."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from solder_vae.data.synthetic.canvas import Canvas, Field, cover, fractal, noise
from solder_vae.data.synthetic.defects.base import Defect
from solder_vae.data.synthetic.painting import terminal_distance
from solder_vae.data.synthetic.scene import Scene
from solder_vae.data.synthetic.shading import Surfaces


class MissingComponent(Defect):
    """Pad and solder without the component, torn off after soldering: the break is rough, dull and dark."""

    name = "missing_component"
    ipc = "Missing component"

    def on_scene(self, scene: Scene) -> Scene:
        self._was = scene.joint
        return replace(scene, joint=replace(scene.joint, present=False, volume=0.8 + 0.7 * self.severity))

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        seat = terminal_distance(canvas, self._was) + 0.03 * fractal(self.rng, canvas.shape, 8, octaves=2)
        # A brittle fracture follows the grains: facets, where frozen solder is smooth.
        facets = np.abs(fractal(self.rng, canvas.shape, 13, octaves=2))
        self._torn = cover(seat, 2 * canvas.pixel) * wetted * np.float32(0.25 + 0.75 * self.severity)
        fracture = 0.03 + np.float32(0.04 + 0.08 * self.severity) * facets
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
            offset_x=joint.offset_x + float(side * share * (0.12 + 0.5 * self.severity)),
            offset_y=joint.offset_y - 0.1 * self.severity * float(self.rng.random()),
            rotation=joint.rotation + float(twist * (1.2 - share) * (0.1 + 0.8 * self.severity)),
        )
        return replace(scene, joint=moved)

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        seat = cover(terminal_distance(canvas, self._was), 4 * canvas.pixel) * wetted
        smear = np.abs(noise(self.rng, canvas.shape, 12, stretch=3))
        return height + seat * smear * np.float32(0.12 * self.severity), wetted
