"""What ``conf/data/synthetic.yaml`` names: the embedded set as batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.synthetic.source import SyntheticSource


def synthetic_data(
    batch_size: int = 32,
    num_workers: int = 0,
    seed: int = 0,
    transforms: Sequence[Any] | None = None,
    **source: Any,
) -> SolderDataModule:
    """What ``conf/data/synthetic.yaml`` makes; :class:`~.source.SyntheticSource` takes the keys not listed here."""
    return SolderDataModule(SyntheticSource(seed=seed, **source), batch_size, num_workers, seed, transforms)
