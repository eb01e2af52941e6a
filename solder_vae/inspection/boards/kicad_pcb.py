"""KiCad's board file: where every pad lies, without placement file and footprints.

Understood from KiCad 5 on. A pad's place is in its footprint's frame, which for the bottom is stored turned over; its
angle is the board's (https://dev-docs.kicad.org/en/file-formats/sexpr-pcb/). y points down in the file, up here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from solder_vae.inspection.boards.cad_tables import BOTTOM, TOP
from solder_vae.inspection.boards.registration import Points
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import read_text
from solder_vae.utils.text import printable


class Outline(NamedTuple):
    """A joint's name, the corners ``(4, 2)`` of its box on the board, in millimetres, y up, and its package."""

    name: str
    corners: Points
    package: str = ""


_TOKEN = re.compile(r'[()]|"(?:[^"\\]|\\.)*"|[^\s()"]+', re.DOTALL)
_KEPT = ("footprint", "module", "setup")  # of the board's items; the rest, mostly copper, is passed over
_COPPER = {TOP: ("F.Cu", "*.Cu", "F&B.Cu"), BOTTOM: ("B.Cu", "*.Cu", "F&B.Cu")}

Node = list[Any]  # of nodes and words


def read_kicad_pcb(path: Path, side: str) -> tuple[list[Outline], str]:
    """The joints that a picture of a side shows, and what is left out, in words.

    These are numbered pads of components that are placed: surface-mount pads on the side itself, through-hole pads of
    components on the other side, whose solder is here. Places count from the drill and placement origin where the board
    has one, else from the page's corner, as in KiCad's own placement files.

    Raises:
        UserError: the file is no such board, or shows no joint on that side.
    """
    board = _parse(path, read_text(path))
    origin = np.zeros(2)
    for setup in _all(board, "setup"):
        for node in _all(setup, "aux_axis_origin"):
            origin = _point(node, path)
    outlines: list[Outline] = []
    seen: set[str] = set()
    taken: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for footprint in (*_all(board, "footprint"), *_all(board, "module")):
        name = _reference(footprint)
        attributes = {word for node in _all(footprint, "attr") for word in _words(node)}
        placed = TOP if _first(footprint, "layer", path)[1] == "F.Cu" else BOTTOM
        pads = [pad for pad in _all(footprint, "pad") if _is_joint(pad, placed, side, "smd" in attributes)]
        if not pads:
            continue
        if "dnp" in attributes or "exclude_from_pos_files" in attributes or "virtual" in attributes:
            left_out["not placed"] += 1
            continue
        if not name or name.endswith("**"):
            left_out["without a designator"] += 1
            continue
        if name in seen:
            raise UserError(f"{path}: {printable(name)} is there twice; give each component a name of its own.")
        seen.add(name)
        package = "".join(_words(footprint)[:1]).rpartition(":")[2]  # without its library
        for pad in pads:
            joint = f"{name}.{_words(pad)[0]}"
            taken[joint] += 1
            called = joint if taken[joint] == 1 else f"{joint}-{taken[joint]}"
            outlines.append(Outline(called, (_corners(footprint, pad, path) - origin) * [1, -1], package))
    if not outlines:
        raise UserError(f"{path}: shows no joint on side={side}; give the other side.")
    notes = [f"{count} components {why}" for why, count in left_out.items()]
    return outlines, f"Left out: {', '.join(notes)}." if notes else ""


def _is_joint(pad: Node, placed: str, side: str, surface_mount: bool) -> bool:
    """Whether a picture of ``side`` shows the pad's solder, for a component placed on ``placed``."""
    number, kind = (*_words(pad), "", "")[:2]
    layers = {layer for node in _all(pad, "layers") for layer in _words(node)}
    if not number or not layers & set(_COPPER[side]):
        return False
    # Holes through the pads of a surface-mount part are thermal vias and pegs.
    return bool(kind == "smd" or (kind == "thru_hole" and placed != side and not surface_mount))


