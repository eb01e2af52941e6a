"""The house keeps its floors: rooms import only rooms below them, nothing goes in a circle, no file grows too long.

``python tests/project/test_architecture.py`` prints the figures of docs/project/architecture.md.
"""

import ast
import functools
import re
from pathlib import Path

import networkx as nx
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
COMMANDS = {"train", "predict", "threshold", "export", "crop", "report", "dashboard", "audit", "reproduce", "serve"}
FILES = sorted(PACKAGE.rglob("*.py"))


def place(path):
    """``("models", "layers", "forward")``: where a file stands below the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts


def imports(path):
    """The files of the package that a file's import statements name, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for parts in (name.split(".") for name in names):
            if parts[0] == "solder_vae":
                found = [PACKAGE.joinpath(*parts[1:end]).with_suffix(".py") for end in range(len(parts), 1, -1)]
                found += [PACKAGE.joinpath(*parts[1:]) / "__init__.py"]
                yield from [target for target in found if target.exists()][:1]


@functools.cache
def import_graph():
    graph = nx.DiGraph()
    graph.add_nodes_from(map(place, FILES))
    graph.add_edges_from((place(path), place(target)) for path in FILES for target in imports(path) if target != path)
    return graph


def unit(parts):
    """What a file counts as within its room: itself, or the sub-folder it lies in."""
    return parts[:2]


def test_commands_and_rooms_are_all_there_is():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", *COMMANDS}
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(BELOW)


def upwards(source, target):
    """Whether an import of one name on the top floor by another is one that may not be."""
    return target in COMMANDS or (source in BELOW and target in BELOW and target not in BELOW[source] | {source})


def test_arrows_point_down():
    assert [(source, target) for source, target in import_graph().edges if upwards(source[0], target[0])] == []


def test_nothing_goes_in_a_circle():
    assert [sorted(part) for part in nx.strongly_connected_components(import_graph()) if len(part) > 1] == []
    units = nx.quotient_graph(import_graph(), lambda a, b: unit(a) == unit(b), create_using=nx.DiGraph)
    circles = [part for part in nx.strongly_connected_components(units) if len(part) > 1]
    assert [sorted({unit(parts) for block in circle for parts in block}) for circle in circles] == []


@pytest.mark.parametrize("room", sorted(BELOW))
def test_a_room_says_what_it_is_for(room):
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert "may import" in text
    for below in BELOW[room]:
        assert f"``{below}``" in text


@pytest.mark.parametrize(("folder", "most"), [("solder_vae", 350), ("tests", 500)])
def test_no_file_holds_more_than_one_reads(folder, most):
    files = (PACKAGE.parent / folder).rglob("*.py")
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > most} == {}


def figures():
    """What docs/project/architecture.md says of the house, by name; rooms and commands are the top floor."""
    top = nx.DiGraph()
    pairs = {(source[0], target[0]) for source, target in import_graph().edges if source[0] != target[0]}
    top.add_edges_from(pair for pair in pairs if "__init__" not in pair)
    circles = [part for part in nx.strongly_connected_components(import_graph()) if len(part) > 1]
    return {
        "files on the top floor": len(list(PACKAGE.glob("*.py"))),
        "rooms": len(BELOW),
        "rooms in the longest chain of imports": nx.dag_longest_path_length(nx.condensation(top)) + 1,
        "imports between rooms": top.number_of_edges(),
        "imports that run upwards": sum(upwards(*pair) for pair in top.edges),
        "circles of files": len(circles),
        "lines of the package, blank ones left out": sum(
            bool(line.strip()) for path in FILES for line in path.read_text(encoding="utf-8").splitlines()
        ),
    }


def test_the_document_gives_the_figures():
    text = (PACKAGE.parent / "docs/project/architecture.md").read_text(encoding="utf-8")
    cells = {
        first.strip().partition(":")[0]: last.strip()
        for first, last in re.findall(r"^\| ([^|]+)\|[^|]+\|([^|]+)\|$", text, re.MULTILINE)
    }
    found = figures()
    for name in ("rooms in the longest chain of imports", "imports that run upwards", "circles of files"):
        assert cells[name] == str(found[name])


if __name__ == "__main__":
    for name, figure in figures().items():
        print(f"{figure:6}  {name}")
