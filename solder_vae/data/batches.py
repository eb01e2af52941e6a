"""What makes batches needs of its source and its numbers; apart, since this needs no torch, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from solder_vae.data.table import ImageTable
from solder_vae.utils.checks import check_whole_number
from solder_vae.utils.errors import UserError


class Source(Protocol):
    """Where images come from."""

    def tables(self) -> dict[str, ImageTable]:
        """The tables "train", "val" and "test"; "train" and "val" hold normals only.

        A fourth, "known", holds defects that may be learnt from, where there are some.
        """
        ...


def check_batches(batch_size: int, num_workers: int, seed: int) -> None:
    """Check the numbers of a :class:`~solder_vae.data.datamodule.SolderDataModule`.

    Raises:
        UserError: one is too small.
    """
    check_whole_number("data.batch_size", batch_size, 1)
    check_whole_number("data.num_workers", num_workers, 0)
    check_whole_number("data.seed", seed, 0)


def check_transforms(transforms: object, kinds: tuple[type, ...]) -> None:
    """Check that augmentations are a list of things of these kinds.

    Raises:
        UserError: they are not.
    """
    fits = isinstance(transforms, Sequence) and all(isinstance(each, kinds) for each in transforms)
    if isinstance(transforms, str) or not fits:
        raise UserError(f"data.transforms={transforms} does not fit: use a list of albumentations.")