def _corners(footprint: Node, pad: Node, path: Path) -> Points:
    """The corners ``(4, 2)`` of a pad, in the file's frame."""
    at, pad_at = _first(footprint, "at", path), _first(pad, "at", path)
    turn, pad_turn = (_number(node[3], path) if node[3:] not in ([], ["unlocked"]) else 0.0 for node in (at, pad_at))
    half = _point(_first(pad, "size", path), path) / 2
    low, high = -half, half
    for node in _all(pad, "primitives"):
        points = np.vstack([low, high, *_extents(node, path)])
        low, high = points.min(axis=0), points.max(axis=0)
    offset = sum((_point(node, path) for drill in _all(pad, "drill") for node in _all(drill, "offset")), np.zeros(2))
    box = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]]) + offset
    return _turned(box, pad_turn) + _turned(_point(pad_at, path)[None], turn) + _point(at, path)


def _extents(primitives: Node, path: Path) -> Iterator[Points]:
    """Points that the shapes of a custom pad reach, in the pad's frame."""
    for shape in (child for child in primitives if isinstance(child, list) and child):
        width = max((_number("".join(_words(node)), path) for node in _all(shape, "width")), default=0.0) / 2
        points = [_point(node, path) for key in ("start", "mid", "end", "center") for node in _all(shape, key)]
        points += [_point(node, path) for pts in _all(shape, "pts") for node in _all(pts, "xy")]
        if shape[0] == "gr_circle" and len(points) == 2:
            width += float(np.linalg.norm(points[0] - points[1]))
            points = points[-1:]  # the centre
        for point in points:
            yield point - width
            yield point + width


def _turned(points: Points, degrees: float) -> Points:
    """Counter-clockwise as one sees it, with y pointing down."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(points @ np.array([[cos, -sin], [sin, cos]]))


def _reference(footprint: Node) -> str:
    """Of KiCad 8 and later, and of those before."""
    named = [node[2] for node in _all(footprint, "property") if len(node) > 2 and node[1] == "Reference"]
    named += [node[2] for node in _all(footprint, "fp_text") if len(node) > 2 and node[1] == "reference"]
    return str(named[0]) if named and isinstance(named[0], str) else ""


def _parse(path: Path, text: str) -> Node:
    """The board's tree, of its items only those that say where pads are."""
    if text.lstrip().startswith("PCBNEW-BOARD"):
        raise UserError(f"{path}: is a board of KiCad 4 or older; save it with a newer KiCad.")
    root: Node = []
    stack = [root]
    for match in _TOKEN.finditer(text):
        word = match[0]
        if word == "(":
            stack.append([])
        elif word == ")":
            if len(stack) == 1:
                break
            node = stack.pop()
            if len(stack) != 2 or (node and node[0] in _KEPT):
                stack[-1].append(node)
        else:
            stack[-1].append(re.sub(r"\\(.)", r"\1", word[1:-1]) if word[0] == '"' else word)
    if len(stack) != 1 or len(root) != 1 or not root[0] or root[0][0] != "kicad_pcb":
        raise UserError(f"{path}: is no whole board file of KiCad; save it anew.")
    return list(root[0])


def _all(node: Node, key: str) -> list[Node]:
    return [child for child in node if isinstance(child, list) and child and child[0] == key]


def _words(node: Node) -> list[str]:
    return [word for word in node[1:] if isinstance(word, str)]


def _first(node: Node, key: str, path: Path) -> Node:
    found = _all(node, key)
    if not found or len(found[0]) < 2:
        raise UserError(f"{path}: a {node[0]} has no {key}; save the board anew with KiCad.")
    return found[0]


def _point(node: Node, path: Path) -> Points:
    return np.array([_number(word, path) for word in (*node[1:3], "", "")[:2]])


def _number(word: Any, path: Path) -> float:
    try:
        return float(word)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: has {printable(str(word))!r} where a number belongs; save the board anew.") from error
