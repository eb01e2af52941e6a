"""What ``conf/data/synthetic.yaml`` names: the embedded set as batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from solder_vae.data.batches import check_batches
from solder_vae.data.synthetic.source import SyntheticSource

if TYPE_CHECKING:
    from solder_vae.data.datamodule import SolderDataModule


def synthetic_data(
    batch_size: int = 32,
    num_workers: int = 0,
    seed: int = 0,
    transforms: Sequence[Any] | None = None,
    **source: Any,
) -> SolderDataModule:
    """What ``conf/data/synthetic.yaml`` makes; :class:`~.source.SyntheticSource` takes the keys not listed here."""
    made = SyntheticSource(seed=seed, **source)
    check_batches(batch_size, num_workers, seed)
    from solder_vae.data.datamodule import SolderDataModule  # here, since it brings torch

    return SolderDataModule(made, batch_size, num_workers, seed, transforms)
