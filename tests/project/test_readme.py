"""What the documents tell people to type works; README's commands are run as written, from top to bottom.

They run in a copy of the checkout whose configs are made small, as a user would edit them, in a shell with that
checkout's environment active. Nothing of a command is changed but what stands for the reader's own: ``PATH`` is a
folder of pictures, ``outputs/...`` the latest run, ``multirun/...`` the latest sweep. Two things are left out, since
.ci/run does them itself: ``make test``, and installing (the copy's environment is there already).
"""

import os
import re
import shutil
import signal
import site
import subprocess
import sys
import venv

import pytest
import warm
from checkpoints import pictures, write_images
from documented import ROOT, check_command, commands_in

DOCS = ROOT / "docs"
PAGES = {str(page.relative_to(ROOT)): page for page in sorted([ROOT / "README.md", *DOCS.rglob("*.md")])}
TEXTS = {name: page.read_text(encoding="utf-8") for name, page in PAGES.items()}
README = commands_in(TEXTS["README.md"])
DOCUMENTED = [(name, command) for name, text in TEXTS.items() for command in commands_in(text)]
LINKS = [
    (name, link)
    for name, text in TEXTS.items()
    for link in re.findall(r"\]\(([^)\s]+)\)", text)
    if not re.match(r"[a-z]+:", link)
]

# The configs' lines that are made small. 64 validation normals: README asks for a false-call rate of 2 %.
SMALL = {
    "data/synthetic": {
        "image_size": "16", "train": "48", "val": "64", "test_normal": "9", "test_abnormal": "9",
        "batch_size": "16", "render_workers": "1",
    },
    "data/folder": {"image_size": "16", "batch_size": "16"},
    "trainer/default": {"max_epochs": "2"},
    "training/default": {"width": "4"},
    "experiment/paper": {"max_epochs": "3"},
    "experiment/quick": {"max_epochs": "1"},
    "scale/quick": {"seeds": "1"},
    "reproduce": {"embeddings": "1", "jobs": "1", "sampled_tests": "2"},
    "train": {"pictures": "false"},
}  # fmt: skip
# And for those behind the first: Weights & Biases has been there once, and takes a fifth of a small run.
LATER = {"logger/default": {"mode": "disabled"}}


def test_readme_shows_commands():
    """The two to begin with, and enough others: a changed layout of the page must not empty these tests."""
    assert {line.split("#")[0].strip() for line in README} >= {"make train", "make test"}
    assert len(README) >= 10


def test_readme_shows_before_it_tells():
    """Pictures and results stand on its first screen, and are small; the whole of it is short."""
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) < 130
    top = "\n".join(lines[:30])
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", top)
    assert len(pictures) == 3
    assert all((ROOT / picture).stat().st_size < 200_000 for picture in pictures)
    assert "| AUROC |" in top


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), DOCUMENTED)
def test_documented_commands_are_understood(page, command):
    check_command(command)


@pytest.mark.parametrize(
    "command",
    [
        "python -m solder_vae.train betta=3",
        "python -m solder_vae.predict checkpoint=x image=x out=x",
        "python -m solder_vae.nothing",
        "make nothing",
        "python docs/nothing.py",
        "pip install '.[nothing]'",
    ],
)
def test_a_command_that_does_not_work_is_noticed(command):
    with pytest.raises(Exception, match=r"betta|images|nothing|no such extra"):
        check_command(command)


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page, link):
    """To a file of the repository, and to a heading in it."""
    name, _, anchor = link.partition("#")
    target = PAGES[page].parent / name if name else PAGES[page]
    assert target.exists()
    if anchor:
        assert anchor in anchors(target.read_text(encoding="utf-8"))


def test_every_document_is_in_the_index():
    """docs/README.md is where a reader looks; README.md leads there."""
    listed = {(DOCS / link).resolve() for page, link in LINKS if page == "docs/README.md"}
    assert {page for name, page in PAGES.items() if name not in ("README.md", "docs/README.md")} <= listed
    assert ("README.md", "docs/README.md") in LINKS


