"""Every file under conf/, as found on disk: its command works, its choice trains, and nothing in it goes unread."""

import functools
import inspect
import itertools
import json
import re
import shlex

import pytest
import pytorch_lightning as pl
from checkpoints import pictures, write_images
from commands import TINY, run_command
from documented import GROUPS, ROOT, compose_command, config_of
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf
from published import write_mvtec, write_visa

from solder_vae.training.loggers import run_loggers
from solder_vae.training.trainer import OWN_KEYS, make_trainer
from solder_vae.utils import cli
from solder_vae.utils.cli import CONF
from solder_vae.utils.config import build

AGENTS = sorted((CONF / "wandb").glob("*.yaml"))  # read by Weights & Biases, not by Hydra
FILES = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*.yaml") if path not in AGENTS)
CHOICES = [name.removesuffix(".yaml") for name in FILES if "/" in name]
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "solder_vae").rglob("*.py")))
CONFIGS = "\n".join((CONF / name).read_text(encoding="utf-8") for name in FILES)


def command_of(name):
    """The command in a config's first line, after the line that Hydra reads."""
    lines = [line for line in (CONF / name).read_text(encoding="utf-8").splitlines() if "@package" not in line]
    assert lines[0].startswith("# python -m solder_vae."), f"{name}: the first line is no command to copy"
    return lines[0].removeprefix("# ")


def composed(name):
    """The config that the file's own command makes; of a sweep the first."""
    _, _, module, *arguments = shlex.split(command_of(name))
    return compose_once(module, *arguments)[0].copy()


@functools.cache
def compose_once(module, *arguments):
    return compose_command(module, list(arguments))


def of_group(*groups):
    return [choice for choice in CHOICES if choice.startswith(tuple(f"{group}/" for group in groups))]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_command_on_top_composes_and_takes_the_file(name):
    group, _, choice = name.removesuffix(".yaml").rpartition("/")
    config = composed(name)
    if group:
        assert config.hydra.runtime.choices[group] == choice
    else:
        assert config_of(shlex.split(command_of(name))[2]) == choice


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.stem)
def test_what_an_agent_would_type_composes(path):
    sweep = OmegaConf.load(path)
    assert str(path.relative_to(ROOT)) in path.read_text(encoding="utf-8").splitlines()[0]
    arguments = [
        f"{key}={value}"
        for key, given in sweep.parameters.items()
        for value in [next(given[name] for name in ("value", "values", "min") if name in given)]
        for value in [value[0] if OmegaConf.is_list(value) else value]
    ]
    assert compose_command(sweep.program, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("choice", of_group("data", "model", "threshold"))
def test_every_key_of_a_target_is_one_of_its_parameters(choice, tmp_path):
    """Those take no key that they do not know."""
    config = composed(f"{choice}.yaml")
    part = config[choice.split("/")[0]]
    if "root" in part:
        part.root = str(tmp_path)
    build(part)
    with pytest.raises(Exception, match="surplus"):
        build(OmegaConf.merge(part, {"surplus": 1}))


@pytest.mark.parametrize("choice", of_group("trainer"))
def test_every_key_of_the_trainer_is_one_of_its_parameters(choice, tmp_path):
    config = composed(f"{choice}.yaml")
    for key in OWN_KEYS:
        assert f"config.trainer.{key}" in SOURCE
    config.trainer.precision = "32-true"  # auto is resolved before
    make_trainer(config, tmp_path, logger=False, callbacks=[])


@pytest.mark.slow
@pytest.mark.parametrize("choice", of_group("callbacks"))
def test_every_callback_is_one_of_lightnings(choice):
    for callback in composed(f"{choice}.yaml").callbacks.values():
        assert isinstance(build(callback), pl.Callback)


@pytest.mark.parametrize("choice", of_group("logger"))
def test_every_key_of_the_logger_is_read(choice):
    assert set(composed(f"{choice}.yaml").logger) <= set(inspect.signature(run_loggers).parameters)


def with_target(config):
    """The parts of a config that make an object, and their parts."""
    if OmegaConf.is_dict(config):
        if "_target_" in config:
            yield config
        for key in config:
            yield from with_target(config._get_node(key))


def schemas(group):
    """What plugins registered for a group and for groups in it, by target; all of a plugin's keys are in there."""
    store = ConfigStore.instance()
    for name in store.list(group):
        if name.endswith(".yaml"):
            node = store.load(f"{group}/{name}").node
            yield node._target_, node
        else:
            yield from schemas(f"{group}/{name}")


@pytest.mark.slow
@pytest.mark.parametrize("choice", of_group("hydra/launcher", "hydra/sweeper"))
def test_every_key_of_a_plugin_is_one_of_its_own(choice):
    Plugins.instance()  # finds them
    group = choice.rpartition("/")[0]
    known = dict(schemas(group))
    parts = list(with_target(composed(f"{choice}.yaml").hydra[group.split("/")[1]]))
    assert parts
    for part in parts:
        if part._target_ not in known:
            pytest.skip(f"{part._target_} is not installed")
        assert set(part) <= set(known[part._target_])


def paths(config, prefix=""):
    """The dotted keys of a config's leaves; what a ``_target_`` takes is a leaf."""
    for key in config:
        name = f"{prefix}{key}"
        if OmegaConf.is_dict(config) and OmegaConf.is_dict(config._get_node(key)) and "_target_" not in config[key]:
            yield from paths(config[key], f"{name}.")
        else:
            yield name


def test_a_config_that_chooses_hydras_mode_is_heeded(tmp_path, monkeypatch):
    """Otherwise Hydra composes the config once. A command whose arguments choose it: training/test_run.py."""
    original = Hydra.get_mode
    with cli.composing_once(["experiment=own"]):
        assert Hydra.get_mode is not original
    (tmp_path / "own.yaml").write_text("hydra: {mode: MULTIRUN}\n")
    monkeypatch.setattr(cli, "CONF", tmp_path)
    with cli.composing_once(["experiment=own"]):
        assert Hydra.get_mode is original
    assert Hydra.get_mode is original


OWN_TESTS = ("hydra.", "trainer", "logger.", "callbacks.")  # above


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_nothing_else_goes_unread(name):
    """Each other key is read by the package, ``config.KEY``, or by another part of the config, ``${KEY}``."""
    found = {key for key in paths(OmegaConf.load(CONF / name)) if key != "defaults"}
    text = (CONF / name).read_text()
    package = re.search(r"@package (\w+)", text)
    group = name.partition("/")[0] if package is None else package[1].replace("_global_", "")
    if "/" in name and group:
        if "_target_" in found:
            return  # above
        found = {f"{group}.{key}" for key in found}
    for key in found:
        if not key.startswith(OWN_TESTS) and "model." not in f"{key}.":
            assert is_read(key), f"{name}: nothing reads {key}"


def is_read(key):
    ways = (rf"config\.{re.escape(key)}\b", rf'config\.get\("{re.escape(key)}"')
    in_configs = f"${{{key}}}" in CONFIGS or f"${{oc.select:{key}," in CONFIGS
    return in_configs or any(re.search(way, SOURCE) for way in ways)


def test_a_key_that_nothing_reads_is_noticed():
    assert is_read("seed")
    assert is_read("score.draws")
    assert not is_read("sede")


@pytest.mark.slow
@pytest.mark.parametrize("table", ["table2", "table3"])
@pytest.mark.parametrize("scale", ["quick", "medium", "paper"])
def test_a_scale_says_how_long_the_runs_of_a_table_are(scale, table):
    """reproduce runs ``experiment=[SCALE,TABLE]``, where the later one wins."""
    (alone,) = compose_command("solder_vae.train", [f"experiment={scale}"])
    (both,) = compose_command("solder_vae.train", [f"experiment=[{scale},{table}]"])
    assert both.trainer.max_epochs == alone.trainer.max_epochs
    assert both.score.latent == alone.score.latent


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["train experiment=paper", "train experiment=[quick,table2]", "train experiment=[quick,table3]", "reproduce"],
)
def test_what_the_paper_ran_has_the_constraint_in_each_step(command):
    module, *choices = command.split()
    (config,) = compose_command(f"solder_vae.{module}", choices)
    assert config.model.constraint_every == 1


