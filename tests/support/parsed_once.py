"""Configs are parsed once in a process, and, for servers whose forks run commands, before they are asked for.

A run reads some 25 small YAML files, in Python, and each interpreter fills the tables of Hydra's grammar as it meets
what is typed.
"""

import functools
from pathlib import Path
from typing import TextIO

import hydra
import omegaconf
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

CONF = Path(__file__).parents[2] / "conf"


@functools.cache
def parsed(text: str, loader: type) -> object:
    return yaml.load(text, loader)  # nobody changes it: OmegaConf makes containers of its own


class ParsedOnce:
    """The module ``yaml`` for OmegaConf."""

    def __getattr__(self, name: str) -> object:
        return getattr(yaml, name)

    def load(self, file: TextIO | str, Loader: type) -> object:
        return parsed(file if isinstance(file, str) else file.read(), Loader)


def share() -> None:
    """From now on, OmegaConf parses equal texts once."""
    omegaconf.omegaconf.yaml = ParsedOnce()
    omegaconf._utils.get_yaml_loader = functools.cache(omegaconf._utils.get_yaml_loader)


def prepare() -> None:
    """Parse all configs, and fill the grammar's tables, without the package."""
    share()
    for folder in (CONF, Path(hydra.__file__).parent / "conf"):
        for path in folder.rglob("*.yaml"):
            omegaconf.OmegaConf.load(path)
    overrides = ["a.b=1e-3", "+a='b, c'", "++a=[1,x]", "~a", "a=${b.c:d}/e", "a={b: 2}", "a=choice(0,1)", "a=1,2"]
    OverridesParser.create().parse_overrides(overrides)
    omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.create({"a": "${b}_${oc.env:A,1}", "b": 1}), resolve=True)
