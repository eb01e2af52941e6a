"""What a checkpoint's log says of its training."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.table import ImageTable
from solder_vae.models.checkpoint import Checkpoint
from solder_vae.models.detector import Detector
from solder_vae.models.history import TRAINED, Entry, entry
from solder_vae.utils.labels import NORMAL

_HASHED = 1000  # images of a split, evenly spaced: of more, all would have to be read again


def trained_entry(model: Detector, checkpoint: Checkpoint, data: SolderDataModule, root: Any) -> Entry:
    """When a model was trained, how long, and on which data.

    Args:
        model: trained.
        checkpoint: of its best epoch.
        data: its data.
        root: where they lie, None for the embedded data set.
    """
    kind = f"model={model.name} score={model.primary_score} seed={model.seed}"
    steps = checkpoint.get("global_step")
    how = f"{kind}, {checkpoint['epoch'] + 1} epochs, {steps} steps" if steps else kind
    counts = "; ".join(f"{split} {described(table)}" for split, table in data.tables.items())
    where = "the embedded data set" if root is None else str(root)
    name = data_hash(data.tables)
    text = f"trained: {how}, on {where}, hash {name} ({counts})"
    return entry(TRAINED, text, f"trained on {len(data.tables['train'])} good joints, data {name}")


def described(table: ImageTable) -> str:
    """How many images a split has, good and bad."""
    good = table.defects.count(NORMAL)
    return (
        f"{good} good" * bool(good)
        + " and " * bool(0 < good < len(table))
        + f"{len(table) - good} bad" * (good < len(table))
    )


def data_hash(tables: dict[str, ImageTable]) -> str:
    """12 hexadecimal digits that tell data apart: labels and sizes of all images, pixels of up to 1000 a split."""
    digest = blake2b(digest_size=6)
    for split, table in tables.items():
        digest.update(f"{split} {table.defects}".encode())
        digest.update(np.ascontiguousarray(table.native_size, dtype=np.int64).tobytes())
        for row in np.unique(np.linspace(0, max(len(table) - 1, 0), min(len(table), _HASHED)).round().astype(int)):
            digest.update(np.ascontiguousarray(table.images[int(row)]).tobytes())
    return digest.hexdigest()
