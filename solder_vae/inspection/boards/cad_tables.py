"""Placement files of CAD tools: where each component lies, in millimetres, for every tool.

Columns are found by their names, the header by its columns, units in cells, columns or the lines before the header.
docs/use/crop.md lists the tools.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import Row, Table, parse_table
from solder_vae.utils.text import printable

TOP, BOTTOM = "top", "bottom"

KICAD, EAGLE, LIBREPCB = "KiCad", "Eagle", "LibrePCB"
TURNS = {KICAD: ((1, -1), 1), EAGLE: ((-1, 1), -1), LIBREPCB: ((-1, 1), 1)}
"""How a tool turns a component on the bottom, seen from the top: what x and y of its footprint are multiplied by, and
which way its rotation then goes. By KiCad's FOOTPRINT::Flip and its reader of Eagle's boards (rotated, then mirrored),
and LibrePCB's Transform::map since version 1.0; up to 0.1 LibrePCB did as Eagle does."""

_NAMES = {  # of columns, without units, marks and case; the first that is there counts
    "ref": (
        "ref",
        "reference",
        "designator",
        "refdes",
        "referencedesignator",
        "refdesignator",
        "part",
        "component",
        "name",
    ),
    "package": ("package", "footprint", "pattern"),
    "x": ("posx", "midx", "centerx", "positionx", "xcenter", "locationx", "xpos", "symx", "x", "xcoordinate"),
    "y": ("posy", "midy", "centery", "positiony", "ycenter", "locationy", "ypos", "symy", "y", "ycoordinate"),
    "rot": ("rot", "rotation", "rotate", "angle", "orientation", "symrotate"),
    "side": ("side", "layer", "tb", "boardside", "mountside", "topbottom", "placementside", "symmirror", "mirror"),
}
_SIDES = {
    **dict.fromkeys(("top", "t", "front", "f", "fcu", "toplayer", "topside", "componentside", "顶层", "no"), TOP),
    **dict.fromkeys(
        ("bottom", "bot", "b", "back", "bcu", "bottomlayer", "bottomside", "solderside", "底层", "yes"), BOTTOM
    ),
}
_UNITS = {
    **{"mm": 1.0, "cm": 10.0},
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm"), 0.001),  # micro sign, Greek letter
    **dict.fromkeys(("mil", "mils", "th", "thou"), 0.0254),
    **dict.fromkeys(("inch", "inches", "in", '"'), 25.4),
}
_UNIT = r"mm|cm|[u\u00b5\u03bc]m|mils?|th(?:ou)?|inch(?:es)?|in"
_LENGTH = re.compile(r"([-+]?[\d.,]+(?:e[-+]?\d+)?) *(" + _UNIT + r"|\")?", re.IGNORECASE)
_DEGREES = re.compile(r"\s*(?:°|deg(?:rees?)?)$", re.IGNORECASE)
_UNIT_LINE = re.compile(r"(?:\bunits?\b[^\n]*?[:=]\s*\"?|\bx, ?y in )(" + _UNIT + r")\b", re.IGNORECASE)
_MOUNT_LINE = re.compile(r"(\S+)\s+([-+]?[\d.]+)\s+([-+]?[\d.]+)\s+([-+]?[\d.]+)(?:\s+(.*))?")


@dataclass(frozen=True)
class Component:
    """A placed component: its centroid in millimetres (y up), rotation in degrees counter-clockwise, and side.

    Attributes:
        line: where it is in its file.
        tool: whose convention the rotation of the bottom follows, see :data:`TURNS`; empty: not known.
    """

    name: str
    package: str
    x: float
    y: float
    rotation: float
    side: str
    line: int = 0
    tool: str = KICAD


def read_components(path: Path, text: str) -> list[Component]:
    """The components of a placement file; none if the text is no such file.

    Raises:
        UserError: a value cannot be used, or the file is one of which another can be exported.
    """
    _check_kind(path, text)
    table = parse_table(path, text, _is_placement)
    if not table.columns:
        table = _aligned(path, text) or table
    if table.columns:
        if not table.rows:
            raise UserError(f"{path}: has no rows; it needs a header and a line for each entry.")
        return _components(path, table)
    return _mounted(path, text)


