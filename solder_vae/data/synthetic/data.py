"""What ``conf/data/synthetic.yaml`` names: the embedded set as batches."""

from __future__ import annotations

from typing import Any

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.synthetic.source import SyntheticSource


def synthetic_data(batch_size: int = 64, num_workers: int = 0, seed: int = 0, **settings: Any) -> SolderDataModule:
    """The embedded set behind the batches of :class:`~solder_vae.data.datamodule.SolderDataModule`.

    Args:
        batch_size: images in a batch.
        num_workers: processes that prepare batches.
        seed: of the images themselves, of their order and of the augmentation.
        settings: the other arguments of :class:`~solder_vae.data.synthetic.source.SyntheticSource`.

    Raises:
        UserError: a value out of its range.
    """
    return SolderDataModule(SyntheticSource(seed=seed, **settings), batch_size, num_workers, seed)
