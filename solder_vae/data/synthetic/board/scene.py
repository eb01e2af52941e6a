"""A whole board in one picture, from the same pieces as the joints of the embedded data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.synthetic.board.layout import (
    FIDUCIALS,
    PACKAGES,
    PAD_MM,
    SHIFTED,
    SIZE_MM,
    Placed,
    choose_defects,
    choose_of,
    layout,
)
from solder_vae.data.synthetic.camera import photograph
from solder_vae.data.synthetic.canvas import Canvas, cover, disc
from solder_vae.data.synthetic.conditions import BODIES, MASKS, Conditions, draw_conditions
from solder_vae.data.synthetic.defects import DEFECTS, Defect, ShiftedComponent
from solder_vae.data.synthetic.painting import paint_board
from solder_vae.data.synthetic.render import build  # the one way from a joint's scene to its surfaces
from solder_vae.data.synthetic.scene import CHIP, Joint, Scene, draw_joint
from solder_vae.data.synthetic.shading import Surfaces, shade
from solder_vae.utils.labels import NORMAL

NATIVE_PER_MM = 40.0
_OVERSAMPLING = 4 / 3  # the scene is drawn finer than the camera samples it
_TILT = np.radians(1.2)  # nobody lays a board down straight


@dataclass(frozen=True)
class BoardPicture:
    """A board's picture ``(H, W, 3)`` uint8 with all that is known of it.

    Attributes:
        components: placed components; their joints are named ``<component>.<pad>``.
        fiducials: name and board position ``(x, y)`` in mm.
        defects: defect type of each joint, ``normal`` for a good one.
        to_pixels: ``(2, 3)``, board millimetres to pixels; pixel (0, 0) begins at 0 and ends at 1.
    """

    image: NDArray[np.uint8]
    components: list[Placed]
    fiducials: dict[str, tuple[float, float]]
    defects: dict[str, str]
    to_pixels: NDArray[np.float64]

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        """Where a board point lies in the picture."""
        column, row = self.to_pixels @ [x, y, 1]
        return float(column), float(row)


def render_board(seed: int = 0, defective: int = 8, kinds: Sequence[str] = ()) -> BoardPicture:
    """Render the board. The same arguments give the same bytes.

    Args:
        seed: of light, camera, joints and defects, at least 0.
        defective: number of defects; a missing or shifted component counts once and takes both its joints along.
        kinds: of these alone; all but shifted components by default.
    """
    look_rng, joint_rng, flaw_rng, grain_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence([seed, 0xB0A2D]).spawn(4)
    )
    look = _look(look_rng)
    components = layout()
    to_pixels = _camera_matrix()
    width, height = (round(side * NATIVE_PER_MM) for side in SIZE_MM)
    canvas = _canvas(to_pixels, (0, 0, width, height))
    surfaces = paint_board(canvas, _empty_scene(_silkscreen(components)), look, grain_rng)
    for x, y in FIDUCIALS.values():
        mark = disc(canvas, (x / PAD_MM, -y / PAD_MM), 0.5 / PAD_MM)
        surfaces.paint(cover(mark - np.float32(0.4), canvas.pixel), (0.2, 0.17, 0.09), (0.04, 0.04, 0.04), 0.5)
        surfaces.paint(cover(mark, canvas.pixel), (0.02, 0.02, 0.02), look.finish_colour, 0.3)
    chosen = choose_of(kinds, components, defective, flaw_rng) if kinds else None
    defects = chosen or choose_defects(components, defective, flaw_rng)
    for component in components:
        dressed = look
        if component.package == "C0603":
            body = str(joint_rng.choice(["capacitor", "resistor"]))
            dressed = replace(look, body=body, body_colour=BODIES[body])
        _place(surfaces, to_pixels, component, dressed, defects, joint_rng)
    radiance = shade(surfaces, look.lighting, look.ground, canvas.pixel)
    picture = photograph(radiance, replace(look.camera, size=(height, width)), grain_rng)
    return BoardPicture(picture, components, FIDUCIALS, defects, to_pixels)


def _look(rng: np.random.Generator) -> Conditions:
    """The look of an inspection machine's picture: green board, even light, an exposure for the whole board."""
    look = draw_conditions(rng)
    while look.light != "dome":
        look = draw_conditions(rng)
    red, green, blue = MASKS["green"]
    camera = replace(
        look.camera,
        clipped=0.012,
        gain=0.85,
        blur=0.8,
        fringe=(0.1, 0.0),
        contrast=1.05,
        saturation=1.0,
        noise=0.002,
        sharpen=0.0,
        quality=100,
    )
    ground = (1.2 * red + 0.03, 1.2 * green + 0.03, 1.2 * blue + 0.03)
    return replace(look, mask="green", mask_colour=MASKS["green"], ground=ground, camera=camera)