# every choice trains --------------------------------------------------------------------------------------------------


def write_folders(root):
    write_images(root / "normal", pictures(120))  # a false-call rate of 5 % needs 19 for validation
    write_images(root / "bridge", pictures(4, seed=1))


QUICK = ("trainer.max_epochs=1", "score.latent=mean", "pictures=false")
NEEDED = {
    "data/folder": ["data.root=images", "few_normals=accept"],
    "data/mvtec": ["data.root=images", "few_normals=accept"],
    "data/visa": ["data.root=images", "data.category=pcb1", "few_normals=accept"],
    "score/classifier": ["data.known=6"],
    "threshold/fixed": ["threshold.value=1"],
}
ON_DISK = {"data/folder": write_folders, "data/mvtec": write_mvtec, "data/visa": write_visa}
OF_ALL_DATA = ("data.image_size", "data.batch_size")
UNTRAINED = ("model/backbone", "experiment/inspect")  # they take no learning rate, and no experiment that has one


def together():
    """Choices that can be made at once, one of a group, so that each is made in one run."""
    sets = [of_group(group) for group in ("data", "threshold", "trainer", "logger")]
    chooses = [name for name in of_group("experiment") if "override /score" in (CONF / f"{name}.yaml").read_text()]
    free = [name for name in of_group("experiment") if name not in chooses]
    rows = [
        *itertools.zip_longest(of_group("score")[::-1], *sets),
        *itertools.zip_longest(sorted(of_group("model"), key=lambda name: name in UNTRAINED), free),
        *itertools.zip_longest(chooses),
    ]
    return [list(filter(None, row)) for row in rows]


def overrides(choices):
    given = [text for text in TINY if not text.startswith("model.") or not {*choices} & {*UNTRAINED}]
    on_disk = {*choices} & {*ON_DISK}
    tiny = [text for text in given if not text.startswith("data.") or not on_disk or text.startswith(OF_ALL_DATA)]
    wandb = [] if "logger/default" in choices else ["logger.mode=disabled"]
    needed = [text for choice in choices for text in NEEDED.get(choice, [])]
    return [*(choice.replace("/", "=") for choice in choices), *tiny, *QUICK, *wandb, *needed, "hydra.run.dir=run"]


def test_every_choice_is_in_one_run():
    assert sorted(itertools.chain(*together())) == sorted(of_group(*GROUPS))


@pytest.mark.slow
@pytest.mark.parametrize("choices", together(), ids=" ".join)
def test_every_choice_trains(choices, tmp_path):
    for choice in {*choices} & {*ON_DISK}:
        ON_DISK[choice](tmp_path / "images")
    result = run_command("train", *overrides(choices), cwd=tmp_path)
    assert (tmp_path / "run/metrics.json").exists(), result.stderr
    if {"data/mvtec", "data/visa"} & {*choices}:
        numbers = json.loads((tmp_path / "run/metrics.json").read_text())
        assert {"test/localisation/pixel_auroc", "test/localisation/aupro"} <= set(numbers)
