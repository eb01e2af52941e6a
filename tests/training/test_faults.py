"""Faults are done to a run for real: it is killed, its disk fills up, its data disappear.

Afterwards nothing that was written before is lost or damaged, and going on ends in the bits of a training to which
nothing happened. ``faulty.py`` lets each fault strike at a chosen step, so nothing here depends on timing.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import warm
from checkpoints import pictures, write_images
from commands import TINY, run_python, train

from solder_vae.models.checkpoint import read_checkpoint
from solder_vae.training.run_files import read_history

pytestmark = pytest.mark.slow

FAULTY = Path(__file__).parents[1] / "support" / "faulty.py"
COMMON = ("logger.mode=disabled", "trainer.max_epochs=3", "pictures=false", "hydra.run.dir=run")
IN_EPOCH_2 = 5  # 3 steps make an epoch


def train_faulty(fault, nth, *overrides, cwd):
    """A tiny run in ``cwd/run`` with a fault; see faulty.py."""
    return run_python(FAULTY, fault, str(nth), *TINY, *COMMON, *overrides, cwd=cwd)


def go_on(*overrides, cwd):
    result = train(*COMMON, "resume=run/last.ckpt", *overrides, cwd=cwd)
    assert result.returncode == 0, result.stderr


def error_of(result):
    """The one line that a user sees of what stopped a run."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return error


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run without a fault."""
    folder = tmp_path_factory.mktemp("whole")
    result = train_faulty("none", 1, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def written(whole):
    """The checkpoints in the order of their writing, each with its epoch.

    An epoch writes best.ckpt if its loss is the lowest so far, which hangs on a processor's rounding, then last.ckpt.
    """
    losses = read_history(whole / "metrics.csv")["val/loss"]
    return [
        (name, epoch)
        for epoch, loss in enumerate(losses)
        for name in ("best.ckpt", "last.ckpt")
        if name == "last.ckpt" or loss < min(losses[:epoch], default=math.inf)
    ]


def assert_same(run, whole):
    """The same weights, optimizer and numbers to the bit, and the same curve."""
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = read_checkpoint(run / name), read_checkpoint(whole / name)
        assert ours["epoch"] == theirs["epoch"]
        for key, value in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"][key], value), key
        for mine, other in zip(tensors(ours["optimizer_states"]), tensors(theirs["optimizer_states"]), strict=True):
            assert torch.equal(mine, other)
    for name in ("metrics.json", "metrics.csv", "predictions.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def tensors(tree):
    if isinstance(tree, torch.Tensor):
        return [tree]
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return [tensor for item in items for tensor in tensors(item)]


def test_killed_between_checkpoints(whole, tmp_path):
    assert train_faulty("kill", IN_EPOCH_2, cwd=tmp_path).returncode == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "run/last.ckpt")["epoch"] == 0
    go_on(cwd=tmp_path)
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("epoch", [1, 2])
def test_killed_between_a_checkpoint_and_its_row(epoch, whole, tmp_path):
    """The checkpoint has the row that metrics.csv lacks."""
    assert train_faulty("row-kill", epoch, cwd=tmp_path).returncode == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "run/last.ckpt")["epoch"] == epoch - 1
    assert (tmp_path / "run/metrics.csv").read_text().count("train/loss") == (epoch > 1)
    go_on(cwd=tmp_path)
    assert_same(tmp_path / "run", whole)


def test_killed_before_the_first_checkpoint(whole, tmp_path):
    assert train_faulty("kill", 2, cwd=tmp_path).returncode == -signal.SIGKILL
    assert not list((tmp_path / "run").glob("*.ckpt"))
    assert train(*COMMON, cwd=tmp_path).returncode == 0
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("writing", [1, 2, 3, 4])
def test_killed_while_a_checkpoint_is_written(writing, whole, written, tmp_path):
    """By the kernel, with a part of the file on disk: the file of that name is the one before, or none."""
    assert train_faulty("write-kill", writing, cwd=tmp_path).returncode == -signal.SIGXFSZ
    (part,) = (tmp_path / "run").glob(".*.tmp")
    assert 0 < part.stat().st_size <= 1_000_000
    found = {path.name: read_checkpoint(path)["epoch"] for path in (tmp_path / "run").glob("*.ckpt")}
    assert found == dict(written[: writing - 1])
    if "last.ckpt" in found:
        go_on(cwd=tmp_path)
    else:
        assert train(*COMMON, cwd=tmp_path).returncode == 0
    assert_same(tmp_path / "run", whole)


def test_killed_again_and_again(whole, tmp_path):
    """Every attempt gets a few steps farther, or an epoch at least; the killed ones leave no trace in the result."""
    assert train_faulty("kill", 4, cwd=tmp_path).returncode == -signal.SIGKILL
    for nth in (2, 4):  # in the epoch that had begun, and in the one after it
        killed = train_faulty("kill", nth, "resume=run/last.ckpt", cwd=tmp_path)
        assert killed.returncode == -signal.SIGKILL
    go_on(cwd=tmp_path)
    assert_same(tmp_path / "run", whole)


def test_killed_while_the_cache_is_written(tmp_path):
    """A part of the file stays under a temporary name that nothing reads; the next run renders the same images."""
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[2]); import faulty;"
        "from solder_vae.data.synthetic import SyntheticSource;"
        "faulty.PART = 3000; faulty.FAULTS[sys.argv[3]]();"
        "t = SyntheticSource(train=9, val=2, test_normal=2, test_abnormal=9, image_size=16, render_workers=1,"
        "cache_dir=sys.argv[1]).tables();"
        "print(hashlib.sha256(b''.join(t[s].images.tobytes() for s in t)).hexdigest())"
    )

    def build(folder, fault):
        command = [sys.executable, "-c", code, str(folder), str(FAULTY.parent), fault]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    cache = tmp_path / "cache"
    assert build(cache, "write-kill").returncode == -signal.SIGXFSZ
    assert [path.stat().st_size for path in cache.glob(".*.tmp")] == [3000]
    assert not list(cache.glob("*.bin"))
    after, undisturbed = build(cache, "none"), build(tmp_path / "other", "none")
    assert after.returncode == 0, after.stderr
    assert after.stdout == undisturbed.stdout != ""
    assert len(list(cache.glob("*.bin"))) == 1


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """A file system of its own, in memory, as the folder ``run``."""
    run = folder / "run"
    run.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(run)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems can't be mounted here")
    try:
        yield run
    finally:
        subprocess.run(["umount", "--lazy", str(run)], check=True)


@pytest.mark.parametrize(
    ("megabytes", "logger"), [(4, "offline"), (6, "disabled")], ids=["first last.ckpt, W&B too", "third writing"]
)
def test_disk_full(megabytes, logger, whole, written, tmp_path):
    """A real disk too small for the checkpoints, of which there are three of 2.4 MB while one is written."""
    with small_disk(tmp_path, megabytes) as run:
        error = error_of(train(*COMMON, f"logger.mode={logger}", cwd=tmp_path))
        fitting = 1 if megabytes == 4 else 2
        assert f"{written[fitting][0]} can't be written (No space left on device)" in error
        assert not list(run.glob(".*.tmp"))
        found = {path.name: read_checkpoint(path)["epoch"] for path in run.glob("*.ckpt")}
        assert found == dict(written[:fitting])
        subprocess.run(["mount", "-o", "remount,size=200m", str(run)], check=True)
        if megabytes == 4:
            assert train(*COMMON, cwd=tmp_path).returncode == 0
        else:
            go_on(cwd=tmp_path)
        assert_same(run, whole)


def test_writing_fails_where_nothing_can_be_mounted(whole, written, tmp_path):
    """As :func:`test_disk_full`, by a limit on the size of files."""
    error = error_of(train_faulty("write-fail", 3, cwd=tmp_path))
    assert f"{written[2][0]} can't be written (File too large)" in error
    assert not list((tmp_path / "run").glob(".*.tmp"))
    assert read_checkpoint(tmp_path / "run/last.ckpt")["epoch"] == 0
    go_on(cwd=tmp_path)
    assert_same(tmp_path / "run", whole)


def test_folder_that_turns_read_only(whole, tmp_path):
    """Tests may run as root, whom permissions don't stop; the immutable attribute does."""
    probe = tmp_path / "probe"
    probe.mkdir()
    if subprocess.run(["chattr", "+i", str(probe)], capture_output=True, check=False).returncode:
        pytest.skip("no immutable folders here")
    subprocess.run(["chattr", "-i", str(probe)], check=True)
    try:
        error = error_of(train_faulty("freeze", IN_EPOCH_2, cwd=tmp_path))
    finally:
        subprocess.run(["chattr", "-i", str(tmp_path / "run")], check=True)
    assert "metrics.csv can't be written (Operation not permitted): correct that, then go on from" in error
    go_on(cwd=tmp_path)
    assert_same(tmp_path / "run", whole)


