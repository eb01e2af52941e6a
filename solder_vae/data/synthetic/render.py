"""One image of the set: scene, surface, light and camera put together, reproducible from (seed, split, index)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.synthetic.camera import photograph
from solder_vae.data.synthetic.canvas import Canvas, cover, make_canvas, noise
from solder_vae.data.synthetic.conditions import Conditions, draw_conditions
from solder_vae.data.synthetic.defects import DEFECTS, Defect
from solder_vae.data.synthetic.painting import (
    flow,
    pad_distance,
    paint_board,
    paint_component,
    paint_pad,
    paint_solder,
    terminal_distance,
    wedge,
)
from solder_vae.data.synthetic.scene import Scene, draw_scene
from solder_vae.data.synthetic.shading import Surfaces, shade
from solder_vae.data.synthetic.surface import meniscus
from solder_vae.utils.labels import NORMAL

STREAMS = ("train", "val", "test_normal", "test_abnormal", "known")
SCENE_PIXELS = 96  # short side of the internal picture; the camera samples it to the native size
_RIM = 0.09  # width of the rounded edge of solder on a pad, pad widths
_BARE = 0.12  # mean solder thickness on a pad without a component, pad widths


@dataclass(frozen=True)
class Rendered:
    """One image with its ground truth.

    Attributes:
        image: ``(h, w, 3)`` uint8 sRGB at native size.
        mask: ``(h, w)`` bool, where the defect changed the joint's shape or material.
        defect: defect type, or ``normal``.
        factors: generative factors by name: numbers and names.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    defect: str
    factors: dict[str, float | str]


def render(
    seed: int, stream: str, index: int, defect: str = NORMAL, severity: tuple[float, float] = (0.6, 1.0)
) -> Rendered:
    """Render image ``index`` of a stream. The same arguments give the same bytes, in whatever order or process.

    Args:
        seed: of the whole set, at least 0.
        stream: one of :data:`STREAMS`.
        index: of the image in its stream, at least 0.
        defect: a key of :data:`~.defects.DEFECTS`, or ``normal``.
        severity: range that the defect's severity is drawn from uniformly, within [0, 1].
    """
    # Four independent streams: what the defect draws can't move the scene, the look or the noise.
    children = np.random.SeedSequence([seed, STREAMS.index(stream), index]).spawn(4)
    scene_rng, look_rng, defect_rng, grain_rng = (np.random.default_rng(child) for child in children)
    scene, look = draw_scene(scene_rng), draw_conditions(look_rng)
    drawn = float(defect_rng.uniform(*severity))
    flaw = Defect(0.0, defect_rng) if defect == NORMAL else DEFECTS[defect](drawn, defect_rng)

    canvas = _frame(scene, look)
    texture_seed = int(grain_rng.integers(2**32))
    sound, _ = build(canvas, scene, look, Defect(0.0, defect_rng), texture_seed) if defect != NORMAL else (None, None)
    surfaces, built = build(canvas, scene, look, flaw, texture_seed)
    picture = photograph(shade(surfaces, look.lighting, look.ground, canvas.pixel), look.camera, grain_rng)
    mask = np.zeros(picture.shape[:2], bool) if sound is None else _difference(sound, surfaces, picture.shape[:2])
    return Rendered(picture, mask, defect, _factors(built, look, 0.0 if defect == NORMAL else drawn))


def _frame(scene: Scene, look: Conditions) -> Canvas:
    height, width = look.camera.size
    scale = SCENE_PIXELS / min(height, width)
    return make_canvas((round(height * scale), round(width * scale)), scene.view, scene.center, scene.angle)


