"""What every command shares: where the configs are, how options are read, and how a failure is reported.

A mistake that the user can mend ends in one sentence on stderr and exit status 2; its traceback goes to the run's log.
Anything else is a bug: status 1, with the traceback.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import gc
import logging
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from solder_vae.utils.errors import UserError, unknown_key
from solder_vae.utils.paths import PATHS, at_home, mean_themselves

if TYPE_CHECKING:
    from omegaconf import DictConfig

T = TypeVar("T")

#: Arguments that may set ``hydra.mode``, themselves or by configs from elsewhere.
_MAY_SET_MODE = re.compile(r"-(?!m$|-multirun$)|[+~]*hydra\b(?!\.(?:run|sweep)\.)")

PACKAGE = Path(__file__).resolve().parents[1]
#: The configs: inside the package when installed from a wheel, at the top of a checkout otherwise.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

log = logging.getLogger("solder_vae")
traceback_log = logging.getLogger("solder_vae.traceback")  # goes to the run's log file alone


def hydra_main(config_name: str, job: Callable[[DictConfig, Path], Any]) -> None:
    """Compose a config from the command line, run ``job(config, run directory)``, and exit.

    With ``-m`` the job runs once for each combination. A job that fails leaves its traceback in its own log; the
    others go on.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    # OSError: the run's directory cannot be made or written.
    mistakes = (UserError, HydraException, OmegaConfBaseException, OSError)
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints errors in its own way and exits
    sys.argv[1:] = mean_themselves(sys.argv[1:])

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
    @functools.wraps(job)
    def run(config: DictConfig) -> Any:
        directory = Path(HydraConfig.get().runtime.output_dir)
        multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            check_keys(config)
            return job(config, directory)
        except Exception as error:
            traceback_log.exception("the run failed")
            if multirun:
                log_file = directory / f"{config_name}.log"
                log.error("job %s failed: %s (traceback in %s)", HydraConfig.get().job.num, error, log_file)
            elif isinstance(error, mistakes) and not wants_traceback:
                sys.exit(fail(readable(error), 2))
            raise
        finally:
            if multirun:
                gc.collect()  # a trainer and its module hold each other, and the pictures: memory would grow by job

    collect_old_objects_less()
    try:
        with composing_once(sys.argv[1:]):
            run()
    except mistakes as error:
        if wants_traceback:
            raise
        sys.exit(fail(readable(error), 2))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if not wants_traceback and str(error) == "No trials are completed yet.":  # Optuna's word, asked for the best
            sys.exit(fail("no trial of the search finished.", 1))
        if wants_traceback or not (mistake := mistake_of_hydra(error)):
            raise
        sys.exit(fail(mistake, 2))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process is about to end: let it do so with its own status
        sys.exit(fail("interrupted.", 130))


def collect_old_objects_less() -> None:
    """Look for garbage among long-lived objects once where Python does it twenty times.

    Imports make half a million objects that stay. To look through them while they come takes an eighth of a small run.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 200)


@contextmanager
def composing_once(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra composes the whole config to read ``hydra.mode``, then again to use it: once will do where nothing sets it.

    It is a quarter of a small run's start.
    """
    from hydra._internal.hydra import Hydra

    configs = (path.read_text("utf-8", errors="ignore") for path in CONF.rglob("*.yaml"))
    original = Hydra.get_mode
    if not any(map(_MAY_SET_MODE.match, arguments)) and not any("MULTIRUN" in text for text in configs):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = original  # type: ignore[method-assign]


def while_composing(error: Exception) -> bool:
    """Whether Hydra's own code raised the error while it read the command line, not a job or a launcher."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "/hydra/_internal/" in Path(frames[-1].filename).as_posix()


def mistake_of_hydra(error: Exception) -> str | None:
    """What the user can correct about an error that Hydra did not foresee; None if it is a bug."""
    if isinstance(error, RuntimeError):
        return missing_plugin(error)
    if isinstance(error, ValueError) and isinstance(cause := error.__cause__, OSError):
        return str(cause)  # of logging's configuration: the run's log cannot be written
    if while_composing(error):
        return (
            f"The command line can't be read ({error}): a group takes the name of one of its choices, "
            "such as model=cae."
        )
    return None


def missing_plugin(error: RuntimeError) -> str | None:
    """What to install, if Hydra's error says that a launcher or sweeper is missing."""
    found = re.fullmatch(r"Unknown plugin class : 'hydra_plugins\.hydra_(\w+)_(launcher|sweeper)\..*'", str(error))
    if not found:
        return None
    return f"The {found[2]} {found[1]} is not installed: pip install -c constraints.txt '.[sweep]' adds it."


def fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def readable(error: Exception) -> str:
    """The error's message; Hydra's and OmegaConf's without their search paths, type names and hints to developers."""
    if isinstance(error, UserError):
        return str(error)
    if mistake := unknown_choice(error) or mistake_of_schema(error):
        return mistake
    technical = (
        "Config search path",
        "full_key:",
        "object_type=",
        "provider=",
        "reference_type=",
        "Set the environ",
    )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith(technical))


def unknown_choice(error: Exception) -> str | None:
    """What to choose instead of a config that a group does not have; None for other errors."""
    from hydra.errors import MissingConfigException

    if not isinstance(error, MissingConfigException) or not error.missing_cfg_file or not error.options:
        return None
    group, _, name = error.missing_cfg_file.rpartition("/")
    close = difflib.get_close_matches(name, error.options, n=1)
    hint = f"did you mean {group}={close[0]}?" if close else f"use {', '.join(error.options)}."
    return f"{group}={name} is unknown: {hint}"


def choices_with(key: str) -> list[str]:
    """The choices of a group that have a key, such as ``data=folder`` for ``data.root``."""
    group, _, name = key.partition(".")
    files = sorted((CONF / group).glob("*.yaml")) if name else []
    return [f"{group}={file.stem}" for file in files if re.search(rf"(?m)^{re.escape(name)}:", file.read_text("utf-8"))]


def places_of(group: str) -> list[str]:
    """Where a group's values stand in a config, if not under its own name, and not everywhere in it."""
    from omegaconf import OmegaConf

    places = set()
    for file in (CONF / group).glob("*.yaml"):
        text = file.read_text("utf-8")
        if (package := re.match(r"# @package (\w[\w.]*)", text)) and package[1] != "_global_":
            values: Any = OmegaConf.to_container(OmegaConf.create(text))
            places |= {f"{package[1]}.{key}" if isinstance(values[key], dict) else package[1] for key in values}
    return sorted(places)


def mistake_of_schema(error: Exception) -> str | None:
    """What OmegaConf refused: an unknown key, or a value of another type than the schema's; None for other errors."""
    from hydra.errors import HydraException
    from omegaconf import errors

    refused = error.__cause__ or error.__context__ if isinstance(error, HydraException) else error
    if not isinstance(refused, errors.OmegaConfBaseException) or refused.parent_node is None or not refused.full_key:
        return None
    where = f"{file[1]}: " if (file := re.match(r"In '(.+)': ", str(error))) else ""
    if isinstance(refused, errors.ConfigKeyError | errors.ConfigAttributeError):
        if having := choices_with(refused.full_key):
            return f"{where}{refused.full_key} is an option of {' and '.join(having)}: add that."
        if places := places_of(refused.full_key):
            there = " or ".join(f"{place}.KEY=VALUE" for place in places)
            return f"{where}The values of {refused.full_key} are keys of {' and '.join(places)}: write {there}."
        return where + unknown_key(refused.full_key, [str(name) for name in refused.parent_node if name != "hydra"])
    if isinstance(refused, errors.InterpolationResolutionError):
        lacking = str(refused).splitlines()[0]
        brought = any(f"'model.{key}'" in lacking for key in ("lr", "weight_decay"))
        advice = " An optimizer's file sets it: see conf/optimizer/muon.yaml." if brought else ""
        return f"{refused.full_key} does not fit: {lacking}.{advice}"
    if not isinstance(refused, errors.ValidationError | errors.ConfigTypeError):
        return None
    key = refused.full_key.partition("[")[0]  # of a list, not of its element
    hint: Any = refused.parent_node._get_root()._metadata.object_type
    for part in key.split("."):
        if not dataclasses.is_dataclass(hint):
            return None
        hint = get_type_hints(hint)[part]
    given = re.fullmatch(r"Error merging override \+*(.*)", str(error), re.DOTALL)
    return f"{where}{given[1] if given else key} does not fit: use {in_words(hint)}."