def _is_placement(cells: Sequence[str]) -> bool:
    return {"ref", "x", "y", "rot", "side"} <= _columns(cells).keys()


def _columns(cells: Iterable[str]) -> dict[str, str]:
    """What a header's columns mean: ref, package, x, y, rot, side to the column's own name."""
    plain = {re.sub(r"[\(\[].*?[\)\]]|[^a-z0-9]|mm$|mil$", "", cell.lower()): cell for cell in reversed(list(cells))}
    found = {meant: next((plain[name] for name in names if name in plain), None) for meant, names in _NAMES.items()}
    return {meant: column for meant, column in found.items() if column is not None}


def _components(path: Path, table: Table) -> list[Component]:
    if not _is_placement(table.columns):  # a quotation mark that is not closed
        raise UserError(f"{path}: has a header that can't be read; export it anew.")
    columns = _columns(table.columns)
    stated = _UNIT_LINE.search(table.preamble)
    units = {axis: _unit_of(columns[axis], stated[1] if stated else "mm") for axis in "xy"}
    tool = _tool(columns, table.preamble)
    if re.search(r"\brad(?:ians?)?\b", columns["rot"], re.IGNORECASE):
        raise UserError(f"{path}: {columns['rot']} is in radians; give degrees.")
    unit_column = next((name for name in ("unit", "units") if name in map(str.lower, table.columns)), None)
    components = []
    for line, row in table.rows:
        if row[table.columns[0].lower()].startswith("#"):
            continue
        at = f"{path}, line {line}"
        cell = {meant: row[column.lower()] for meant, column in columns.items()}
        side = _SIDES.get(re.sub(r"[^\w]|_", "", cell["side"].lower()))
        if side is None:
            raise UserError(f"{at}: {columns['side']} is {printable(cell['side'])!r}; use top or bottom.")
        own = None
        if unit_column and row[unit_column]:
            own = _UNITS.get(row[unit_column].lower())
            if own is None:
                raise UserError(f"{at}: {unit_column} is {printable(row[unit_column])!r}; use mm, mil or inch.")
        x, y = (length(cell[axis], columns[axis], at, own or units[axis]) for axis in "xy")
        rotation = number(_DEGREES.sub("", cell["rot"]), columns["rot"], at)
        components.append(Component(cell["ref"], cell.get("package", ""), x, y, rotation, side, line, tool))
    return components


def _tool(columns: dict[str, str], preamble: str) -> str:
    if columns["x"].lower().startswith("posx"):
        return KICAD
    if columns["x"].lower().startswith("position x"):
        return EAGLE if re.search(r"LibrePCB 0\.", preamble) else LIBREPCB
    return ""


def _unit_of(column: str, otherwise: str) -> float:
    found = re.search(rf"[\(\[ _-]({_UNIT})[\)\]]?$|(?:mm|mil)$", column.strip(), re.IGNORECASE)
    return _UNITS[(found[1] or found[0] if found else otherwise).lower()]


def _aligned(path: Path, text: str) -> Table | None:
    """A table whose columns are set apart by blanks: KiCad's .pos and Altium's .txt."""
    lines = text.splitlines()
    index = next((index for index, line in enumerate(lines) if _is_placement(line.lstrip("#").split())), None)
    if index is None:
        return None
    header = lines[index]
    names = header.lstrip("#").split()
    kicad = header.startswith("#")
    starts = [match.start() for match in re.finditer(r"\S+", header)]
    rows: list[tuple[int, Row]] = []
    for at_line, line in enumerate(lines[index + 1 :], index + 2):
        if not line.strip() or line.startswith("#"):
            continue
        if kicad:  # numbers end where their column's name does, and a value may be missing: read from both ends
            words = line.split()
            middle = words[1:-4]
            cells = [words[0], " ".join(middle[:-1]), "".join(middle[-1:]), *words[-4:]]
        else:
            if any(start <= len(line) and start and not line[start - 1].isspace() for start in starts):
                raise UserError(f"{path}, line {at_line}: is not under the columns of its header; export it as CSV.")
            cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        if len(cells) != len(names):
            raise UserError(f"{path}, line {at_line}: {len(cells)} values for {len(names)} columns.")
        rows.append((at_line, dict(zip((name.lower() for name in names), cells, strict=True))))
    return Table("\n".join(lines[:index]), names, rows)


