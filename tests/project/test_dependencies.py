"""Dependencies: what is imported is declared, what is declared is used, and all that comes with it is pinned."""

import ast
import functools
import importlib.metadata
import re
import sys

import pytest
from documented import PROJECT, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from solder_vae.utils.cli import CONF

GIVEN = {name: [*map(Requirement, texts)] for name, texts in PROJECT["optional-dependencies"].items()}
EXTRAS = {name: [r for r in requirements if r.name != PROJECT["name"]] for name, requirements in GIVEN.items()}
CORE = [*map(Requirement, PROJECT["dependencies"])]
# What tests run with, and so what constraints.txt pins: extras that dev does not name are left out.
TESTED = {"dev"}.union(*(requirement.extras for requirement in GIVEN["dev"] if requirement.name == PROJECT["name"]))
PINNED = [*CORE, *(requirement for name in sorted(TESTED) for requirement in EXTRAS[name])]
DECLARED = {canonical(requirement.name) for part in (CORE, *EXTRAS.values()) for requirement in part}
OWNERS = importlib.metadata.packages_distributions()
# Used without being imported: run as commands, or loaded by pytest.
TOOLS = {"build", "hatchling", "mypy", "pytest-cov", "pytest-xdist", "ruff"}


def owners(module: str) -> set[str]:
    """The distributions that a dotted module name comes from; Hydra's plugins share a namespace and are named alike."""
    top, _, rest = module.partition(".")
    if top == "hydra_plugins":
        return {canonical(rest.split(".")[0])}
    return {canonical(name) for name in OWNERS.get(top, [top])}


@functools.cache
def imports(folder: str) -> set[str]:
    """The modules of others that Python files below a folder import, also inside functions."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    own = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {
        "solder_vae",
        "benchmarks",
        "own_rules",  # written by a test
        *sys.stdlib_module_names,
    }
    return {name for name in found if name.split(".")[0] not in own}


@functools.cache
def targets() -> set[str]:
    """The modules of others that configs instantiate."""
    texts = "\n".join(path.read_text(encoding="utf-8") for path in CONF.rglob("*.yaml"))
    texts = re.sub(r"#.*", "", texts)
    return {name for name in re.findall(r"_target_: ([\w.]+)", texts) if not name.startswith("solder_vae.")}


def undeclared(modules: set[str], declared: set[str]) -> dict[str, set[str]]:
    """Those modules that no declared distribution brings, and what brings them."""
    return {module: owners(module) for module in sorted(modules) if not owners(module) & declared}


@pytest.mark.slow
def test_what_the_package_uses_is_declared():
    shipped = {canonical(r.name) for part in (CORE, *(EXTRAS[name] for name in EXTRAS if name != "dev")) for r in part}
    modules = imports("solder_vae") | targets()
    assert {"torch", "pytorch_lightning.Trainer"} <= modules
    assert not undeclared(modules, shipped), "pyproject.toml does not name what they come with"


@pytest.mark.slow
def test_what_tests_and_benchmarks_use_is_declared():
    modules = imports("tests") | imports("benchmarks")
    assert "pytest" in modules
    assert not undeclared(modules, DECLARED), "pyproject.toml does not name what they come with"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DECLARED))
def test_what_is_declared_is_used(name):
    """What a run needs by the package itself, what development needs also by tests or as a tool."""
    in_dev = {canonical(requirement.name) for requirement in EXTRAS["dev"]}
    modules = (
        imports("solder_vae") | targets() | (imports("tests") | imports("benchmarks") if name in in_dev else set())
    )
    assert name in set().union(*map(owners, modules)) or (name in in_dev and name in TOOLS)


@functools.cache
def pins() -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines())
    return {canonical(pin.name): pin for pin in map(Requirement, filter(None, lines))}


def requirements(distribution: importlib.metadata.Distribution, extras: set[str]) -> list[Requirement]:
    """What an installed distribution requires here, with these extras."""
    parsed = map(Requirement, distribution.requires or [])
    contexts = [{"extra": extra} for extra in ("", *extras)]
    return [r for r in parsed if r.marker is None or any(r.marker.evaluate(context) for context in contexts)]


@functools.cache
def closure() -> dict[str, set[str]]:
    """Every installed distribution that is needed, directly or not, and the exact versions asked of it."""
    found: dict[str, set[str]] = {}
    seen = set()
    waiting = list(PINNED)
    while waiting:
        requirement = waiting.pop()
        name = canonical(requirement.name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not for this system
        found.setdefault(name, set()).update(str(s) for s in requirement.specifier if s.operator == "==")
        if (name, *sorted(requirement.extras)) not in seen:
            seen.add((name, *sorted(requirement.extras)))
            waiting += requirements(distribution, requirement.extras)
    return found


@pytest.mark.slow
def test_everything_needed_is_pinned():
    """In constraints.txt, or by what needs it, as a GPU build of torch pins its libraries."""
    unpinned = sorted(name for name, exact in closure().items() if name not in pins() and not exact)
    assert not unpinned, f"not in constraints.txt: {unpinned}"


@pytest.mark.slow
def test_pins_are_exact_and_met():
    for name, pin in pins().items():
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), pin
        if name in closure():
            assert pin.specifier.contains(importlib.metadata.version(name), prereleases=True), pin


def test_no_pin_is_left_over():
    assert not sorted(set(pins()) - set(closure()))


@pytest.mark.parametrize("requirement", PINNED, ids=str)
def test_declared_ranges_admit_the_pins(requirement):
    (exact,) = pins()[canonical(requirement.name)].specifier
    assert requirement.specifier.contains(exact.version, prereleases=True)
