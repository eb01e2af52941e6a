"""Lineage in Weights & Biases: which data a run used, told by their content, and the model it made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from solder_vae.data.table import ImageTable


def content_digest(tables: Mapping[str, ImageTable]) -> str:
    """SHA-256 of what the tables hold: pixels as the network sees them, defect types and splits, but no paths."""
    digest = hashlib.sha256()
    for split in sorted(tables):
        table = tables[split]
        digest.update(json.dumps([split, list(table.images.shape), list(table.defects)]).encode())
        for image in table.images:
            digest.update(image.tobytes())
    return digest.hexdigest()


def log_lineage(
    logger: WandbLogger, tables: Mapping[str, ImageTable], checkpoint: Path, facts: Mapping[str, Any]
) -> None:
    """Say that the run used these data and made this checkpoint.

    The data artefact is named by the digest of its content and holds no image, only what its splits are made of; runs
    on the same data use the same version of it. The checkpoint, about 10 MB with its optimiser's state, is not copied:
    an offline run refers to the file where it lies, so sync before the folder is moved.

    Args:
        logger: the run's.
        tables: the run's data.
        checkpoint: ``best.ckpt``.
        facts: of the run, flat: model, score, beta, seed and results, for the artefact's page.
    """
    import wandb

    digest = content_digest(tables)
    counts = {split: len(table) for split, table in tables.items()}
    data = wandb.Artifact(f"data-{digest[:16]}", "dataset", metadata={"sha256": digest, **counts})
    with data.new_file("splits.json") as file:
        json.dump({split: list(zip(table.paths, table.defects, strict=True)) for split, table in tables.items()}, file)
    run = logger.experiment
    # As use_artifact, which refuses when offline (syncing fills it in) and waits for the server when online.
    run._log_artifact(data, is_user_created=True, use_after_commit=True)
    model = wandb.Artifact(f"{facts['model']}-{facts['score']}", "model", metadata={**facts, "data": digest})
    model.add_file(str(checkpoint), policy="immutable")
    run.log_artifact(model)