def test_documents_named_in_code_exist():
    """Comments, docstrings, messages and configs name documents by their path from the repository's root."""
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    named = {
        (name, document)
        for name in tracked
        if name.endswith((".py", ".yaml", ".toml", ".md")) or name in ("Makefile", ".ci/run")
        for document in re.findall(r"\bdocs/[\w/]+\.md\b", (ROOT / name).read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert {(name, document) for name, document in named if not (ROOT / document).is_file()} == set()


def test_the_tree_in_the_architecture_names_every_file_of_every_room():
    tree = TEXTS["docs/project/architecture.md"].partition("## Where things are")[2].partition("\n## ")[0]
    room, named = "", set()
    for line in tree.splitlines():
        if heading := re.match(r"  (\w+)/ ", line):
            room = heading[1]
        named |= {f"{room}/{name}".lstrip("/") for name in re.findall(r"\w+\.py\b", line)}
    package = ROOT / "solder_vae"
    files = {path.relative_to(package).as_posix() for path in (*package.glob("*.py"), *package.glob("*/*.py"))}
    assert named == {name for name in files if not name.endswith("__init__.py")}


def anchors(markdown):
    """What headings are called in links: lower case, hyphens for spaces, no other signs."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with small configs and an environment whose libraries are those of the running one."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("solder_vae", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy(ROOT / name, copy)
    edit_configs(copy, SMALL)
    venv.create(copy / ".venv")
    (own,) = (copy / ".venv/lib").glob("python*/site-packages")
    needed = next(path for path in site.getsitepackages() if path in sys.path)
    (own / "needed.pth").write_text(needed + "\n")
    (copy / ".venv/installed").touch()
    for python in (copy / ".venv/bin").glob("python*"):  # one whose libraries are imported: warm.py
        python.unlink()
        python.symlink_to(warm.python())
    write_images(copy / "PATH/normal", pictures(60))
    write_images(copy / "PATH/bridge", pictures(40, seed=1))  # README has 25 of them known
    return copy


def edit_configs(checkout, changes):
    for name, values in changes.items():
        path = checkout / "conf" / f"{name}.yaml"
        text = path.read_text(encoding="utf-8")
        for key, value in values.items():
            text, found = re.subn(rf"^(\s*{key}:) \S+", rf"\1 {value}", text, flags=re.MULTILINE)
            assert found == 1, f"{name}: {key}"
        path.write_text(text, encoding="utf-8")


def filled_in(command, checkout):
    """The command with the reader's own paths in place of ``PATH`` (a folder of that name) and ``...``."""
    for folder in ("outputs", "multirun"):
        if f"{folder}/..." in command:
            runs = sorted((checkout / folder).iterdir(), key=lambda path: path.stat().st_mtime)
            command = command.replace(f"{folder}/...", f"{folder}/{runs[-1].name}")
    assert "..." not in command
    return command


def killed_in_its_second_epoch(checkout, environment):
    """A training to go on with."""
    command = [checkout / ".venv/bin/python", ROOT / "tests/support/faulty.py", "kill", "5"]
    environment = {**environment, "PYTHONPATH": str(checkout)}
    result = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in README if not command.startswith("make test")])
def test_readme_commands_run_as_written(command, checkout):
    """In the page's order: later ones use what earlier ones left. The first logs what it does, too."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SOLDER_VAE_CACHE": str(checkout / "cache")}
    if not command.startswith("make train"):
        edit_configs(checkout, LATER)
    if "resume=" in command:
        killed_in_its_second_epoch(checkout, environment)
    shell = ["bash", "-c", f"set -e; . .venv/bin/activate; {filled_in(command, checkout)}"]
    result = subprocess.run(
        shell, cwd=checkout, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip(), "a command says what it did"


def test_make_test_runs_the_tests():
    plan = subprocess.check_output(["make", "--dry-run", "test"], cwd=ROOT, text=True)
    assert "-m pytest" in plan