def _camera_matrix() -> NDArray[np.float64]:
    """Board mm to native pixels ``(2, 3)``: turned about the board's middle, y flipped."""
    cos, sin = np.cos(_TILT), np.sin(_TILT)
    turn = NATIVE_PER_MM * 0.97 * np.array([[cos, sin], [sin, -cos]])
    middle = np.array(SIZE_MM) / 2
    return np.column_stack([turn, NATIVE_PER_MM * middle - turn @ middle])


def _canvas(to_pixels: NDArray[np.float64], window: tuple[int, int, int, int]) -> Canvas:
    """Pad widths at each drawn pixel of a window ``(left, top, right, bottom)`` of the picture, y down the board."""
    left, top, right, bottom = (round(edge * _OVERSAMPLING) for edge in window)
    columns, rows = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    back = np.linalg.inv(to_pixels[:, :2])
    x, y = (
        back[axis, 0] * (columns / _OVERSAMPLING - to_pixels[0, 2])
        + back[axis, 1] * (rows / _OVERSAMPLING - to_pixels[1, 2])
        for axis in (0, 1)
    )
    pixel = 1 / (NATIVE_PER_MM * 0.97 * _OVERSAMPLING * PAD_MM)
    return Canvas((x / PAD_MM).astype(np.float32), (-y / PAD_MM).astype(np.float32), pixel)


def _empty_scene(silkscreen: Sequence[tuple[float, float, float, float, float]]) -> Scene:
    joint = draw_joint(np.random.default_rng(0), CHIP)
    lines = [(1.0, -y, 29.0, -y + shift, 0.12) for y, shift in ((2.6, 0.0), (19.2, 0.4), (20.0, 0.4), (21.4, 0.0))]
    vias = [(4.0, -19.2, 0.35), (26.0, -20.0, 0.35), (12.6, -9.2, 0.35), (14.4, -14.0, 0.35)]
    return Scene(joint, (), 9.0, 1.0, (0, 0), 0.0, tuple(lines), tuple(vias), tuple(silkscreen))


def _silkscreen(components: Sequence[Placed]) -> list[tuple[float, float, float, float, float]]:
    """A line along both open sides of each chip."""
    lines = []
    for component in components:
        if component.package == "C0603":
            along = np.array([np.cos(np.radians(component.rotation)), np.sin(np.radians(component.rotation))])
            across = np.array([-along[1], along[0]])
            middle = np.array([component.x, component.y])
            for side in (-0.72, 0.72):
                (x0, y0), (x1, y1) = (middle + side * across + end * along for end in (-0.4, 0.4))
                lines.append((x0 / PAD_MM, -y0 / PAD_MM, x1 / PAD_MM, -y1 / PAD_MM, 0.06))
    return lines


def _place(
    surfaces: Surfaces,
    to_pixels: NDArray[np.float64],
    component: Placed,
    look: Conditions,
    defects: dict[str, str],
    rng: np.random.Generator,
) -> None:
    """Draw a component's joints into the board's surfaces, the defective ones last and with their neighbours."""
    package = PACKAGES[component.package]
    pitch, length = package.pitch / PAD_MM, package.pad_length / PAD_MM
    model = draw_joint(rng, package.kind)
    stretch = length / model.pad_length
    model = replace(
        model, pad_length=length, terminal_end=model.terminal_end * stretch, terminal_band=model.terminal_band * stretch
    )
    # Placed a little off, but straight; seen from the other side the displacement is the opposite one.
    signs = [1] * package.count + [-1] * package.count
    joints = [
        replace(
            model,
            rotation=0.0,
            offset_x=sign * model.offset_x,
            offset_y=sign * model.offset_y,
            volume=rng.uniform(0.55, 1.0),
            wetting_angle=rng.uniform(8, 32),
        )
        for sign in signs
    ]
    names = [f"{component.name}.{pad}" for pad in range(1, len(joints) + 1)]
    aside: float | None = None  # where the component is shifted to, as seen from this side
    for index in sorted(range(len(joints)), key=lambda index: defects[names[index]] != NORMAL):
        kind = defects[names[index]]
        seed = int(rng.integers(2**32))
        flaw_rng = np.random.default_rng([seed, 1])
        flaw = Defect(0.0, flaw_rng) if kind == NORMAL else DEFECTS[kind](float(flaw_rng.uniform(0.6, 1.0)), flaw_rng)
        if isinstance(flaw, ShiftedComponent):
            aside = -aside if aside else float(flaw_rng.choice([-1, 1])) * (0.12 + 0.33 * flaw.severity)
            flaw.offset_x = joints[index].offset_x + aside
        row = index % package.count
        side = range(index - row, index - row + package.count)
        others = tuple(((other - index) * pitch, joints[other]) for other in side if other != index)
        reach = 0.5 if kind == NORMAL else 1.5  # pitches to either side
        left, right = max(-reach, -row - 0.5) * pitch, min(reach, package.count - row - 0.5) * pitch
        if kind == SHIFTED:
            left, right = left - 0.45, right + 0.45
        extent = (left, -package.inner / PAD_MM, right, length + (0.6 if package.kind == CHIP else 0.9))
        _lay(surfaces, to_pixels, component, index, extent, _scene(joints[index], others, pitch), look, flaw, seed)