def build(canvas: Canvas, scene: Scene, look: Conditions, flaw: Defect, texture_seed: int) -> tuple[Surfaces, Scene]:
    """Surfaces of the scene with the defect applied, and the scene as changed by it."""
    rng = np.random.default_rng(texture_seed)  # the same texture for a joint and its sound twin
    scene = flaw.on_scene(scene)
    surfaces = paint_board(canvas, scene, look, rng)
    # Solder wets a pad a little unevenly, by its sides and corners rather than in waves.
    edge = np.float32(0.02) * noise(rng, canvas.shape, 3) + np.float32(0.01) * noise(rng, canvas.shape, 16)
    joints = [(0.0, scene.joint), *scene.neighbours]
    distance = np.full(canvas.shape, 9, np.float32)
    terminal, climb, volume = (np.zeros(canvas.shape, np.float32) for _ in range(3))
    for x, joint in joints:
        paint_pad(surfaces, canvas, joint, look, x)
        distance = np.minimum(distance, pad_distance(canvas, joint, x))
        stands = terminal_distance(canvas, joint, x)
        held = stands < 0
        terminal[held] = 1
        # The wall is wetted highest at the middle of the end face, less at its corners and along the sides.
        near = np.abs(canvas.x - np.float32(x)) < scene.pitch / 2
        back = np.clip((joint.terminal_end - canvas.y) / joint.pad_length, 0, 1)
        corner = np.minimum(np.abs(canvas.x - np.float32(x + joint.offset_x)) / (joint.terminal_width / 2), 1)
        drop = (1 - 0.5 * back) * (1 - joint.crown * corner)
        climb = np.where(near, joint.climb * drop, climb).astype(np.float32)
        volume = np.where(near, np.float32(joint.volume), volume)
    # Streaks freeze in the thin film over a pad, not in what bulges or hangs beyond it.
    thin = np.clip(distance * np.float32(-12), 0, 1) * np.clip(3.6 - 2 * volume, 0, 1)
    distance = flaw.on_wetting(canvas, scene, distance + edge)
    wetted = cover(distance, canvas.pixel)
    height = meniscus(wetted, terminal, climb, volume, _BARE)
    # A film's edge is rounded: it mirrors as a dark contour.
    inwards = np.clip(distance * np.float32(-1 / _RIM), 0, 1)
    height += np.float32(look.film) * np.sqrt(inwards * (2 - inwards))
    ridges = flow(canvas, scene, rng)
    for x, joint in joints:
        if joint.present and joint.crown > 0:
            height += wetted * wedge(canvas, joint, ridges, x)
    before, film = height, thin * height
    height, wetted = flaw.on_height(canvas, scene, height, wetted)
    film *= np.clip(1 - (height - before) * 20, 0, 1)  # what a defect piled up froze without
    paint_solder(surfaces, canvas, wetted, height, film, ridges, look, rng)
    for number, (x, joint) in enumerate(joints):
        if joint.present:
            # A stream each: the neighbours look the same beside a missing component.
            own = np.random.default_rng([texture_seed, number])
            paint_component(surfaces, canvas, joint, look, own, x)
    flaw.on_surfaces(canvas, scene, surfaces, wetted)
    return surfaces, scene


def _difference(sound: Surfaces, flawed: Surfaces, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where shape or material differ between a joint and its sound twin, ``size`` bool, closed over small gaps."""
    shape = np.abs(flawed.height - sound.height) / 0.06
    material = (np.abs(flawed.f0 - sound.f0) + np.abs(flawed.diffuse - sound.diffuse)).max(axis=2) / 0.15
    change = cv2.GaussianBlur(np.maximum(shape, material), (0, 0), 1.0)
    # However slight the defect, its strongest part is marked.
    marked = (change > min(1.0, 0.5 * float(change.max()))).astype(np.uint8)
    marked = cv2.morphologyEx(marked, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    share = cv2.resize(marked.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(share >= min(0.5, float(share.max())), dtype=np.bool_)


def _factors(scene: Scene, look: Conditions, severity: float) -> dict[str, float | str]:
    joint, camera = scene.joint, look.camera
    lamps, lobe = look.lighting.lamps, look.lighting.lobes[0]
    key = lamps[0].direction if lamps else lobe.axis  # the direction of the main light
    colour = lobe.colour / lobe.colour.sum()
    return {
        "component": joint.kind,
        "severity": severity,
        "volume": joint.volume,
        "wetting_angle": joint.wetting_angle,
        "offset_x": joint.offset_x,
        "offset_y": joint.offset_y,
        "rotation": float(np.degrees(joint.rotation)),
        "view_angle": float(np.degrees(scene.angle)),
        "view": scene.view,
        "pad_length": joint.pad_length,
        "terminal_width": joint.terminal_width,
        "terminal_height": joint.terminal_height,
        "mask_colour": look.mask,
        "mask_red": look.mask_colour[0],
        "mask_green": look.mask_colour[1],
        "mask_blue": look.mask_colour[2],
        "finish": look.finish,
        "body": look.body,
        "solder_roughness": look.solder_roughness,
        "grain": look.grain,
        "light": look.light,
        "light_elevation": 90 - float(np.degrees(np.arccos(key[2]))),
        "light_azimuth": float(np.degrees(np.arctan2(key[1], key[0]))),
        "light_red": float(colour[0]),
        "light_blue": float(colour[2]),
        "clipped": camera.clipped,
        "gain": camera.gain,
        "blur": camera.blur,
        "contrast": camera.contrast,
        "saturation": camera.saturation,
        "noise": camera.noise,
        "sharpen": camera.sharpen,
        "jpeg_quality": float(camera.quality),
        "native_height": float(camera.size[0]),
        "native_width": float(camera.size[1]),
    }
