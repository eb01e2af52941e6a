"""The same command gives the same ``metrics.json`` to the byte, whatever a machine's surroundings are.

docs/project/trust.md says where bits may differ: another processor, another number of threads, another precision.
"""

import itertools
import locale
import os
import subprocess
import sys

import pytest
from checkpoints import pictures, write_images
from commands import run_command

pytestmark = pytest.mark.slow

OPTIONS = (
    "data=folder",
    "few_normals=accept",
    "data.root=data",
    "data.image_size=16",
    "data.batch_size=16",
    "data.fractions=[60,30,10]",
    "trainer.max_epochs=2",
    "logger.mode=disabled",
    "pictures=false",
    "hydra.run.dir=run",
)


def run(folder, *overrides, **environment):
    """``metrics.json`` of a run in ``folder``, which holds ``data``."""
    result = run_command("train", *OPTIONS, *overrides, cwd=folder, **environment)
    assert result.returncode == 0, result.stderr
    return (folder / "run/metrics.json").read_bytes()


# A module that Python imports before anything else: folders list their files in any order, as a disk may.
SHUFFLED = """
import os, random

class Shuffled:
    def __init__(self, *arguments, listing=os.scandir):
        with listing(*arguments) as entries:
            self.entries = list(entries)
        random.Random(len(self.entries)).shuffle(self.entries)

    def __iter__(self): return self
    def __next__(self):
        if not self.entries: raise StopIteration
        return self.entries.pop()
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def close(self): pass

os.scandir = Shuffled
print("folders are shuffled")
"""


def write_data(folder):
    sets = {"normal": pictures(60), "bridge": pictures(8, seed=1), "焊点 pin": pictures(8, seed=2)}
    for name, images in sets.items():
        write_images(folder / "data" / name, images)


def locales():
    """Those of the machine, at most four that differ much."""
    listed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
    wanted = ["C", "C.utf8", *(name for name in listed if name.startswith(("de_DE.utf8", "tr_TR.utf8")))]
    return [name for name in wanted if name in listed] or [locale.getlocale()[0] or "C"]


def surroundings():
    """Whatever a machine may differ in at once: each has its own locale, time zone and seed of Python's hashes."""
    zones, seeds = itertools.cycle(("Asia/Kathmandu", "America/St_Johns")), itertools.cycle(("0", "12345"))
    return [
        {"LC_ALL": name, "TZ": zone, "PYTHONHASHSEED": seed}
        for name, zone, seed in zip(locales(), zones, seeds, strict=False)
    ]


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    """What ``PYTHONPATH`` is where folders are shuffled."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "sitecustomize.py").write_text(SHUFFLED)
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="module")
def reference(tmp_path_factory, shuffled):
    """Of shuffled folders, in the first of the surroundings: each of the tests' runs differs from it in these."""
    folder = tmp_path_factory.mktemp("reference")
    write_data(folder)
    return run(folder, PYTHONPATH=shuffled, **surroundings()[0])


CASES = [
    pytest.param({}, {}, id="a fresh process"),
    pytest.param({"data.num_workers": 2}, {}, id="2 workers"),
    *(pytest.param({}, environment, id=" ".join(environment.values())) for environment in surroundings()[1:]),
]


@pytest.mark.parametrize(("overrides", "environment"), CASES)
def test_surroundings_change_nothing(overrides, environment, reference, tmp_path):
    write_data(tmp_path)
    assert run(tmp_path, *(f"{key}={value}" for key, value in overrides.items()), **environment) == reference


def test_folders_of_the_reference_are_shuffled(shuffled, tmp_path):
    """Or the tests above would not show that the order of files on disk changes nothing."""
    write_data(tmp_path)
    command = [sys.executable, "-c", "import os; print([entry.name for entry in os.scandir('data/normal')])"]
    environments = [os.environ, {**os.environ, "PYTHONPATH": shuffled}]
    plain, shown = (subprocess.check_output(command, cwd=tmp_path, env=own, text=True) for own in environments)
    assert "folders are shuffled" in shown
    assert shown.count(".png") == plain.count(".png") == 60
    assert plain not in shown


def test_another_seed_changes_something(reference, tmp_path):
    """Or the tests above would show nothing."""
    write_data(tmp_path)
    assert run(tmp_path, "seed=1") != reference
