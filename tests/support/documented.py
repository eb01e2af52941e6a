"""The commands that documents and configs show: found, and checked as far as that goes without running them.

A command is understood by what would run it: Hydra composes its overrides, :func:`solder_vae.utils.cli.parse` or
argparse reads its options, make and pip know the target and the extra.
"""

import argparse
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from untraced import untraced

from solder_vae.training.schema import register
from solder_vae.utils.cli import CONF, parse
from solder_vae.utils.paths import mean_themselves

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FLAGS = {"-m", "--help", "--config-dir"}
# Of a training run; scale is reproduce's, see test_reproduce.py.
GROUPS = ("data", "model", "score", "threshold", "trainer", "logger", "experiment")


def commands_in(markdown: str) -> list[str]:
    """The commands of a page: every line of its plain code blocks that is one, and ``python -m ...`` in the text."""
    blocks = re.findall(r"^```\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    text = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`(python -m [^`]+)`", text)
    return [line for line in lines if re.match(r"(python|make|pip)\b", line)]


def check_command(line: str) -> None:
    """Fail if the command would be refused before it begins."""
    line = re.sub(r"\$[a-z]\b", "1", line)  # the variable of a loop over numbers
    program, *rest = shlex.split(line, comments=True)
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(rest) <= set(targets), f"{line}: no such target"
    elif program == "pip":
        named = [name for word in rest for part in re.findall(r"\[(.+)\]$", word) for name in part.split(",")]
        assert set(named) <= set(PROJECT["optional-dependencies"]), f"{line}: no such extra"
    elif rest[0] == "-m":
        check_module(rest[1], rest[2:])
    else:
        assert (ROOT / rest[0]).is_file(), f"{line}: no such file"


def check_module(name: str, arguments: list[str]) -> None:
    """Fail if ``python -m name arguments`` would be refused."""
    if config_of(name):
        assert compose_command(name, arguments)
        return
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"no module {name}"
    package, _, command = name.partition(".")
    if package not in ("solder_vae", "benchmarks"):
        return  # a tool's options are its own
    implementation = PROJECT["scripts"].get(f"solder-vae-{command}", name).partition(":")[0]
    module = importlib.import_module(f"{name}.__main__" if spec.submodule_search_locations else implementation)
    if hasattr(module, "read"):
        module.read(arguments)
    elif hasattr(module, "Options"):
        parse(module.Options, arguments, "")
    elif "argparse" in vars(module):
        check_argparse(module.main, arguments)
    else:
        assert len(arguments) == (name == "solder_vae.report"), f"how does {name} read its options?"


class Parsed(BaseException):
    """Ends a command once its options are read; nothing that a command catches."""


def check_argparse(main, arguments):
    original = argparse.ArgumentParser.parse_args

    def parse_only(self, args=None, namespace=None):
        original(self, args, namespace)
        raise Parsed

    argparse.ArgumentParser.parse_args = parse_only
    try:
        main(arguments)
    except Parsed:
        return
    finally:
        argparse.ArgumentParser.parse_args = original
    raise AssertionError(f"{main} read no options")


def config_of(module: str) -> str | None:
    """The name of the config that a command composes; None for a command without Hydra."""
    name = module.removeprefix("solder_vae.")
    return name if (CONF / f"{name}.yaml").exists() else None


def values_of(override: Override) -> list[str]:
    """The overrides of a sweep's jobs for one key; of seeds the first."""
    key, values = override.get_key_element(), [*override.sweep_string_iterator()]
    if key == "seed":
        assert all(value.isdigit() for value in values)
        values = values[:1]
    return [f"{key}={value}" for value in values]


def compose_command(module: str, arguments: list[str]) -> list[DictConfig]:
    """Configs that the command line makes, with Hydra's own part: one, or of a sweep so many that each value occurs.

    Of seeds, whole numbers all, the first is enough. All values but Hydra's own are resolved, and for anything but
    ``--help`` there.
    """
    flags = {argument for argument in arguments if argument.startswith("-")}
    if "--config-dir" in flags:  # of the one example that has configs of its own
        place = arguments.index("--config-dir") + 1
        assert arguments[place] == "conf"
        extension = f"hydra.searchpath=[file://{ROOT / 'examples/extension/conf'}]"
        arguments = [*arguments[:place], *arguments[place + 1 :], extension]
    assert flags <= FLAGS, f"unknown flags {flags - FLAGS}"
    parsed = OverridesParser.create().parse_overrides(
        [text for text in mean_themselves(arguments) if text not in flags]
    )
    assert "-m" in flags or not any(override.is_sweep_override() for override in parsed), "a sweep needs -m"
    values = [values_of(override) if override.is_sweep_override() else [override.input_line] for override in parsed]
    lines = [[each[min(job, len(each) - 1)] for each in values] for job in range(max(map(len, values), default=1))]
    register()
    with untraced():  # Hydra's work, at length
        with initialize_config_dir(str(CONF), version_base="1.3"):
            configs = [
                compose(config_of(module), [*line, "hydra.job.name=job"], return_hydra_config=True) for line in lines
            ]
        for config in configs:
            own = [str(key) for key in config if key != "hydra"]
            known = OmegaConf.masked_copy(config, own)
            OmegaConf.to_container(known, resolve=True, throw_on_missing="--help" not in flags)
            for part in ("launcher", "sweeper"):
                OmegaConf.to_container(config.hydra[part], resolve=True, throw_on_missing=True)
    return configs
