"""Modules outside this package that define models, scores or rules for a command (this module imports no torch)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from solder_vae.utils.errors import UserError

_named: set[str] = set()

GROUP = "solder_vae.plugins"  # entry points of installed distributions, by name
SCRIPTS = (".pt", ".ts")  # endings of TorchScript files


def import_plugins(names: str | Iterable[str]) -> None:
    """Import modules, so that the classes they define are registered. A checkpoint never causes such an import.

    Args:
        names: modules in the working directory or installed, TorchScript files, or names of entry points in the group
            ``solder_vae.plugins``; as one string, separated by commas, with or without brackets.

    Raises:
        UserError: a module is not there, or fails when it is imported.
    """
    if isinstance(names, str):
        names = [name.strip() for name in names.strip("[] ").split(",") if name.strip()]
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:  # a console script does not look there
        sys.path.insert(0, here)
    for name in names:
        if name.endswith(SCRIPTS):  # imported by nobody, but code all the same
            _named.add(str(Path(name).resolve()))
            continue
        found = entry_points(group=GROUP, name=name)
        module = next(iter(found)).module if found else name
        _named.add(module)
        try:
            if not all(part.isidentifier() for part in module.split(".")):
                raise UserError(
                    f"plugins={name} is no module's name: use one such as my_models, without a path or .py."
                )
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module.partition(".")[0] and error.name != module:
                raise UserError(f"plugins={name} needs {error.name}, which is not installed.") from error
            raise UserError(
                f"plugins={name}: there is no module {module} in {here} or among the installed ones."
            ) from error
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            why = " ".join(str(error).split())
            raise UserError(f"plugins={name} fails when it is imported: {type(error).__name__}: {why}") from error


def is_named(name: str) -> bool:
    """Whether the user has named a module, by :func:`import_plugins`, or a file: what a checkpoint may then use."""
    return name in _named
