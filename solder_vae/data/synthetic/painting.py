"""From a scene to surfaces: board, pads, solder and components, each laid over what is below it."""

from __future__ import annotations

import cv2
import numpy as np

from solder_vae.data.synthetic.canvas import Canvas, Field, box, cover, disc, fractal, noise, segment
from solder_vae.data.synthetic.conditions import BODIES, Conditions
from solder_vae.data.synthetic.scene import CHIP, Joint, Scene
from solder_vae.data.synthetic.shading import Surfaces

PAD_HEIGHT = 0.02  # copper and finish above the laminate, pad widths
_LAMINATE = (0.20, 0.17, 0.09)
_DIELECTRIC = (0.04, 0.04, 0.04)


def paint_board(canvas: Canvas, scene: Scene, look: Conditions, rng: np.random.Generator) -> Surfaces:
    """Solder mask over laminate and traces, vias and silkscreen; no pads yet."""
    shape = canvas.shape
    mask = np.asarray(look.mask_colour, np.float32)
    wash = 1 + np.float32(0.12) * fractal(rng, shape, 5)
    surfaces = Surfaces(
        height=np.float32(0.002) * fractal(rng, shape, 12),
        diffuse=(wash[..., None] * mask).astype(np.float32),
        f0=np.full((*shape, 3), 0.04, np.float32),
        roughness=np.full(shape, rng.uniform(0.25, 0.5), np.float32),
    )
    for x0, y0, x1, y1, half in scene.traces:
        distance = segment(canvas, (x0, y0), (x1, y1))[0] - np.float32(half)
        inside = cover(distance, canvas.pixel)
        # Copper under the mask: raised, and it shines through.
        surfaces.height += np.float32(0.02) * cover(distance, 3 * canvas.pixel)
        through = mask * 1.6 + np.float32(0.02)
        surfaces.paint(0.8 * inside, through, _DIELECTRIC, 0.3)
    for x, y, radius in scene.vias:
        surfaces.paint(cover(disc(canvas, (x, y), radius), canvas.pixel), mask * 1.7 + 0.02, _DIELECTRIC, 0.3)
        hole = cover(disc(canvas, (x, y), radius * 0.5), canvas.pixel)
        surfaces.paint(hole, (0.005, 0.005, 0.005), (0.01, 0.01, 0.01), 0.8)
        surfaces.height -= np.float32(0.1) * hole
    for x0, y0, x1, y1, half in scene.silkscreen:
        distance = segment(canvas, (x0, y0), (x1, y1))[0] - np.float32(half) + 0.006 * noise(rng, shape, 20)
        surfaces.paint(0.92 * cover(distance, canvas.pixel), (0.75, 0.75, 0.72), _DIELECTRIC, 0.6)
    return surfaces


def pad_distance(canvas: Canvas, joint: Joint, x: float = 0.0) -> Field:
    """Signed distance to the pad, ``(H, W)`` in pad widths."""
    half = joint.pad_length / 2
    return box(canvas, (x, half), (0.5, half), joint.pad_radius)


def terminal_distance(canvas: Canvas, joint: Joint, x: float = 0.0) -> Field:
    """Signed distance to the visible terminal or lead, ``(H, W)``; it goes on inwards beyond every frame."""
    if not joint.present:
        return np.full(canvas.shape, 9, np.float32)
    end, back = joint.terminal_end - joint.buried, 4.0
    # Rotation is about the terminal's end, as the component swims on its solder.
    sin, cos = np.sin(joint.rotation), np.cos(joint.rotation)
    center = (x + joint.offset_x + sin * (back / 2), end + joint.offset_y - cos * (back / 2))
    return box(
        canvas,
        (float(center[0]), float(center[1])),
        (joint.terminal_width / 2, back / 2),
        0.05,
        joint.rotation,
    )


def paint_pad(surfaces: Surfaces, canvas: Canvas, joint: Joint, look: Conditions, x: float = 0.0) -> None:
    """The bare pad in its mask opening."""
    distance = pad_distance(canvas, joint, x)
    opening = cover(distance - np.float32(look.clearance), canvas.pixel)
    surfaces.paint(0.8 * opening, _LAMINATE, _DIELECTRIC, 0.5)
    pad = cover(distance, canvas.pixel)
    surfaces.paint(pad, (0.02, 0.02, 0.02), look.finish_colour, 0.3)
    surfaces.height += pad * (np.float32(PAD_HEIGHT) - surfaces.height)


