"""Rendered sets on disk: whole or not at all.

A cache file is one line of identity, one line with the SHA-256 of the rest, and the rest: an uncompressed ``.npz``.
It is written under a temporary name and moved into place, so a reader sees the old file, the new one, or none; what
does not match its checksum or its identity is treated as absent and rendered again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.utils.files import atomic_file

Arrays = dict[str, NDArray[np.generic]]

log = logging.getLogger(__name__)

# Modules that do not change how the pictures look; all other modules here do.
_NOT_GENERATOR = {
    "__init__.py", "__main__.py", "layout.py", "factors.py", "cache.py", "data.py", "sheet.py",
    "source.py", "worker.py",
}  # fmt: skip


@cache
def generator_version() -> str:
    """The renderer's version: a hash of its source and of the versions of NumPy and OpenCV."""
    digest = hashlib.sha256(f"numpy {np.__version__} opencv {cv2.__version__}".encode())
    here = Path(__file__).parent
    modules = [
        path for path in sorted(here.rglob("*.py")) if path.name not in _NOT_GENERATOR and path.parent.name != "board"
    ]
    for path in [*modules, here.parent / "transforms.py"]:  # the latter crops and resizes what is cached
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def default_directory() -> Path:
    """Where caches go unless told otherwise: ``$SOLDER_VAE_CACHE``, else ``solder_vae`` in the user's cache."""
    if told := os.environ.get("SOLDER_VAE_CACHE"):
        return Path(told)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "solder_vae"


def load(path: Path, identity: str) -> Arrays | None:
    """Read a cache file.

    Args:
        path: of the file.
        identity: what it must hold, as given to :func:`store`.

    Returns:
        The arrays, or None where there is no file, or one that is stale, truncated or altered.
    """
    try:
        first, second, body = path.read_bytes().split(b"\n", 2)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("cache file %s is unreadable (%s): rendering again.", path, error)
        return None
    if first.decode(errors="replace") != identity or second.decode(errors="replace") != _checksum(body):
        log.warning("cache file %s is damaged or stale: rendering again.", path)
        return None
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def store(path: Path, identity: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write a cache file in one move. A directory that can't be written causes a warning."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    body = buffer.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_bytes(f"{identity}\n{_checksum(body)}\n".encode() + body)
    except OSError as error:
        log.warning("the rendered images can't be cached in %s (%s): going on without a cache.", path.parent, error)


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
