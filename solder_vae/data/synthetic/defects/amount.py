"""Too much solder, too little, or in the wrong place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from solder_vae.data.synthetic.canvas import Canvas, Field, box, cover, fractal, noise, segment
from solder_vae.data.synthetic.defects.base import Defect
from solder_vae.data.synthetic.painting import pad_distance, terminal_distance
from solder_vae.data.synthetic.scene import CHIP, Scene
from solder_vae.data.synthetic.shading import Surfaces


class Bridge(Defect):
    """Solder joins the pad to the next one as a saddle: necked between the pads, convex across, one drop with both."""

    name = "bridge"
    ipc = "Solder bridging"

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        neighbours = self.rng.permutation([x for x, _ in scene.neighbours])
        # Where the camera looks, if it looks aside.
        side = float(np.sign(neighbours[np.argmax(neighbours * scene.center[0])]))
        half = 0.08 + 0.42 * self.severity
        y = float(np.minimum(scene.joint.pad_length * self.rng.uniform(0.5, 0.9), scene.joint.pad_length - 0.8 * half))
        lean = float(self.rng.normal(0, 0.1))
        # From pad to pad, -1 to 1, 0 half way: there the web is narrowest and lowest, as a catenoid is.
        span = (side * canvas.x - np.float32(scene.pitch / 2)) / np.float32(scene.pitch / 2 - 0.3)
        flare = np.minimum(span * span, 1)
        waist = half * (1 - np.float32(0.4 - 0.15 * self.severity) * (1 - flare))
        beside = np.abs(canvas.y - np.float32(y) - np.float32(lean) * span)
        neck = np.maximum(beside - waist, np.abs(span) - 1) + np.float32(0.005) * noise(self.rng, canvas.shape, 5)
        ends = np.minimum(np.float32(scene.joint.climb * (0.4 + 0.35 * self.severity)), 0.8 * waist)
        runs_out = np.clip((2 - np.abs(span)) / 1.3, 0, 1)  # into the fillets
        arch = np.maximum(1 - (beside / waist) ** 2, 0) ** 0.85
        self._web = ends * (0.75 + 0.25 * flare) * arch * runs_out * runs_out * (3 - 2 * runs_out)
        return _smooth_union(distance, neck.astype(np.float32), 0.14)

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        joined = (height**4 + self._web**4) ** 0.25  # a union without a crease
        return joined.astype(np.float32), wetted


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
            volume=joint.volume * (1.3 + 2.0 * self.severity),
            wetting_angle=joint.wetting_angle * (1 - self.severity),
            buried=(0.05 + 0.45 * self.severity) * joint.terminal_band * (1.0 if joint.kind == CHIP else 0.6),
        )
        return replace(scene, joint=fat)

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        half = scene.joint.pad_length / 2
        over = min(0.02 + 0.12 * self.severity, 0.35 * (scene.pitch - 1))  # short of the next pad
        # Its tension rounds the drop's outline, whatever the pad's corners.
        round_off = 0.05 + 0.4 * self.severity
        aside = float(self.rng.normal(0, 0.2)) * over
        drop = box(canvas, (aside, half), (0.5 + over, half + over), round_off)
        drop += np.float32(0.15 * over) * noise(self.rng, canvas.shape, 2)
        return np.minimum(distance, drop)

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        # So much solder freezes last in its middle and shrinks there: dimples between coarse dendrites.
        own = np.clip((scene.pitch / 2 - np.abs(canvas.x)) * 8, 0, 1)
        dimples = np.abs(fractal(self.rng, canvas.shape, 6, octaves=1)) * np.minimum(height, 0.3) * 4
        return height - own * dimples * np.float32(0.009 * self.severity), wetted


class SolderFlag(Defect):
    """A spike of solder drawn out of the joint as it froze."""

    name = "solder_flag"
    ipc = "Solder projection (icicle, flag)"

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        joint = scene.joint
        start = (self.rng.uniform(-0.3, 0.3), joint.pad_length * self.rng.uniform(0.6, 0.85))
        turn = self.rng.uniform(-1.9, 1.9)  # mostly outwards or sideways
        length = 0.2 + 0.9 * self.severity
        end = (start[0] + length * float(np.sin(turn)), start[1] + length * float(np.cos(turn)))
        reach, along = segment(canvas, start, end)
        radius = (0.06 + 0.17 * self.severity) * (1 - 0.8 * along)
        ridge = np.sqrt(np.maximum(radius * radius - reach * reach, 0))
        base = joint.climb * (0.6 + 0.6 * self.severity * along)
        spike = cover(reach - radius, canvas.pixel)
        # The foot of the spike rises smoothly out of the fillet.
        root = np.clip(along * 4, 0, 1)
        raised = np.maximum(height, root * (base + 2.0 * ridge) + (1 - root) * height)
        return height + spike * (raised - height), np.maximum(wetted, spike)


def _smooth_union(first: Field, second: Field, radius: float) -> Field:
    """Union of two signed distances with a fillet of about ``radius`` where they meet (Quilez's polynomial form)."""
    mix = np.clip(0.5 + 0.5 * (second - first) / radius, 0, 1)
    return np.asarray(second + mix * (first - second) - radius * mix * (1 - mix), dtype=np.float32)