def _mounted(path: Path, text: str) -> list[Component]:
    """Eagle's mountsmd.ulp: a file for each side, without header: name, x, y, angle, value, package."""
    sides = {".mnt": TOP, ".mnb": BOTTOM}
    side = sides.get(path.suffix.lower())
    components = []
    for line, words in enumerate(text.splitlines(), 1):
        if not words.strip():
            continue
        found = _MOUNT_LINE.fullmatch(words.strip())
        if not found and side is None:
            return []
        if not found:
            told = "is no line of Eagle's mountsmd.ulp (name, x, y, angle, value, package)"
            raise UserError(f"{path}, line {line}: {told}.")
        name, *numbers, rest = found.groups()
        x, y, angle = (number(text, what, f"{path}, line {line}") for text, what in zip(numbers, "xyr", strict=True))
        package = (rest or "").split()[-1:]
        components.append(Component(name, "".join(package), x, y, angle, side or TOP, line, EAGLE))
    if components and side is None:
        raise UserError(
            f"{path}: is a list of Eagle's mountsmd.ulp, it seems, which tells its side by its name: "
            "call it .mnt (top) or .mnb (bottom)."
        )
    return components


def _check_kind(path: Path, text: str) -> None:
    """Refuse other files of tools that can write a placement file, and say how."""
    start = text.lstrip()[:2000]
    for mark, what in (
        ("<eagle", "an Eagle board; run mountsmd.ulp on it and give its .mnt or .mnb file"),
        ("<?xml", "XML; export a placement file (pick and place) as CSV"),
        ("%TF.", "a Gerber file; export a placement file (pick and place) as CSV"),
        ("%FSLA", "a Gerber file; export a placement file (pick and place) as CSV"),
        ("$BeginDESCRIPTION", "KiCad's footprint report; export component placement as CSV"),
        ("PCBNEW-BOARD", "a board of KiCad 4 or older; save it with a newer KiCad"),
        ("(footprint", "a footprint of KiCad's; give the .kicad_pcb file"),
        ("(kicad_pcb", "a board of KiCad's; call it .kicad_pcb"),
        ("(kicad_sch", "a schematic of KiCad's; give the .kicad_pcb file"),
    ):
        if start.startswith(mark) or (mark[0] in "<%$" and mark in start and start[0] in "<%#G"):
            raise UserError(f"{path}: is {what}.")


def number(text: str, column: str, at: str, unit: str = "no unit") -> float:
    """A plain number, with a point or a decimal comma.

    Raises:
        UserError: it is not a number.
    """
    plain = text.replace(",", ".") if re.fullmatch(r"[-+]?\d*,\d+", text) else text
    try:
        value = math.nan if "_" in plain else float(plain)  # Python would read 1_0 as 10
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{at}: {column} is {printable(text)!r}; use a plain number (point, {unit}).")
    return value


def length(text: str, column: str, at: str, unit: float = 1.0) -> float:
    """Millimetres, from a number with or without a unit.

    Args:
        text: the cell.
        column: its column.
        at: file and line.
        unit: millimetres in one of the unit that holds where the cell has none.

    Raises:
        UserError: it is no number, or a comma may separate thousands.
    """
    found = _LENGTH.fullmatch(text)
    digits, own = (found[1], found[2]) if found else (text, None)
    factor = _UNITS[own.lower()] if own else unit
    if factor == _UNITS["mil"] and re.fullmatch(r"[-+]?\d{1,3},\d{3}", digits):
        raise UserError(f"{at}: {column} is {printable(text)!r}, which may be thousands; export without a comma.")
    return number(digits, column, at, "mm, mil or inch") * factor
