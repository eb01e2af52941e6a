"""What the files of ``conf/data`` name: functions that make the batches of a source (imports no torch at first)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from solder_vae.data.batches import Source, check_batches

if TYPE_CHECKING:
    from solder_vae.data.datamodule import SolderDataModule


def data_of(kind: Callable[..., Source]) -> Callable[..., SolderDataModule]:
    """The function for a kind of source, which takes the keys that a :class:`SolderDataModule` does not take."""

    def data(
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        transforms: Sequence[Any] | None = None,
        **source: Any,
    ) -> SolderDataModule:
        made = kind(seed=seed, **source)
        check_batches(batch_size, num_workers, seed)
        from solder_vae.data.datamodule import SolderDataModule  # here, since it brings torch

        return SolderDataModule(made, batch_size, num_workers, seed, transforms)

    return data
