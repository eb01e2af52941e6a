"""Two real processes (gloo on the CPU) against one: the same weights, the same numbers, and an end when one dies."""

import contextlib
import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import warm
from commands import TINY, train
from documented import compose_command
from recording import BATCH, TRAIN, VAL, Pictures, trained

from solder_vae.data.datamodule import EpochSampler, SolderDataModule, TableDataset
from solder_vae.models.autoencoder import CAE
from solder_vae.models.vae import BetaVAE
from solder_vae.training.checks import check_tables
from solder_vae.training.data_parallel import fit_on_ranks
from solder_vae.training.trainer import fit
from solder_vae.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")


def parts_of(folder):
    """The weights, running statistics and reference gradients at a run's end."""
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    groups = {"weights": [], "running": [], "reference": []}
    for name, value in state.items():
        if value.is_floating_point():
            groups[name.split(".")[0] if "reference" in name else "running" if "running" in name else "weights"].append(
                value.double().flatten()
            )
    return {name: torch.cat(values) for name, values in groups.items()}


def curves(folder):
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


CASES = [(CAE, 0.0), (BetaVAE, 0.03)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].__name__} alpha={case[1]}")
def both(request, tmp_path_factory):
    """The folders of the same run of 20 steps in one process and in two."""
    model, alpha = request.param
    folder = tmp_path_factory.mktemp("both")
    return [trained(how, folder / how.__name__, model, epochs=4, alpha=alpha, width=8) for how in (fit, fit_on_ranks)]


@pytest.mark.slow
def test_two_processes_train_to_the_weights_of_one(both):
    """In double precision: what differs is the mathematics, not the rounding, which Adam would blow up."""
    one, two = both
    assert torch.load(two / "last.ckpt", weights_only=True)["global_step"] == 20
    ours = parts_of(two)
    for name, expected in parts_of(one).items():
        assert (ours[name] - expected).abs().max() < 1e-5, name
    assert len(curves(one)) == len(curves(two))
    for ours, expected in zip(curves(two), curves(one), strict=True):
        assert ours == pytest.approx(expected, rel=1e-6, abs=1e-9)


def assert_same_bits(folder):
    """Both processes ended with them."""
    first, second = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert first["metrics"] == second["metrics"]
    assert first["state"].keys() == second["state"].keys()
    assert all(torch.equal(value, second["state"][name]) for name, value in first["state"].items())


@pytest.mark.slow
def test_all_processes_end_with_the_same_bits(both):
    assert_same_bits(both[1])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_in_other_precisions_too_all_processes_end_with_the_same_bits(precision, tmp_path):
    assert_same_bits(
        trained(fit_on_ranks, tmp_path / "run", BetaVAE, epochs=2, precision=precision, alpha=0.03, width=8)
    )


