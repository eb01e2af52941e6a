"""From tables of images to batches.

A *source* makes the tables (:class:`~solder_vae.data.batches.Source`); :class:`SolderDataModule` deals out batches.
Each ``conf/data/NAME.yaml`` names one function that takes all of the group's keys, so that they stay flat
for the user (``data.root=PATH data.batch_size=32``), and returns a SolderDataModule with its source: see
:func:`solder_vae.data.configured.data_of`.

Order and augmentation of the training images depend on (seed, epoch, image) alone. They do not depend on the number
of workers or ranks, nor on what ran before. So epoch e of a resumed run is the same as epoch e of one that was never
interrupted. A run resumed in the middle of an epoch starts that epoch's batches anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from solder_vae.data.batches import Source, check_batches
from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import augment, augmentation, to_tensor
from solder_vae.utils.distributed import rank, world_size

Batch = dict[str, Tensor]


class SampleKey(NamedTuple):
    """One training image, drawn in one epoch: what the sampler hands to the data set."""

    epoch: int
    row: int


class TableDataset(Dataset[Batch]):
    """Makes whole batches of a table's images at once.

    Args:
        table: the images.
        compose: augments the images of a :class:`SampleKey`; images asked for by plain row number are not augmented.
        seed: of the augmentation.
    """

    def __init__(self, table: ImageTable, compose: Any = None, seed: int = 0) -> None:
        self.table = table
        self.compose = compose
        self.seed = seed
        self.labels = torch.from_numpy(table.labels)

    def __len__(self) -> int:
        return len(self.table)

    def __getitems__(self, items: Sequence[SampleKey] | Sequence[int]) -> Batch:
        """One batch, as :class:`SolderDataModule` describes it."""
        rows = [item.row if isinstance(item, SampleKey) else item for item in items]
        images = self.table.images[rows]
        draws = [item for item in items if isinstance(item, SampleKey)]
        if self.compose is not None and draws:
            images = augment(images, self.compose, [(self.seed, *draw) for draw in draws])
        index = torch.tensor(rows)
        return {"image": to_tensor(images), "label": self.labels[index], "index": index}


def images_dealt(images: int, batch_size: int, world_size: int) -> int:
    """How many training images an epoch has: all, or all but a last batch that is too small for the ranks."""
    last = images % batch_size
    return images - last if last < max(2, world_size) and last < images else images


class EpochSampler(DistributedSampler[SampleKey]):
    """Shuffles by (seed, epoch), deals the images out to the ranks and tells the data set which epoch it is.

    Each global batch of ``batch_size`` images is dealt out one image at a time, and so is the smaller last batch. No
    image comes twice. The last batch is left out if not every rank would get an image, or if it holds a single one.

    A DistributedSampler, because Lightning leaves those as they are and calls ``set_epoch`` on them before
    every epoch, resumed ones included.
    """

    def __init__(
        self, dataset: TableDataset, num_replicas: int = 1, rank: int = 0, seed: int = 0, batch_size: int = 1
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed=seed)
        self.images = len(dataset)
        dealt = images_dealt(self.images, batch_size, num_replicas)
        self.mine = range(rank, dealt, num_replicas)  # places in the epoch's order

    def __len__(self) -> int:
        return len(self.mine)

    def __iter__(self) -> Iterator[SampleKey]:
        # A hash of the two, not their sum as in DistributedSampler: seed 0's epoch 1 is not seed 1's epoch 0.
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.images)
        return (SampleKey(self.epoch, row) for row in order[self.mine].tolist())


class SolderDataModule(pl.LightningDataModule):
    """Training, validation and test batches of one source.

    Each batch is a dict: "image" float32 ``(B, 3, S, S)`` in [-1, 1], "label" int64 ``(B,)`` (1 = abnormal)
    and "index" int64 ``(B,)``, the row in that split's table. Validation and test keep the table's order.

    On several ranks, B is a rank's share of ``batch_size``: of the global batch's images 0, 1, 2, ... rank r has
    r, r + ranks, ... in training and validation. Every image is on one rank, and the test is not shared out.

    The last training batch may be smaller. It is left out only if it holds a single image (or fewer than there are
    ranks), since the statistics of that image alone would enter the batch norms' running averages just before
    validation. Another image is left out each epoch.

    Args:
        source: makes the tables, at the first :meth:`setup`.
        batch_size: images in a batch, that of all ranks together.
        num_workers: processes that prepare batches. The images are decoded once and kept in memory, so 0
            (none) is fastest on a CPU.
        seed: of order and augmentation, from 0 up.
        transforms: albumentations for training images, by default the paper's horizontal flip. They see
            uint8 images and keep shape and type. An empty list switches augmentation off.

    Attributes:
        tables: "train", "val" and "test", and "known" where there are known defects, after :meth:`setup`.

    Raises:
        UserError: a number is too small, or a transform changes shape or type.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        transforms: Sequence[Any] | None = None,
    ) -> None:
        super().__init__()
        check_batches(batch_size, num_workers, seed)
        self.source = source
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.augmentation = augmentation(transforms)
        self.tables: dict[str, ImageTable] = {}

    def setup(self, stage: str | None = None) -> None:
        """Let the source make its tables; only once, whatever the stage."""
        if not self.tables:
            self.tables = self.source.tables()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled and augmented training batches."""
        dataset = TableDataset(self.tables["train"], self.augmentation, self.seed)
        return self._loader(dataset, EpochSampler(dataset, world_size(), rank(), self.seed, self.batch_size))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation batches in the table's order."""
        return self._loader(TableDataset(self.tables["val"]), range(len(self.tables["val"]))[rank() :: world_size()])

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test batches in the table's order."""
        return self._loader(TableDataset(self.tables["test"]), range(len(self.tables["test"])))

    def _loader(self, dataset: TableDataset, sampler: EpochSampler | range) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size // world_size(),
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=_as_is,
            pin_memory=torch.cuda.is_available(),
            # A generator of its own: otherwise every pass would draw a number from torch's global state, and the
            # model's noise would depend on the number of passes.
            generator=torch.Generator().manual_seed(self.seed),
        )


def _as_is(batch: Any) -> Any:
    return batch
