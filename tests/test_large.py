"""More images than fit into memory: the same results as if they did, in bounded memory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import pictures, write_images
from commands import TINY, run_command
from many_images import write_many

from solder_vae.data import photos
from solder_vae.data.datamodule import TableDataset
from solder_vae.data.folder import FolderSource, folder_data
from solder_vae.errors import UserError
from solder_vae.lineage import content_digest
from solder_vae.pseudo_defects import cut_paste
from solder_vae.streams import in_threads

SIZE = 16
MANY = int(os.environ.get("SOLDER_VAE_MANY", "200000"))
EACH = SIZE * SIZE * 3 / 1e6  # MB of a prepared image


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """60 different normals, 9 defects, and a copy of one."""
    root = tmp_path_factory.mktemp("data")
    write_images(root / "normal", pictures(60, size=20))
    write_images(root / "bridge", pictures(9, size=20, seed=1))
    (root / "bridge/copy.png").write_bytes((root / "bridge/003.png").read_bytes())
    return root


def tables(root, cache_mb):
    return FolderSource(root, image_size=SIZE, cache_mb=cache_mb).tables()


@pytest.mark.parametrize("cache_mb", [0, 30 * EACH])
@pytest.mark.parametrize("rows", [3, -1, slice(None), slice(2, 9, 3), [], [5, 1, 5], np.array([4, 0]), "mask"])
def test_images_read_again_are_indexed_like_the_array_they_stand_for(root, cache_mb, rows):
    for split, whole in tables(root, 1024).items():
        streamed = tables(root, cache_mb)[split]
        assert isinstance(whole.images, np.ndarray)
        assert not isinstance(streamed.images, np.ndarray)
        chosen = np.arange(len(whole)) % 3 == 1 if isinstance(rows, str) else rows
        np.testing.assert_array_equal(streamed.images[chosen], whole.images[chosen])
        assert streamed.images[chosen].dtype == np.uint8
        assert (streamed.images.shape, streamed.paths) == (whole.images.shape, whole.paths)


def test_gone_through_they_are_the_same_and_so_is_what_tells_data_sets_apart(root):
    whole, streamed = tables(root, 1024), tables(root, 0)
    for split in whole:
        np.testing.assert_array_equal(list(streamed[split].images), whole[split].images)
    assert content_digest(streamed) == content_digest(whole)
    with pytest.raises(IndexError):
        streamed["test"].images[len(streamed["test"])]


@pytest.mark.parametrize("cache_mb", [0, 30 * EACH, 1024])
def test_each_image_is_decoded_once_to_make_the_tables(root, cache_mb, monkeypatch):
    seen = []
    read = photos.read_image
    monkeypatch.setattr(photos, "read_image", lambda path: seen.append(path) or read(path))
    made = tables(root, cache_mb)
    assert len(seen) == len(set(seen)) == 70
    list(made["train"].images)
    again = len(seen) - 70
    train = len(made["train"])
    assert again == {0: train, 1024: 0}.get(cache_mb, again)
    assert again <= train
    if cache_mb == 30 * EACH:  # bridge/ comes first, so 9 of the 30 are no training images
        assert train - 21 <= again < train


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("fault", "says"), [("gone", "No such file"), ("changed", "has changed since this run")])
def test_files_that_go_or_change_are_named(tmp_path, fault, says, workers):
    write_images(tmp_path / "normal", pictures(30))
    data = folder_data(root=tmp_path, image_size=SIZE, cache_mb=0, batch_size=8, num_workers=workers)
    data.setup()
    path = Path(data.tables["train"].paths[5])
    path.unlink()
    if fault == "changed":
        write_images(tmp_path / "other", pictures(1, seed=7))[0].rename(path)
    with pytest.raises(UserError) as caught:
        list(data.train_dataloader())
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "much"])
def test_a_cache_of_no_size_is_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"data\.cache_mb"):
        FolderSource(tmp_path, cache_mb=value)


def test_batches_are_the_same(root):
    whole, streamed = (TableDataset(tables(root, cache_mb)["train"]) for cache_mb in (1024, 0))
    rows = np.random.default_rng(0).permutation(len(whole)).tolist()
    assert whole.__getitems__(rows)["image"].equal(streamed.__getitems__(rows)["image"])


def test_pasting_batch_by_batch_is_pasting_all():
    images = pictures(9)
    generator = np.random.default_rng(3)
    parts = [cut_paste(images[start : start + 4], generator) for start in (0, 4, 8)]
    np.testing.assert_array_equal(np.concatenate(parts), cut_paste(images, 3))


def test_threads_keep_the_order_and_run_ahead_by_some_only():
    taken = 0

    def items():
        nonlocal taken
        for taken in range(1, 10_001):
            yield taken

    results = in_threads(lambda item: item * item, items())
    for done in range(1, 501):
        assert next(results) == done * done
        assert taken <= done + 120
    results.close()
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 / item, [3, 0, 1]))


@pytest.mark.slow
def test_training_is_the_same_to_the_bit(root, tmp_path):
    """Metrics, predictions and weights, with and without worker processes; the search's criterion, too."""
    own = ("data=folder", f"data.root={root}", "+criterion=val/pseudo_defect_auroc")
    drop = ("data.train", "data.val", "data.test", "data.render")
    common = [option for option in TINY if not option.startswith(drop)]
    for name, options in {
        "cached": [],
        "none": ["data.cache_mb=0", "data.num_workers=2"],
        "some": [f"data.cache_mb={30 * EACH}"],
    }.items():
        result = run_command("train", *common, *own, *options, f"hydra.run.dir={name}", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    for name in ("metrics.json", "predictions.csv"):
        contents = {(tmp_path / run / name).read_bytes() for run in ("cached", "none", "some")}
        assert len(contents) == 1


def with_peak(*arguments, cwd):
    """A command's output, and the most memory it had at any time, in MB."""
    module, *rest = arguments
    code = (
        "import atexit, re, runpy, sys; from pathlib import Path\n"
        "peak = lambda: re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "atexit.register(lambda: print('peak', peak(), 'kB'))\n"
        "sys.argv[0] = sys.argv.pop(1)\n"
        "runpy.run_module(sys.argv[0], run_name='__main__')\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, f"solder_vae.{module}", *rest]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, int(re.search(r"peak (\d+) kB", done.stdout)[1]) / 1000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of very many images, 2 % of them defective."""
    folder = tmp_path_factory.mktemp("many")
    write_many(folder / "data", MANY - MANY // 50, MANY // 50)
    return folder
