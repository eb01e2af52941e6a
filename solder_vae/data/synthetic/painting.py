"""From a scene to surfaces: board, pads, solder and components, each laid over what is below it."""

from __future__ import annotations

import cv2
import numpy as np

from solder_vae.data.synthetic.canvas import Canvas, Field, box, cover, disc, fractal, noise, segment
from solder_vae.data.synthetic.conditions import BODIES, Conditions
from solder_vae.data.synthetic.scene import CHIP, Joint, Scene
from solder_vae.data.synthetic.shading import Surfaces, planes

PAD_HEIGHT = 0.02  # copper and finish above the laminate, pad widths
_BESIDE = 0.15  # pad widths: a terminal this far away shows nowhere; its edge's noise (0.004) and a pixel are far less
_LAMINATE = (0.20, 0.17, 0.09)
_DIELECTRIC = (0.04, 0.04, 0.04)


def paint_board(canvas: Canvas, scene: Scene, look: Conditions, rng: np.random.Generator) -> Surfaces:
    """Solder mask over laminate and traces, vias and silkscreen; no pads yet."""
    shape = canvas.shape
    mask = np.asarray(look.mask_colour, np.float32)
    wash = 1 + np.float32(0.12) * fractal(rng, shape, 5)
    diffuse, f0 = planes(shape), planes(shape)
    np.multiply(wash[..., None], mask, out=diffuse)
    f0[...] = 0.04
    surfaces = Surfaces(
        height=np.float32(0.002) * fractal(rng, shape, 12),
        diffuse=diffuse,
        f0=f0,
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
    # Rotation is about the terminal's end, as the component swims on its solder.
    side, back = _along_terminal(canvas, joint, x, joint.terminal_end - joint.buried)
    radius = np.float32(joint.terminal_radius)
    width = np.float32(joint.terminal_width / 2) * (1 + np.float32(joint.terminal_taper) * np.clip(back, 0, 1))
    qx = np.abs(side) - width + radius
    qy = np.float32(joint.terminal_skew) * side - back + radius
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
    distance: Field = outside + np.minimum(np.maximum(qx, qy), 0) - radius
    return distance


def _along_terminal(canvas: Canvas, joint: Joint, x: float, end: float) -> tuple[Field, Field]:
    """How far beside the component's axis and how far back from ``end`` each pixel lies, ``(H, W)`` each."""
    dx, dy = canvas.x - np.float32(x + joint.offset_x), canvas.y - np.float32(end + joint.offset_y)
    sin, cos = np.float32(np.sin(joint.rotation)), np.float32(np.cos(joint.rotation))
    return cos * dx + sin * dy, sin * dx - cos * dy


def flow(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> Field:
    """Ridges down the fall of each fillet, ``(H, W)`` of about unit variance: solder froze as it ran down."""
    pitch = np.float32(scene.pitch)
    dx = canvas.x - pitch * np.clip(np.round(canvas.x / pitch), -1, 1)
    dy = canvas.y - np.float32(scene.joint.terminal_end - 0.45)
    around = np.arctan2(dx, dy) * np.float32(192 / np.pi) + 192
    outwards = np.clip(np.sqrt(dx * dx + dy * dy) * 24, 0, 63).astype(np.float32)
    fan = noise(rng, (64, 384), 34, stretch=6) + np.float32(0.25) * noise(rng, (64, 384), 110, stretch=16)
    ridges = cv2.remap(fan, around.astype(np.float32), outwards, cv2.INTER_LINEAR)
    return np.asarray(ridges, dtype=np.float32)


def wedge(canvas: Canvas, joint: Joint, ridges: Field, x: float = 0.0) -> Field:
    """Solder drawn out before the middle of the end face, ``(H, W)`` height in pad widths: it mirrors as a dark V.

    ``ridges`` is :func:`flow`; they make the V's edge ragged.
    """
    side, back = _along_terminal(canvas, joint, x, joint.terminal_end - joint.buried)
    ahead = np.clip(1 + back / np.float32(joint.pad_length - joint.terminal_end), 0, 1)
    aside = (side + np.float32(joint.terminal_skew) * back) / np.float32(joint.wedge_width / 2)
    ragged = ahead + np.float32(0.25) + np.float32(0.1) * ridges
    slope = np.maximum(ragged - np.sqrt(aside * aside + np.float32(0.03)), 0)
    bulging = min(max(2 - joint.volume, 0), 1) * min(joint.volume / 0.7, 1)
    height: Field = np.float32(1.8 * joint.crown * bulging * joint.climb) * slope * (back < 0.02)
    return height


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
    wetted: Field,
    meniscus: Field,
    film: Field,
    ridges: Field,
    look: Conditions,
    rng: np.random.Generator,
) -> None:
    """Solder of the given height where wetted, with the grain of its dendrites and the streaks of its flow.

    ``film``, ``(H, W)`` in pad widths, is how high a fillet stands that froze with streaks; 0 on a bulging drop.
    ``ridges`` is :func:`flow`.
    """
    shape = canvas.shape
    grain = fractal(rng, shape, 22) * np.float32(look.grain)
    ripple = noise(rng, shape, 7) * np.float32(look.grain * 2)
    # Facets between the dendrites' arms mirror light and dark side by side.
    facets = np.abs(fractal(rng, shape, 9, octaves=2)) * np.float32(look.facets)
    streaks = ridges * np.float32(look.streaks) * np.minimum(film, np.float32(0.4))
    surfaces.height += wetted * (PAD_HEIGHT + meniscus + grain + ripple + facets + streaks - surfaces.height)
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
    side, back = _along_terminal(canvas, joint, x, joint.terminal_end)
    distance = terminal_distance(canvas, joint, x)
    if distance.min() < _BESIDE:  # mostly one of two neighbours lies beyond the frame
        _paint_terminal(surfaces, canvas, joint, look, rng, distance, side, back)
    if joint.kind != CHIP:
        package = cover(np.float32(joint.terminal_band + 0.75) - back, canvas.pixel)
        surfaces.paint(package, (0.025, 0.025, 0.028), _DIELECTRIC, 0.5)
        surfaces.height += package * (np.float32(1.0) - surfaces.height)


def _paint_terminal(
    surfaces: Surfaces,
    canvas: Canvas,
    joint: Joint,
    look: Conditions,
    rng: np.random.Generator,
    distance: Field,
    side: Field,
    back: Field,
) -> None:
    distance = distance + np.float32(0.004) * noise(rng, canvas.shape, 30)
    inside = cover(distance, canvas.pixel)
    bevel = 0.07 if joint.kind == CHIP else 0.05
    edge = np.maximum(distance + np.float32(bevel), 0)
    top = PAD_HEIGHT + joint.terminal_height - edge * edge * np.float32(0.5 / bevel)
    # Plated tin: dents that move the highlight about, its grain, patches of matte.
    top = top + np.float32(look.dents) * fractal(rng, canvas.shape, 4)
    top = top + np.float32(look.pepper) * noise(rng, canvas.shape, 20)
    # No lead lies quite level: the tilted ones mirror dark.
    lean = rng.normal(0, 0.2, 2)
    top = top + np.float32(lean[0]) * side + np.float32(lean[1]) * np.clip(back, 0, 1)
    rough = np.clip(look.tin_roughness + 0.1 * fractal(rng, canvas.shape, 6), 0.1, 0.8)
    if joint.kind == CHIP:
        surfaces.height += inside * (np.maximum(top, surfaces.height) - surfaces.height)
        surfaces.paint(inside, (0.03, 0.03, 0.03), look.tin, rough)
        # The dip that plated it drew up at the edges.
        ragged = np.float32(joint.terminal_band) - back + np.float32(0.15) * side * side
        ragged += np.float32(0.006) * noise(rng, canvas.shape, 24)
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