def paint_solder(
    surfaces: Surfaces,
    canvas: Canvas,
    joint: Joint,
    wetted: Field,
    meniscus: Field,
    look: Conditions,
    rng: np.random.Generator,
) -> None:
    """Solder of the given height where wetted, with the grain of its dendrites and the streaks of its flow."""
    shape = canvas.shape
    grain = fractal(rng, shape, 22) * np.float32(look.grain)
    ripple = noise(rng, shape, 7) * np.float32(look.grain * 3)
    # Solder froze as it ran down from the terminal: ridges along the fall, stronger where the fillet is high.
    dx, dy = canvas.x, canvas.y - np.float32(joint.terminal_end - 0.45)
    around = np.arctan2(dx, dy) * np.float32(96 / np.pi) + 96
    outwards = np.clip(np.sqrt(dx * dx + dy * dy) * 24, 0, 63).astype(np.float32)
    ridges = cv2.remap(noise(rng, (64, 192), 60, stretch=9), around.astype(np.float32), outwards, cv2.INTER_LINEAR)
    streaks = ridges * np.float32(look.streaks) * np.minimum(meniscus, np.float32(0.4))
    surfaces.height += wetted * (PAD_HEIGHT + meniscus + grain + ripple + streaks - surfaces.height)
    rough = look.solder_roughness * (1 + np.float32(0.2) * noise(rng, shape, 8))
    surfaces.paint(wetted, (0.02, 0.02, 0.02), look.solder_colour, np.clip(rough, 0.06, 0.8))


def paint_component(
    surfaces: Surfaces,
    canvas: Canvas,
    joint: Joint,
    look: Conditions,
    rng: np.random.Generator,
    x: float = 0.0,
) -> None:
    """The chip's terminal and body, or the gull-wing lead and the package's edge."""
    distance = terminal_distance(canvas, joint, x) + np.float32(0.012) * noise(rng, canvas.shape, 10)
    inside = cover(distance, canvas.pixel)
    # How far back from the end face, along the component.
    dx, dy = (
        canvas.x - np.float32(x + joint.offset_x),
        canvas.y - np.float32(joint.terminal_end + joint.offset_y),
    )
    back = np.float32(np.sin(joint.rotation)) * dx - np.float32(np.cos(joint.rotation)) * dy
    bevel = 0.07 if joint.kind == CHIP else 0.05
    edge = np.maximum(distance + np.float32(bevel), 0)
    top = PAD_HEIGHT + joint.terminal_height - edge * edge * np.float32(0.5 / bevel)
    # Plated tin: dents that move the highlight about, fine scratches, patches of matte.
    top = top + np.float32(look.dents) * fractal(rng, canvas.shape, 4)
    top = top + np.float32(0.3 * look.grain) * noise(rng, canvas.shape, 40)
    rough = np.clip(look.tin_roughness + 0.1 * fractal(rng, canvas.shape, 6), 0.1, 0.8)
    if joint.kind == CHIP:
        surfaces.height += inside * (np.maximum(top, surfaces.height) - surfaces.height)
        surfaces.paint(inside, (0.03, 0.03, 0.03), look.tin, rough)
        ragged = np.float32(joint.terminal_band) - back + np.float32(0.012) * noise(rng, canvas.shape, 12)
        body = inside * cover(ragged, canvas.pixel)
        surfaces.paint(body, look.body_colour, _DIELECTRIC, 0.35)
        if look.body == "resistor":  # alumina shows between the termination and the overglaze
            strip = inside * cover(np.abs(ragged) - np.float32(0.03), canvas.pixel)
            surfaces.paint(strip, BODIES["alumina"], _DIELECTRIC, 0.5)
        return
    # The heel: the lead bends up to the body at about 60 degrees over the foot.
    rise = np.maximum(back - np.float32(joint.terminal_band), 0)
    top = top + np.minimum(rise * np.float32(1.6), np.float32(0.7))
    surfaces.height += inside * (np.maximum(top, surfaces.height) - surfaces.height)
    surfaces.paint(inside, (0.03, 0.03, 0.03), look.tin, rough)
    package = cover(np.float32(joint.terminal_band + 0.75) - back, canvas.pixel)
    surfaces.paint(package, (0.025, 0.025, 0.028), _DIELECTRIC, 0.5)
    surfaces.height += package * (np.float32(1.0) - surfaces.height)
