"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from solder_vae.utils.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; renamed to ``path`` when the block ends without error.

    A reader of ``path`` sees the old file or the new one, never a part of one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to fill; it is renamed to ``path`` when the block ends without an error.

    Raises:
        UserError: ``path`` is a file or a folder that holds something, or cannot be made.
    """
    check_new(path)
    path = path.resolve()  # "." has no name
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"out={path} cannot be made ({error.strerror}): give another folder.") from error
    try:
        yield temporary
        if path.exists():
            path.rmdir()  # empty, else this fails
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(path: Path) -> None:
    """Check, before the work begins, that output to the folder ``path`` overwrites nothing.

    Raises:
        UserError: ``path`` is a file, or a folder that holds something.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise UserError(f"out={path} exists already, and nothing is overwritten: give a new folder.")


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Let one process at a time into the block. Does nothing on file systems without locks."""
    with contextlib.ExitStack() as stack:
        try:
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.with_suffix(".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass  # every process does the work itself then: slower, not wrong
        yield
