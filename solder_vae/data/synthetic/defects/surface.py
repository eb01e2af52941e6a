"""The right amount of solder with a bad surface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from solder_vae.data.synthetic.canvas import Canvas, Field, cover, disc, fractal, noise
from solder_vae.data.synthetic.defects.base import Defect
from solder_vae.data.synthetic.painting import pad_distance, terminal_distance
from solder_vae.data.synthetic.scene import Scene
from solder_vae.data.synthetic.shading import Surfaces


class Dewetting(Defect):
    """Solder wetted the pad, then drew back into irregular mounds and left a thin dull film."""

    name = "dewetting"

    def on_scene(self, scene: Scene) -> Scene:
        # What drew back stands the higher.
        return replace(scene, joint=replace(scene.joint, volume=scene.joint.volume * (1 + self.severity)))

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        relief = fractal(self.rng, canvas.shape, 6 + 3 * self.severity, octaves=2)
        own = (pad_distance(canvas, scene.joint) < 0) & (terminal_distance(canvas, scene.joint) > 0.03)
        level = np.quantile(relief[own], 0.1 + 0.35 * self.severity) if own.any() else -9.0
        retreat = np.where(np.abs(canvas.x) < 0.55, np.float32(level) - relief, -9) * np.float32(0.06)
        return np.maximum(distance, retreat.astype(np.float32))

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        film = cover(pad_distance(canvas, scene.joint), canvas.pixel) * (1 - wetted)
        film *= cover(-terminal_distance(canvas, scene.joint), canvas.pixel)
        surfaces.paint((0.6 + 0.35 * self.severity) * film, (0.03, 0.025, 0.02), (0.08, 0.075, 0.07), 0.5)


class PinHoles(Defect):
    """Gas that broke through the surface as it froze left small deep holes."""

    name = "pin_holes"

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        own = (np.abs(canvas.x) < 0.45) & (wetted > 0.9) & (terminal_distance(canvas, scene.joint) > 0.05)
        places = np.flatnonzero(own)
        self._pit = np.zeros(canvas.shape, np.float32)
        for _ in range(1 + int(self.severity * 11)):
            if not len(places):
                break
            at = int(self.rng.choice(places))
            center = (float(canvas.x.flat[at]), float(canvas.y.flat[at]))
            radius = self.rng.uniform(0.8, 1.2) * (0.028 + 0.062 * self.severity)
            distance = disc(canvas, center, radius)
            self._pit = np.maximum(self._pit, np.clip(0.6 - distance / radius, 0, 1))
            height = height + np.float32(0.04) * np.exp(-((distance / (0.4 * radius)) ** 2))  # raised lip
        return height - np.float32(0.12) * self._pit, wetted

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        surfaces.paint(np.clip(1.5 * self._pit, 0, 1), (0.015, 0.012, 0.01), (0.05, 0.045, 0.04), 0.6)


class FluxResidue(Defect):
    """Flux left on and around the joint: an amber or white film, thickest at its rim."""

    name = "flux_residue"

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        relief = fractal(self.rng, canvas.shape, 4)
        near = np.clip(pad_distance(canvas, scene.joint) * 2, -0.2, 2)
        film = relief - near - np.float32(1.1 - 1.5 * self.severity)
        body = np.clip(film * 3, 0, 1)
        rim = np.exp(-((film / 0.18) ** 2))
        colour = (0.40, 0.19, 0.03) if self.rng.random() < 0.6 else (0.45, 0.43, 0.36)
        opacity = (0.4 + 0.45 * self.severity) * body + 0.3 * rim * self.severity
        # It boiled, and cracked as it dried.
        crackle = 1 + (0.3 + 0.7 * self.severity) * np.clip(noise(self.rng, canvas.shape, 15), -1.5, 0.3)
        surfaces.height += np.float32(0.012) * body + np.float32(0.01) * rim
        surfaces.paint(np.clip(opacity * crackle, 0, 0.95).astype(np.float32), colour, (0.05, 0.05, 0.05), 0.35)