@pytest.mark.slow
def test_processes_share_each_batch_and_repeat_no_image(both):
    one, first, second = (
        torch.load(path, weights_only=True)["seen"]
        for path in (both[0] / "rank0.pt", both[1] / "rank0.pt", both[1] / "rank1.pt")
    )
    assert len(one["train"]) == 20
    for split in ("train", "val"):
        shares = list(zip(first[split], second[split], strict=True))
        assert [sorted([*a, *b]) for a, b in shares] == [sorted(batch) for batch in one[split]]
    assert sorted(row for batch in one["val"][:2] for row in batch) == list(range(VAL))


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("nan", UserError, "training loss became nan in epoch 1, step 4"),
        ("killed", UserError, r"One of the 2 training processes was killed \(SIGKILL\)"),
        ("raise", RuntimeError, "ValueError: a bug"),
    ],
)
def test_what_ends_one_process_ends_the_training(fault, error, message, tmp_path):
    with pytest.raises(error, match=message):
        trained(fit_on_ranks, tmp_path / "run", CAE, fault=fault, width=8)


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("images", range(12, 26))
def test_every_image_is_dealt_out_once_and_to_all_ranks_equally_often(images, ranks):
    batch, dataset = 12, TableDataset(Pictures(images, 1).tables()["train"])
    samplers = [EpochSampler(dataset, ranks, rank, seed=3, batch_size=batch) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(2)
    shares = [[draw.row for draw in sampler] for sampler in samplers]
    assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
    steps = {-(-len(share) // (batch // ranks)) for share in shares}
    assert len(steps) == 1, "a rank would wait for the others for ever"
    rows = [row for share in shares for row in share]
    assert len(set(rows)) == len(rows)
    left_out = images - len(rows)
    assert left_out == (images % batch if images % batch < max(2, ranks) else 0)


def config_of(*overrides):
    (config,) = compose_command("solder_vae.train", list(overrides))
    return config


@pytest.mark.slow
def test_fewer_images_than_processes_are_refused():
    data = SolderDataModule(Pictures(35, 3), batch_size=8)
    data.setup()
    data.tables["test"] = data.tables["val"]
    check_tables(data, config_of("trainer=ddp", "trainer.devices=2", "few_normals=accept"))
    with pytest.raises(UserError, match="There are 3 val images: a run needs 4 or more"):
        check_tables(data, config_of("trainer=ddp", "trainer.devices=4"))


# whole commands -------------------------------------------------------------------------------------------------------

DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=64-true", "logger.mode=disabled")


def numbers(folder):
    content = json.loads((folder / "metrics.json").read_text())
    return {key: value for key, value in content.items() if isinstance(value, int | float)}


@pytest.mark.slow
def test_a_command_on_two_processes_goes_on_and_ends_in_the_numbers_of_one(tmp_path):
    for name, *options in (
        ("whole", "trainer.devices=1", "trainer.max_epochs=3"),
        ("two", "trainer.devices=2", "trainer.max_epochs=2"),
        ("rest on two", "trainer.devices=2", "trainer.max_epochs=3", "resume=two/last.ckpt"),
        ("rest on one", "trainer.devices=1", "trainer.max_epochs=3", "resume=two/last.ckpt"),
    ):
        result = train("scheduler=plateau", *DDP, *options, f"hydra.run.dir='{name}'", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("epoch 2/") == (name in ("whole", "two"))
    for rest in ("rest on two", "rest on one"):
        assert numbers(tmp_path / rest) == pytest.approx(numbers(tmp_path / "whole"), rel=1e-4, abs=1e-6)
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("whole", "two")]
    assert files[0] == files[1]


FRESH = """
import multiprocessing.spawn, runpy
multiprocessing.spawn.set_executable({!r})
runpy.run_module("solder_vae.train", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def running(request, tmp_path):
    """A command whose two processes are training, in a group of its own as a terminal would have it.

    For Ctrl-C the command is in an interpreter of its own, which gets the signal once; its ranks are forked, too.
    """
    fresh = [sys.executable, "-c", FRESH.format(str(warm.python()))]
    start = fresh if request.param else [warm.python(), "-m", "solder_vae.train"]
    command = [*start, *TINY, *DDP, "trainer.max_epochs=100000", "hydra.run.dir=run"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        process_group=0, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        wait_until(lambda: (tmp_path / "run/last.ckpt").exists() or process.poll() is not None, 600)
        assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(happened, seconds):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.2)


def members(group):
    """The processes of a group that have not ended, each with its command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, number = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_bytes()
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize(
    ("victim", "running"),
    [("a rank", False), ("the command", False), ("all by Ctrl-C", True)],
    ids=["a rank", "the command", "all by Ctrl-C"],
    indirect=["running"],
)
def test_no_process_is_left_behind(victim, running):
    group = running.pid
    ranks = [pid for pid, line in members(group).items() if b"spawn_main" in line]
    assert len(ranks) == 2
    if victim == "a rank":
        os.kill(ranks[0], signal.SIGKILL)
        assert running.wait(60) == 2
        stderr = running.stderr.read()
        assert "Traceback" not in stderr
        (error,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert "was killed (SIGKILL)" in error
    elif victim == "the command":
        running.kill()
        running.wait(60)
    else:
        os.killpg(group, signal.SIGINT)
        assert running.wait(60) == 130
        assert "Traceback" not in running.stderr.read()
    wait_until(lambda: not members(group), 300)


def test_data_survive_the_way_to_another_process():
    data = SolderDataModule(Pictures(TRAIN, VAL), batch_size=BATCH)
    data.setup()
    copy = pickle.loads(pickle.dumps(data))
    for mine, theirs in zip(copy.train_dataloader(), data.train_dataloader(), strict=True):
        assert torch.equal(mine["image"], theirs["image"])