def in_words(hint: Any) -> str:
    """What fits a type."""
    kinds = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    words |= {list[float]: "a list of numbers, such as [0.1,1]", list[str]: "a list of words, such as [one,two]"}
    kind = float if float in kinds else next(iter(kinds - {NoneType}))
    return words.get(kind, "its keys one by one") + (", or null" if NoneType in kinds else "")


def check_keys(config: DictConfig, prefix: str = "") -> None:
    """Refuse keys that a schema does not have, which Hydra lets pass when they are given as ``+key=value``.

    Raises:
        UserError: there is one.
    """
    kind = config._metadata.object_type
    if not dataclasses.is_dataclass(kind) or config._get_node_flag("struct") is False:
        return
    fields = [field.name for field in dataclasses.fields(kind)]
    for name in map(str, config):
        if name not in [*fields, "hydra"]:
            raise UserError(unknown_key(f"{prefix}{name}", fields))
        if name != "hydra" and isinstance(node := config._get_node(name), type(config)):
            check_keys(node, f"{prefix}{name}.")


def command(job: Callable[[list[str]], int]) -> None:
    """Run ``job(arguments)`` for a command without Hydra and exit with the status it returns.

    The user's mistakes end in one sentence on stderr and status 2, Ctrl-C in status 130.
    """
    collect_old_objects_less()
    try:
        sys.exit(job(sys.argv[1:]))
    except UserError as error:
        sys.exit(fail(str(error), 2))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted.", 130))


def parse(schema: type[T], arguments: list[str], usage: str) -> T:
    """Read ``key=value`` arguments into a dataclass whose fields are the keys.

    Values are taken as they stand and converted to the field's type: no YAML and no interpolation as Hydra has them, so
    that ``images=*.png`` or a path with colons, brackets or ``${`` means itself; a path may begin with ``~``, the home
    folder. ``--help`` or ``-h`` among the arguments prints the usage and exits.

    Args:
        schema: dataclass of str, int, float and bool fields (or those ``| None``); a field without a default must be
            given.
        arguments: what follows the command's name.
        usage: the help, printed as it is.

    Raises:
        UserError: an argument that is no ``key=value``, an unknown or repeated key, a value of another type, or a
            required key that is missing.
    """
    if {"--help", "-h"} & set(arguments):
        print(usage.strip())
        sys.exit(0)
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    hints = get_type_hints(schema)
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            named = f"write checkpoint={argument}" if argument.endswith(".ckpt") and "checkpoint" in fields else ""
            hint = named or f"the keys are {', '.join(fields)}"
            raise UserError(f"{argument!r} is not key=value: {hint} (--help explains the keys).")
        if key not in fields:
            raise UserError(unknown_key(key, fields))
        if key in values:
            raise UserError(f"{key} is given twice: give it once.")
        values[key] = convert(key, at_home(text) if key in PATHS else text, hints[key])
    required = [name for name, field in fields.items() if dataclasses.MISSING is field.default]
    if missing := [f"{name}=..." for name in required if values.get(name, "") == ""]:
        raise UserError(f"{' and '.join(missing)} must be given: --help shows an example.")
    return schema(**values)


def convert(key: str, text: str, hint: Any) -> str | int | float | bool:
    """The value of ``key=text`` as the type that the annotation ``hint`` names (``X`` or ``X | None``).

    Raises:
        UserError: the text is no such value.
    """
    kind = next((kind for kind in get_args(hint) if kind is not NoneType), hint)
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise UserError(f"{key}={text} is neither true nor false: give one of them.")
    try:
        value: str | int | float = kind(text)
    except ValueError:
        value = math.nan
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={text} is no {'whole ' if kind is int else ''}number: give one.")
    return value
