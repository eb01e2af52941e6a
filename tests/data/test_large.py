"""More images than fit into memory: the same results as if they did, in bounded memory."""

import csv
import json
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from checkpoints import pictures, write_checkpoint, write_images
from commands import TINY, run_command
from many_images import write_many

from solder_vae.data import photos
from solder_vae.data.datamodule import TableDataset
from solder_vae.data.folder import FolderSource, folder_data
from solder_vae.data.layouts import find_records
from solder_vae.evaluation.pseudo_defects import cut_paste
from solder_vae.inspection import batch as inspection
from solder_vae.inspection import predictions as prediction
from solder_vae.inspection.batch import inspect_into
from solder_vae.inspection.inspector import Inspector, Verdict
from solder_vae.inspection.joints import Joint
from solder_vae.training.loggers import content_digest
from solder_vae.utils.errors import UserError
from solder_vae.utils.threads import in_threads

SIZE = 16
MANY = int(os.environ.get("SOLDER_VAE_MANY", "20000"))
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


@pytest.mark.slow
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


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
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


@pytest.mark.slow
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
        while taken < 10_000:
            taken += 1
            yield taken

    results = in_threads(lambda item: item * item, items())
    for done in range(1, 501):
        assert next(results) == done * done
        assert taken <= done + 120
    results.close()
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 / item, [3, 0, 1]))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells which threads there are")
def test_no_thread_is_left_when_the_last_result_is_there():
    """A thread that the system still ends holds OpenCV's lock; a process forked then would wait for it for ever."""
    picture = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1]
    numbers = set()

    def decode(_):
        numbers.add(threading.get_native_id())
        return cv2.imdecode(picture, cv2.IMREAD_COLOR)

    for _ in range(200):
        list(in_threads(decode, range(32)))
        assert not any(Path(f"/proc/self/task/{number}").exists() for number in numbers)


@pytest.mark.slow
def test_training_is_the_same_to_the_bit(root, tmp_path):
    """Metrics, predictions and weights, with and without worker processes; the search's criterion, too."""
    own = ("data=folder", "few_normals=accept", f"data.root={root}", "criterion=val/pseudo_defect_auroc")
    drop = ("data.train", "data.val", "data.test", "data.render")
    common = [option for option in TINY if not option.startswith(drop)]
    runs = {
        "cached": [],
        "streamed": ["data.cache_mb=0", "data.num_workers=2"],
        "partly": [f"data.cache_mb={30 * EACH}"],
    }
    for name, options in runs.items():
        result = run_command("train", *common, *own, "pictures=false", *options, f"hydra.run.dir={name}", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    for name in ("metrics.json", "predictions.csv"):
        contents = {(tmp_path / run / name).read_bytes() for run in runs}
        assert len(contents) == 1


def with_peak(*arguments, cwd):
    """A command's output, and the most memory it had at any time, in MB; what it frees goes back to the system."""
    module, *rest = arguments
    code = (
        "import atexit, re, runpy, sys; from pathlib import Path\n"
        "peak = lambda: re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "atexit.register(lambda: print('peak', peak(), 'kB'))\n"
        "sys.argv[0] = sys.argv.pop(1)\n"
        "runpy.run_module(sys.argv[0], run_name='__main__')\n"
    )
    # glibc keeps what is freed for itself otherwise, some 50 MB more in one run than in the next.
    give_back = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **give_back}
    command = [sys.executable, "-c", code, f"solder_vae.{module}", *rest]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr, int(re.search(r"peak (\d+) kB", done.stdout)[1]) / 1000


@pytest.mark.slow
def test_very_many_images_train_and_score_in_bounded_memory(tmp_path):
    """20,000, or $SOLDER_VAE_MANY: all are read and split; training takes a fiftieth of its epoch's batches.

    All decoded images of 32 px would take another 3.1 kB each, and twice that while they are split:
    61 MB and 123, where the limit leaves 40.
    """
    write_many(tmp_path / "data", MANY - MANY // 50, MANY // 50)
    started = time.process_time()
    assert len(find_records(tmp_path / "data")) == MANY
    assert time.process_time() - started < 1 + MANY / 10_000  # 2.8 s for 200,000 on an idle core
    output, peak = with_peak(
        "train", "data=folder", "data.root=data", "data.image_size=32", "data.batch_size=128", "data.cache_mb=16",
        "data.fractions=[92,4,4]", "trainer.max_epochs=1", "+trainer.limit_train_batches=0.02", "model=cae",
        "model.width=4", "score=recon", "logger.mode=disabled", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert peak < 685 + 0.0015 * MANY
    counts = re.findall(r"^(?:train|val|test) +(\d+) images", output, re.MULTILINE)
    assert sum(map(int, counts)) == MANY
    assert json.loads((tmp_path / "run/metrics.json").read_text())["test/n_abnormal"] == MANY // 50
    with (tmp_path / "run/predictions.csv").open() as file:
        assert len(list(csv.reader(file))) == 1 + int(counts[2])


def processor_time(work):
    """The least of three."""
    times = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def test_listing_costs_little_more_than_walking_through_the_folders(tmp_path):
    """Some 25 microseconds an image on an idle core, however many there are."""
    write_many(tmp_path / "few", 190, 10)
    write_many(tmp_path / "many", 1900, 100)
    assert len(find_records(tmp_path / "many")) == 2000
    few, many = (processor_time(lambda root=tmp_path / name: find_records(root)) for name in ("few", "many"))
    assert many < 30 * few
    assert many < 10 * processor_time(lambda: sorted((tmp_path / "many").rglob("*.bmp")))  # twice as long, untraced


@pytest.mark.slow
def test_memory_of_an_inspection_is_that_of_its_numbers(tmp_path, monkeypatch):
    """A kilobyte a joint; no picture is kept or drawn but those of the report."""
    monkeypatch.setattr(inspection, "IN_REPORT", 50)
    drawn = []
    monkeypatch.setattr(prediction, "picture", lambda verdict: drawn.append(verdict.score) or {"picture": "x" * 3000})
    inspector = Inspector.load(write_checkpoint(tmp_path / "best.ckpt")[0])
    scores = np.random.default_rng(0).permutation(10_000).astype(float).tolist()
    image, heat = np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), np.float32)

    def verdicts(joints):
        for score, _ in zip(scores, joints, strict=True):
            numbers = dict.fromkeys(inspector.thresholds, score)
            yield Verdict(f"b{score}", score, 1.5, 0.5, numbers, image.copy(), image.copy(), heat.copy())

    monkeypatch.setattr(inspector, "inspect", verdicts)
    tracemalloc.start()
    result = inspect_into(tmp_path, inspector, [Joint("x", Path("x"))] * len(scores), "best.ckpt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1000 * len(scores) + 3e6
    assert [row["score"] for row in result.predictions] == scores
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [entry["score"] for entry in content["predictions"]] == scores
    assert set(range(9950, 10_000)) <= set(drawn)
    assert len(drawn) < 500
