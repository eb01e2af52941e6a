"""The house keeps its floors: rooms import only rooms below them, and nobody imports a command."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "solder_vae"
PILLARS = {"data", "models", "metrics"}
BELOW = {
    "utils": set(),
    **{pillar: {"utils"} for pillar in PILLARS},
    "evaluation": {"utils", *PILLARS},
    "training": {"utils", *PILLARS, "evaluation"},
    "inspection": {"utils", *PILLARS, "evaluation"},
    "studies": {"utils", *PILLARS, "evaluation", "training"},
}
COMMANDS = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}


def imported_rooms(path):
    """The rooms that a file's import statements name, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module] if node.module != "solder_vae" else [f"solder_vae.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("solder_vae."))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    room = path.relative_to(PACKAGE).parts[0]
    found = set(imported_rooms(path)) & (set(BELOW) | COMMANDS)
    assert not found & COMMANDS
    assert room not in BELOW or found <= BELOW[room] | {room}
