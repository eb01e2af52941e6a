"""Too much solder, too little, or in the wrong place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from solder_vae.data.synthetic.canvas import Canvas, Field, box, cover, fractal, lumps, noise, segment
from solder_vae.data.synthetic.defects.base import Defect
from solder_vae.data.synthetic.painting import pad_distance, terminal_distance
from solder_vae.data.synthetic.scene import CHIP, Scene
from solder_vae.data.synthetic.shading import Surfaces


class Bridge(Defect):
    """Solder joins the pad to the next one as a lumpy saddle over both leads: one drop, necked between the pads."""

    name = "bridge"

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        neighbours = self.rng.permutation([x for x, _ in scene.neighbours])
        # Where the camera looks, if it looks aside.
        side = float(np.sign(neighbours[np.argmax(neighbours * scene.center[0])]))
        half = 0.1 + 0.4 * self.severity
        y = scene.joint.pad_length - float(self.rng.uniform(0.35, 0.65))
        neck, self._web = saddle(canvas, scene, side, y, half, float(self.rng.normal(0, 0.1)))
        # A web that froze as it tore is lumpy.
        self._lumps = self._web * lumps(self.rng, canvas, 3.5) * np.float32(0.1 + 0.25 * self.severity)
        ragged = np.float32(0.2 * half) * np.clip(noise(self.rng, canvas.shape, 9), -2, 2)
        return _smooth_union(distance, neck + ragged, 0.14)

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        joined = (height**4 + self._web**4) ** 0.25  # a union without a crease
        return np.asarray(joined + self._lumps, dtype=np.float32), wetted


def saddle(canvas: Canvas, scene: Scene, side: float, y: float, half: float, lean: float) -> tuple[Field, Field]:
    """The web of a bridge: signed distance to it, ``(H, W)``, and its height, ``(H, W)``, both in pad widths.

    Narrowest and lowest half way between the pads, as a catenoid is; runs out over both of them.

    Args:
        canvas: where the pixels lie.
        scene: the joint and its pitch.
        side: 1 towards the neighbour at positive x, -1 the other way.
        y: where it crosses, along the pad.
        half: half its width at its ends.
        lean: how far it slants from its middle to its end.
    """
    # From pad to pad, -1 to 1, 0 half way.
    span = (np.float32(side) * canvas.x - np.float32(scene.pitch / 2)) / np.float32(scene.pitch / 2 - 0.3)
    flare = np.minimum(span * span, 1)
    waist = half * (1 - np.float32(0.3) * (1 - flare))
    beside = np.abs(canvas.y - np.float32(y) - np.float32(lean) * span)
    neck = np.maximum(beside - waist, np.abs(span) - 1)
    arch = np.maximum(1 - (beside / waist) ** 2, 0) ** 0.5
    runs_out = np.clip((4 - np.abs(span)) / 2.5, 0, 1)  # over the fillets and leads
    web = np.float32(min(scene.joint.climb + 0.1, 0.9 * half)) * (0.75 + 0.25 * flare) * arch * runs_out
    return neck.astype(np.float32), web.astype(np.float32)


class InsufficientSolder(Defect):
    """Too little solder: a low, poorly wetted fillet that leaves part of the pad bare."""

    name = "insufficient_solder"

    def on_scene(self, scene: Scene) -> Scene:
        joint = scene.joint
        lean = replace(
            joint,
            volume=joint.volume * (1 - 0.8 * self.severity),
            wetting_angle=joint.wetting_angle + (78 - joint.wetting_angle) * self.severity,
        )
        return replace(scene, joint=lean)

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        bare = self.severity * (0.28 + 0.12 * fractal(self.rng, canvas.shape, 7, octaves=2))
        toe = self.severity * 0.25 * np.clip(canvas.y / scene.joint.pad_length, 0, 1)
        own = np.abs(canvas.x) < scene.pitch / 2
        return np.where(own, distance + bare + toe, distance).astype(np.float32)

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        # What solder never covered tarnished in the oven.
        bare = cover(pad_distance(canvas, scene.joint), canvas.pixel) * (1 - wetted)
        bare *= cover(-terminal_distance(canvas, scene.joint), canvas.pixel)
        stain = np.clip(0.5 + 1.5 * fractal(self.rng, canvas.shape, 12, octaves=2), 0, 1)
        surfaces.paint(
            bare * stain * np.float32(0.3 + 0.7 * self.severity), (0.03, 0.015, 0.01), (0.06, 0.04, 0.03), 0.5
        )


class ExcessiveSolder(Defect):
    """Too much solder: a lumpy convex mound that runs over the terminal and spills over the pad's edge."""

    name = "excessive_solder"

    def on_scene(self, scene: Scene) -> Scene:
        joint = scene.joint
        fat = replace(
            joint,
            volume=joint.volume * (1.3 + 2.0 * self.severity),
            wetting_angle=joint.wetting_angle * (1 - self.severity),
            buried=(0.05 + 0.6 * self.severity) * joint.terminal_band * (1.0 if joint.kind == CHIP else 0.6),
        )
        return replace(scene, joint=fat)

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        half = scene.joint.pad_length / 2
        over = min(0.02 + 0.12 * self.severity, 0.35 * (scene.pitch - 1))  # short of the next pad
        # Its tension rounds the drop's outline, whatever the pad's corners.
        round_off = 0.05 + 0.4 * self.severity
        aside = float(self.rng.normal(0, 0.2)) * over
        drop = box(canvas, (aside, half), (0.5 + over, half + over), round_off)
        drop += np.float32(0.25 * over) * noise(self.rng, canvas.shape, 6)
        return np.minimum(distance, drop)

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        # So much solder freezes from its skin inwards, and the skin wrinkles as the rest shrinks.
        own = np.clip((scene.pitch / 2 - np.abs(canvas.x)) * 8, 0, 1) * np.minimum(height, 0.3) / np.float32(0.3)
        wrinkles = lumps(self.rng, canvas, 3.5) * np.float32(0.01 + 0.06 * self.severity)
        return np.asarray(height + own * wrinkles, dtype=np.float32), wetted


class SolderFlag(Defect):
    """Spikes of solder drawn out of the joint as it froze."""

    name = "solder_flag"

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        for _ in range(1 + round(5 * self.severity)):
            height, wetted = self._spike(canvas, scene, height, wetted)
        return height, wetted

    def _spike(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        joint = scene.joint
        start = (self.rng.uniform(-0.35, 0.35), joint.pad_length - self.rng.uniform(0.2, 0.8))
        turn = self.rng.uniform(-1.9, 1.9)  # mostly outwards or sideways
        length = 0.2 + 0.6 * self.severity * self.rng.uniform(0.6, 1)
        end = (start[0] + length * float(np.sin(turn)), start[1] + length * float(np.cos(turn)))
        reach, along = segment(canvas, start, end)
        radius = (0.05 + 0.1 * self.severity) * (1 - 0.8 * along)
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
