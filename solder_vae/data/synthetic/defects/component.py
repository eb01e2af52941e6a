"""Good solder with the component gone or astray."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from solder_vae.data.synthetic.canvas import Canvas, Field, cover, fractal, lumps
from solder_vae.data.synthetic.defects.base import Defect
from solder_vae.data.synthetic.painting import terminal_distance
from solder_vae.data.synthetic.scene import Scene
from solder_vae.data.synthetic.shading import Surfaces


class MissingComponent(Defect):
    """Pad and solder without the component, torn off after soldering: the break is rough and glitters."""

    name = "missing_component"

    def on_scene(self, scene: Scene) -> Scene:
        self._was = scene.joint
        return replace(scene, joint=replace(scene.joint, present=False, volume=0.8))

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        seat = (
            terminal_distance(canvas, self._was)
            - 0.6 * self.severity
            + 0.03 * fractal(self.rng, canvas.shape, 8, octaves=2)
        )
        # A brittle fracture follows the grains: facets that glitter, where frozen solder is smooth.
        facets = lumps(self.rng, canvas, 5)
        self._torn = cover(seat, 2 * canvas.pixel) * wetted * np.float32(0.5 + 0.5 * self.severity)
        fracture = 0.03 + np.float32(0.03 + 0.04 * self.severity) * facets
        return height + self._torn * (fracture - height), wetted

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        surfaces.paint(0.7 * self._torn, (0.05, 0.045, 0.04), (0.55, 0.53, 0.5), 0.15)


class ShiftedComponent(Defect):
    """The component sits beside its pad: side overhang or skew. Where it was to stand the solder is dragged.

    Attributes:
        offset_x: of the joint, where the component is moved as a whole, as on a board; else the move is drawn by lot.
    """

    name = "shifted_component"
    offset_x: float | None = None

    def on_scene(self, scene: Scene) -> Scene:
        joint = self._was = scene.joint
        if self.offset_x is not None:
            return replace(scene, joint=replace(joint, offset_x=self.offset_x))
        side, twist = self.rng.choice([-1, 1]), self.rng.choice([-1, 1])
        share = self.rng.uniform(0.2, 1.0)  # how much is overhang, the rest is skew
        moved = replace(
            joint,
            offset_x=joint.offset_x + float(side * share * (0.12 + 0.33 * self.severity)),
            offset_y=joint.offset_y - 0.1 * self.severity * float(self.rng.random()),
            rotation=joint.rotation + float(twist * (1.2 - share) * (0.1 + 0.8 * self.severity)),
        )
        return replace(scene, joint=moved)

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        # It moved as the solder froze: disturbed solder, uneven where it was dragged.
        own = np.clip((scene.pitch / 2 - np.abs(canvas.x)) * 8, 0, 1) * wetted
        seat = cover(terminal_distance(canvas, self._was) - np.float32(0.8 * self.severity), 8 * canvas.pixel)
        dragged = lumps(self.rng, canvas, 4.5) * np.float32(0.06 * self.severity)
        return np.asarray(height + own * seat * dragged, dtype=np.float32), wetted
