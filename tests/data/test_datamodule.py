"""Batches: the same ones whatever the workers, after a resumption, and in every process."""

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from commands import run_python
from noise import Noise
from pytorch_lightning.callbacks import ModelCheckpoint

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.transforms import to_tensor
from solder_vae.utils.errors import UserError


def data_module(train=50, **options):
    data = SolderDataModule(Noise(train), **{"batch_size": 16, **options})
    data.setup()
    return data


def epochs(data, first, last):
    """Batches of some epochs, as Lightning would draw them."""
    loader = data.train_dataloader()
    drawn = []
    for epoch in range(first, last):
        loader.sampler.set_epoch(epoch)
        drawn.append(list(loader))
    return drawn


def same(left, right):
    """Whether two lists (of lists) of batches agree bit by bit."""
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return all(torch.equal(left[key], right[key]) for key in ("image", "label", "index"))


def test_batches_have_the_promised_form():
    data = data_module()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        count = len(batch["index"])
        assert batch["image"].shape == (count, 3, 8, 8)
        assert batch["image"].dtype == torch.float32
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        assert batch["image"].abs().max() <= 1
        assert (batch["label"].dtype, batch["index"].dtype) == (torch.int64, torch.int64)


def test_every_training_image_is_drawn_once_and_as_it_is_or_mirrored():
    data = data_module()
    batches = epochs(data, 0, 1)[0]
    index = torch.cat([batch["index"] for batch in batches])
    assert sorted(index.tolist()) == list(range(50))
    got, stored = torch.cat([batch["image"] for batch in batches]), to_tensor(data.tables["train"].images)[index]
    as_is, mirrored = (got == stored).flatten(1).all(1), (got == stored.flip(3)).flatten(1).all(1)
    assert (as_is ^ mirrored).all()
    assert 10 < mirrored.sum() < 40


def test_validation_and_test_come_in_order_and_unchanged():
    data = data_module()
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        batches = list(loader)
        assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(len(data.tables[split])))
        assert torch.equal(torch.cat([batch["image"] for batch in batches]), to_tensor(data.tables[split].images))
        labels = torch.cat([batch["label"] for batch in batches])
        assert labels.tolist() == data.tables[split].labels.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_change_nothing(workers):
    assert same(epochs(data_module(num_workers=workers), 0, 3), epochs(data_module(), 0, 3))


def test_any_epoch_can_be_reached_directly():
    assert same(epochs(data_module(), 3, 5), epochs(data_module(), 0, 5)[3:])


def test_seeds_and_epochs_differ_and_0_is_a_seed():
    drawn = {(seed, epoch): epochs(data_module(seed=seed), epoch, epoch + 1) for seed in range(3) for epoch in range(3)}
    orders = {tuple(torch.cat([batch["index"] for batch in one[0]]).tolist()) for one in drawn.values()}
    assert len(orders) == 9
    assert same(drawn[0, 1], epochs(data_module(seed=0), 1, 2))


@pytest.mark.slow
def test_batches_are_the_same_in_another_process():
    code = (
        "import sys, json; sys.path[:0] = ['tests/data', 'tests/support']\n"
        "from test_datamodule import *\n"
        "print(json.dumps([[b['index'].tolist(), b['image'].double().sum().item()] for b in "
        "epochs(data_module(), 2, 3)[0]]))"
    )
    done = run_python("-c", code, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    here = [[b["index"].tolist(), b["image"].double().sum().item()] for b in epochs(data_module(), 2, 3)[0]]
    assert json.loads(done.stdout) == here


@pytest.mark.parametrize(
    ("images", "sizes"), [(48, [16] * 3), (50, [16] * 3 + [2]), (49, [16] * 3), (1, [1]), (5, [5])]
)
def test_last_batch_is_kept_unless_it_is_a_single_image(images, sizes):
    assert [len(batch["index"]) for batch in epochs(data_module(images), 0, 1)[0]] == sizes


def test_batch_size_one_keeps_all_images():
    assert len(epochs(data_module(7, batch_size=1), 0, 1)[0]) == 7


def test_loaders_leave_the_global_random_state_alone():
    data = data_module()
    before = torch.get_rng_state(), random.getstate()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_source_is_asked_once():
    data = data_module()
    data.setup("fit")
    data.setup("test")
    assert data.source.made == 1


@pytest.mark.parametrize(
    ("option", "key"), [({"batch_size": 0}, "batch_size"), ({"num_workers": -1}, "num_workers"), ({"seed": -1}, "seed")]
)
def test_numbers_out_of_range_are_refused(option, key):
    with pytest.raises(UserError, match=key):
        SolderDataModule(Noise(), **option)


def test_an_image_is_augmented_the_same_whatever_its_batch():
    def of_epoch(batch_size):
        batches = epochs(data_module(batch_size=batch_size), 1, 2)[0]
        index = torch.cat([batch["index"] for batch in batches])
        return torch.cat([batch["image"] for batch in batches])[index.argsort()]

    assert torch.equal(of_epoch(10), of_epoch(25))


def test_a_batch_takes_few_milliseconds():
    """Of processor time."""
    data = SolderDataModule(Noise(640, size=64), batch_size=64)
    data.setup()
    loader = data.train_dataloader()
    list(loader)
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        batches = len(list(loader))
        best = min(best, (time.process_time() - start) / batches)
    assert best < 10e-3  # 2 ms on an idle core


class Recorder(pl.LightningModule):
    """Learns a little and remembers its batches, in training by epoch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3 * 8 * 8, 1)
        self.seen = {}

    def training_step(self, batch, _):
        self.seen.setdefault(self.current_epoch, []).append({key: value.clone() for key, value in batch.items()})
        return self.layer(batch["image"].flatten(1)).square().mean()

    def validation_step(self, batch, _):
        self.log("val/loss", self.layer(batch["image"].flatten(1)).square().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


def fit(folder, max_epochs, resume=None, on_train_end=False, **trainer):
    model = Recorder()
    keep = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=on_train_end, enable_version_counter=False)
    pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[keep],
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    ).fit(model, SolderDataModule(Noise(), batch_size=16, seed=1), ckpt_path=resume)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("on_train_end", [False, True])
def test_resumed_training_goes_on_with_the_same_batches_to_the_same_weights(tmp_path, on_train_end):
    whole = fit(tmp_path / "whole", 5, on_train_end=on_train_end)
    fit(tmp_path / "cut", 2, on_train_end=on_train_end)
    rest = fit(tmp_path / "cut", 5, tmp_path / "cut" / "last.ckpt", on_train_end)
    assert list(rest.seen) == [2, 3, 4]
    assert all(same(rest.seen[epoch], whole.seen[epoch]) for epoch in rest.seen)
    assert all(map(torch.equal, rest.parameters(), whole.parameters()))


def test_lightning_draws_what_the_sampler_says(tmp_path):
    """Lightning sets the epoch, and does not put a sampler of its own in place."""
    seen = fit(tmp_path, 3).seen
    assert same(list(seen.values()), epochs(data_module(seed=1), 0, 3))


def test_overfit_batches_draws_the_same_plain_images(tmp_path):
    seen = fit(tmp_path, 2, overfit_batches=1, limit_val_batches=0).seen
    assert same(seen[0], seen[1])
    assert torch.equal(seen[0][0]["image"], to_tensor(Noise().tables()["train"].images[:16]))