def test_folder_that_is_read_only_from_the_start(tmp_path):
    with small_disk(tmp_path, 1) as run:
        subprocess.run(["mount", "-o", "remount,ro", str(run)], check=True)
        error = error_of(train(*COMMON, cwd=tmp_path))
        assert "Read-only file system" in error
        assert not list(run.iterdir())


def test_data_deleted_during_training(tmp_path):
    """The images are in memory by then: the run ends as if they were still there."""
    results = []
    for fault in ("none", "data-gone"):
        folder = tmp_path / fault
        write_images(folder / "data/normal", pictures(60))
        write_images(folder / "data/bridge", pictures(9, seed=1))
        own = (
            "data=folder",
            "few_normals=accept",
            "data.root=data",
            "data.image_size=16",
            "data.batch_size=16",
            "trainer.max_epochs=3",
        )
        result = run_python(FAULTY, fault, "4", *own, *COMMON, cwd=folder)
        assert result.returncode == 0, result.stderr
        results.append((folder / "run/metrics.json").read_bytes())
    assert not (tmp_path / "data-gone/data").exists()
    assert results[0] == results[1]


def test_interrupted_twice(whole, tmp_path):
    """Ctrl-C, and another one while the run shuts down: status 130, and the checkpoint to go on from."""
    command = [warm.python(), FAULTY, "interrupt", str(IN_EPOCH_2), *TINY, *COMMON, "logger.mode=offline"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    last = tmp_path / "run/last.ckpt"
    while process.poll() is None and not last.exists():
        time.sleep(0.01)
    for _ in range(100):  # one of them comes during the shutdown, whenever that is
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
    shown, _ = process.communicate(timeout=100)
    assert process.returncode == 130, shown
    assert shown.endswith("error: interrupted.\n")
    go_on(cwd=tmp_path)
    assert_same(tmp_path / "run", whole)


def test_worker_process_killed(whole, tmp_path):
    result = run_python(FAULTY, "worker-kill", str(IN_EPOCH_2), *TINY, *COMMON, "data.num_workers=2", cwd=tmp_path)
    error = error_of(result)
    # torch words it by who notices first: its signal handler or the queue that stays empty
    assert "is killed by signal: Killed" in error or "exited unexpectedly" in error
    assert "resume=PATH" in error
    go_on(cwd=tmp_path)
    assert_same(tmp_path / "run", whole)


def test_nan_in_one_batch(whole, tmp_path):
    """The run stops before a weight becomes NaN and names the very images."""
    error = error_of(train_faulty("nan", IN_EPOCH_2 - 1, cwd=tmp_path))
    assert "The training loss became nan in epoch 2" in error
    spoilt = (tmp_path / "spoilt.txt").read_text().splitlines()
    log = (tmp_path / "run/train.log").read_text()
    assert f"images of the batch: {', '.join(spoilt)}\n" in log
    assert spoilt[0] in error
    last = read_checkpoint(tmp_path / "run/last.ckpt")
    assert last["epoch"] == 0
    assert all(tensor.isfinite().all() for tensor in tensors([last["state_dict"], last["optimizer_states"]]))
    go_on(cwd=tmp_path)
    assert_same(tmp_path / "run", whole)


def test_clock_going_backwards(whole, tmp_path):
    """Times are only shown; files older than the epoch or newer than now are no harm either."""
    result = train_faulty("clock", 1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert_same(tmp_path / "run", whole)


def test_two_runs_in_one_folder_take_turns(whole, tmp_path):
    command = [warm.python(), "-m", "solder_vae.train", *TINY, *COMMON]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert_same(tmp_path / "run", whole)
    assert (tmp_path / "run/train.log").read_text().count("Everything of this run is in") == 2


@pytest.mark.parametrize(
    "mistake",
    ["resume=nowhere.ckpt", "data.val=0", "threshold.q=1.5", "trainer.accelerator=abc"],
)
def test_a_mistaken_command_leaves_the_result_of_its_folder_alone(mistake, whole):
    before = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file() and path.name != "train.log"}
    error_of(train(*COMMON[:2], f"hydra.run.dir={whole}", mistake, cwd=whole.parent))
    assert {name: (whole / name).read_bytes() for name in before} == before
