"""Which checkpoint decides: the one that was read at the start, whatever becomes of its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.records import digest
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import printable


@dataclass(frozen=True)
class Origin:
    """The checkpoint of a running service.

    Attributes:
        path: as it was given.
        sha256: of what was read.
        stamp: of the file as it was then.
    """

    path: str
    sha256: str
    stamp: tuple[int, int, int] | None

    def to_dict(self) -> dict[str, Any]:
        """For /health: ``replaced`` says whether the file is another one by now."""
        return {"checkpoint": printable(self.path), "sha256": self.sha256, "replaced": stamp(self.path) != self.stamp}


def stamp(path: str) -> tuple[int, int, int] | None:
    """What changes with a file: its number, size and time of change; None if it is not there."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def load(path: str, device: str | torch.device = "cpu") -> tuple[Inspector, Origin]:
    """The inspector of a checkpoint, and what was read.

    Raises:
        UserError: the file cannot be used, or was changed meanwhile.
    """
    before = Origin(path, digest(Path(path)), stamp(path))
    inspector = Inspector.load(path, device)
    if digest(Path(path)) != before.sha256:
        raise UserError(f"{path} was changed while it was read: start again when it is whole.")
    return inspector, before
