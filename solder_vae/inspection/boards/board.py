"""Where the joints are in a picture of a board, by pixel boxes or by placement file, footprints and fiducials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solder_vae.data.image_files import Image, read_image
from solder_vae.inspection.boards.cad_tables import BOTTOM, TOP, TURNS, Component
from solder_vae.inspection.boards.kicad_pcb import Outline, read_kicad_pcb
from solder_vae.inspection.boards.options import BoardOptions
from solder_vae.inspection.boards.placement_files import (
    FootprintPad,
    PixelBox,
    check_names,
    read_fiducials,
    read_footprints,
    read_pads,
)
from solder_vae.inspection.boards.registration import Points, Registration, check_field, register
from solder_vae.utils.checks import check_choice
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import printable

FAR = 1e9  # pixels: more than any picture has

SMALLEST = 8
"""Boxes with a shorter side cannot show a joint, so the units must be wrong."""

_TOLD = 5

_UNNAMED = "**"  # KiCad's REF** and the like: logos, mounting holes, fiducials that no schematic has


@dataclass(frozen=True)
class BoardJoint:
    """A joint in a board's picture: its name, its box's left upper corner and size in whole pixels, and the type of its
    component, "" where the file names none."""

    name: str
    x: int
    y: int
    width: int
    height: int
    type: str = ""


@dataclass(frozen=True)
class Board:
    """A board's picture ``(H, W, 3)``, its joints, and how they were located: None for pixel boxes.

    Attributes:
        left_out: rows of the placement file that are not joints of this picture, in words.
    """

    image: Image
    joints: list[BoardJoint]
    registration: Registration | None = None
    left_out: str = ""

    def crops(self) -> list[Image]:
        """Each joint's own pixels ``(height, width, 3)``, a view."""
        return [self.image[box.y : box.y + box.height, box.x : box.x + box.width] for box in self.joints]

    def __str__(self) -> str:
        parts = [str(self.registration)] if self.registration else []
        parts += [self.left_out] if self.left_out else []
        return "\n".join([*parts, f"{len(self.joints)} joints on the board."])


def read_board(options: BoardOptions) -> Board:
    """Read a board's picture and locate its joints.

    Raises:
        UserError: a file or value cannot be used, fiducials do not fix the fit, or a box is not within the picture.
    """
    if not options.board or not options.pads:
        raise UserError("board=IMAGE and pads=CSV are needed, both: --help shows an example.")
    check_choice("side", options.side, (TOP, BOTTOM))
    if not 0 <= options.margin <= 5:
        raise UserError(f"margin={options.margin:g} is out of range: give a share of the box's short side, 0 to 5.")
    if options.size is not None and options.size <= 0:
        raise UserError(f"size={options.size:g} is out of range: give millimetres, more than 0.")
    boxes: list[PixelBox] = []
    outlines: list[Outline] = []
    components: list[Component] = []
    left_out = ""
    if options.pads.lower().endswith(".kicad_pcb"):
        if options.footprints or options.size is not None:
            raise UserError(f"{options.pads} has its pads: footprints and size do not apply, drop them.")
        outlines, left_out = read_kicad_pcb(Path(options.pads), options.side)
    else:
        places = read_pads(Path(options.pads))
        boxes = [place for place in places if isinstance(place, PixelBox)]
        components = [place for place in places if isinstance(place, Component)]
    if components:
        outlines, left_out = _outlines(components, options)
    if boxes:
        if options.fiducials or options.footprints or options.size is not None:
            raise UserError(f"{options.pads} has pixel boxes: fiducials, footprints and size do not apply, drop them.")
        located = None
        image = read_image(options.board)
    else:
        if not options.fiducials:
            raise UserError(f"{options.pads} is in millimetres: give fiducials=CSV to find its places in the picture.")
        located = register(read_fiducials(Path(options.fiducials)), options.fit)
        _check_handedness(located, options)
        image = read_image(options.board)
        check_field(located, image.shape[1])
        boxes = [_bounding_box(outline, located.to_pixels(outline.corners)) for outline in outlines]
        if components:
            _check_units(boxes, components, located, image)
    joints = [_with_margin(box, options.margin) for box in boxes]
    _check_within(joints, image, options)
    return Board(image, joints, located, left_out)


def _outlines(components: Sequence[Component], options: BoardOptions) -> tuple[list[Outline], str]:
    """Each joint's name and corners ``(4, 2)`` on the board, in millimetres; and what is left out."""
    if bool(options.footprints) == (options.size is not None):
        raise UserError(
            f"{options.pads} says where components are, not how large their joints: give either footprints=CSV "
            "(the pads of each package) or size=MM (one square for each row)."
        )
    here = [component for component in components if component.side == options.side]
    if not here:
        raise UserError(f"{options.pads} has no components on side={options.side}: give the other side.")
    if options.footprints:
        footprints = read_footprints(Path(options.footprints))
        known = [component for component in here if component.package in footprints]
        if not any(component.package for component in here):
            raise UserError(f"{options.pads} names no packages: give size=MM, or a file with a column Package.")
        if not known:
            raise UserError(f"{options.footprints} has no package of {options.pads}: compare their columns Package.")
        if options.side == BOTTOM and not all(component.tool for component in known):
            raise UserError(
                f"{options.pads}: how its tool counts rotations on the bottom is not documented; give size=MM, or "
                "rotations as KiCad counts them in columns called Ref, Package, PosX, PosY, Rot, Side."
            )
        outlines = [
            Outline(f"{component.name}.{pad.name}", _corners(component, pad), component.package)
            for component in known
            for pad in footprints[component.package]
        ]
    else:
        known = [component for component in here if not component.name.endswith(_UNNAMED)]
        if not known:
            raise UserError(f"{options.pads} has no designators on side={options.side}, only {here[0].name}.")
        size = float(options.size or 0)
        square = FootprintPad("", 0, 0, size, size)
        outlines = [
            Outline(component.name, _corners(replace(component, rotation=0), square), component.package)
            for component in known
        ]
    check_names(Path(options.pads), [(component.line, component.name) for component in known])
    notes = []
    if len(here) < len(components):
        notes.append(f"{len(components) - len(here)} components on the other side")
    if len(known) < len(here):
        why = "whose package has no footprint" if options.footprints else "without a designator"
        notes.append(f"{len(here) - len(known)} {why}")
    return outlines, f"Left out: {', '.join(notes)}." if notes else ""