def _scene(joint: Joint, neighbours: tuple[tuple[float, Joint], ...], pitch: float) -> Scene:
    return Scene(joint, neighbours, pitch, 1.25, (0, 0), 0.0, (), (), ())


def _lay(
    surfaces: Surfaces,
    to_pixels: NDArray[np.float64],
    component: Placed,
    pad: int,
    extent: tuple[float, float, float, float],
    scene: Scene,
    look: Conditions,
    flaw: Defect,
    seed: int,
) -> None:
    """Build one joint where it lies and lay it over the board, ``extent`` being left, inner, right, outer."""
    x, y, direction = PACKAGES[component.package].pads()[pad]
    turn = np.radians(component.rotation)
    inner = (
        component.x + x * np.cos(turn) - y * np.sin(turn),
        component.y + x * np.sin(turn) + y * np.cos(turn),
    )
    heading = turn + np.radians(direction)
    out = np.array([np.cos(heading), -np.sin(heading)])  # on the canvas, y down
    across = np.array([out[1], -out[0]])  # turning from across to out is turning from x to y
    left, back, right, front = extent
    middle = np.array([inner[0], -inner[1]]) / PAD_MM
    corners = np.array([middle + u * across + v * out for u in (left, right) for v in (back, front)]) * PAD_MM
    pixels = np.column_stack([corners[:, 0], -corners[:, 1], np.ones(4)]) @ to_pixels.T
    (x0, y0), (x1, y1) = np.floor(pixels.min(axis=0)) // 3 * 3, np.ceil(pixels.max(axis=0)) // 3 * 3 + 3
    window = (int(x0), int(y0), int(x1), int(y1))  # multiples of 3 are whole drawn pixels, 4 of them
    canvas = _canvas(to_pixels, window)
    dx, dy = canvas.x - np.float32(middle[0]), canvas.y - np.float32(middle[1])
    u = (dx * across[0] + dy * across[1]).astype(np.float32)
    v = (dx * out[0] + dy * out[1]).astype(np.float32)
    canvas = Canvas(u, v, canvas.pixel)
    built, _ = build(canvas, scene, look, flaw, seed)
    bare = paint_board(canvas, scene, look, np.random.default_rng(seed))
    # What the joint changed of the bare board is laid over; the board's own texture stays between the joints.
    changed = (np.abs(built.diffuse - bare.diffuse) + np.abs(built.f0 - bare.f0)).max(axis=2)
    changed = ((changed > 1e-3) | (np.abs(built.height - bare.height) > 1e-3)).astype(np.float32)
    weight = cv2.GaussianBlur(cv2.dilate(changed, np.ones((3, 3), np.uint8)), (0, 0), 0.8)
    weight = weight * ((u >= left) & (u < right) & (v >= back) & (v < front)).astype(np.float32)
    area = tuple(slice(round(a * _OVERSAMPLING), round(b * _OVERSAMPLING)) for a, b in ((y0, y1), (x0, x1)))
    for name in ("height", "diffuse", "f0", "roughness"):
        below, above = getattr(surfaces, name)[area], getattr(built, name)
        below += (weight if below.ndim == 2 else weight[..., None]) * (above - below)