def _corners(component: Component, pad: FootprintPad) -> Points:
    """A pad's corners ``(4, 2)`` on the board, as seen from the top.

    A component on the bottom is turned over as its tool does.
    """
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    corners = [pad.x, pad.y] + signs * [pad.width / 2, pad.height / 2]
    mirror, sense = TURNS[component.tool] if component.side == BOTTOM and component.tool else ((1, 1), 1)
    corners = corners * mirror
    angle = np.radians(sense * component.rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(corners @ np.array([[cos, sin], [-sin, cos]]) + [component.x, component.y])


def _bounding_box(outline: Outline, corners: Points) -> PixelBox:
    """The upright box about corners ``(4, 2)`` in pixels."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    size = float(right - left), float(bottom - top)
    return PixelBox(outline.name, float(left), float(top), *size, outline.package)


def _with_margin(box: PixelBox, margin: float) -> BoardJoint:
    """The box widened and rounded to whole pixels."""
    by = margin * min(box.width, box.height)
    if not max(abs(box.x), abs(box.y), box.width, box.height, abs(by)) < FAR:  # NaN is not, either
        raise UserError(
            f"{printable(box.name)} lies far off the picture: check its box, or the fiducials, or use fit=affine."
        )
    left, top = round(box.x - by), round(box.y - by)
    right, bottom = round(box.x + box.width + by), round(box.y + box.height + by)
    return BoardJoint(box.name, left, top, right - left, bottom - top, box.type)


def _check_handedness(located: Registration, options: BoardOptions) -> None:
    if options.side == TOP and located.mirrors:
        raise UserError(
            f"By {options.fiducials} the picture shows the board as in a mirror: two fiducials are swapped, "
            "board_y does not point up, or the picture is of side=bottom."
        )
    if options.side == BOTTOM and not located.mirrors:
        raise UserError(
            f"By {options.fiducials} the picture shows the board from the top, yet side=bottom: two fiducials are "
            "swapped, the placement file was exported with negated X, or the picture is of side=top."
        )


def _check_units(
    boxes: Sequence[PixelBox], components: Sequence[Component], located: Registration, image: Image
) -> None:
    """Check that the placement file is in the millimetres of the fiducials.

    Raises:
        UserError: the joints lie far off the picture or on one another, and another unit would explain it.
    """
    height, width = image.shape[:2]
    centers = np.array([(box.x + box.width / 2, box.y + box.height / 2) for box in boxes])
    outside = ~_inside(centers, width, height)
    sizes = np.array([min(box.width, box.height) for box in boxes])
    crowded = len(boxes) > 1 and np.median(_nearest(centers)) < 0.25 * np.median(sizes)
    if not outside.any() and not crowded:
        return
    unit, millimetres = ("inches", 25.4) if crowded else ("mil", 0.0254)
    places = np.array([(component.x, component.y) for component in components]) * millimetres
    if _inside(located.to_pixels(places), width, height).all() and (crowded or outside.mean() > 0.5):
        raise UserError(
            f"The placement file is in {unit}, it seems: taken as millimetres its joints lie "
            f"{'on one another' if crowded else 'off the picture'}. Export it in millimetres, as the fiducials are."
        )
    if crowded:
        raise UserError(
            "The joints lie on one another: are placement file, footprints or size, and fiducials in millimetres?"
        )


def _inside(points: Points, width: int, height: int) -> NDArray[np.bool_]:
    return np.asarray(((points >= 0) & (points <= [width, height])).all(axis=1))


def _nearest(points: Points) -> Points:
    """Each point's distance from the next, ``(N,)``."""
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    finite = points[np.isfinite(points).all(axis=1)]
    if len(finite) < 2:
        return np.array([np.inf])
    return np.asarray(cKDTree(finite).query(finite, k=2)[0][:, 1])


def _check_within(joints: Sequence[BoardJoint], image: Image, options: BoardOptions) -> None:
    height, width = image.shape[:2]
    off = [box for box in joints if box.x < 0 or box.y < 0 or box.x + box.width > width or box.y + box.height > height]
    if off:
        told = ", ".join(f"{printable(box.name)} at ({box.x}, {box.y})" for box in off[:_TOLD])
        more = f" and {len(off) - _TOLD} more" if len(off) > _TOLD else ""
        raise UserError(
            f"{len(off)} of {len(joints)} boxes are not within {options.board} ({width}x{height} px): {told}{more}. "
            f"Do {options.pads} and the picture belong together{', is margin too large' if options.margin else ''}?"
        )
    small = [box for box in joints if min(box.width, box.height) < SMALLEST]
    if small:
        raise UserError(
            f"{len(small)} of {len(joints)} boxes have a side under {SMALLEST} px (first: {printable(small[0].name)}, "
            f"{small[0].width}x{small[0].height}), too few to show a joint: are the units right?"
        )
