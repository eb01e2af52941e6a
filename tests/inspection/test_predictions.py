"""An inspection by several threads or processes: the same files as by one, and an end when one dies."""

import os
import signal

import pytest
import warm
from checkpoints import pictures, with_looks, write_checkpoint, write_images
from commands import children_of

from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.joints import find_joints
from solder_vae.inspection.predictions import inspect_on_processes
from solder_vae.predict import run as predict
from solder_vae.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    """A checkpoint and a folder of images, of which two cannot be read."""
    folder = tmp_path_factory.mktemp("inspected")
    paths = write_images(folder / "images", pictures(150))
    for index in (10, 120):
        paths[index].write_bytes(b"no picture")
    return with_looks(write_checkpoint(folder / "best.ckpt")[0], pictures(60, seed=3)), folder / "images"


@pytest.mark.slow
def test_an_inspection_by_several_threads_writes_the_same_files(inspected, tmp_path):
    checkpoint, images = inspected
    for threads in (1, 4):
        options = [f"checkpoint={checkpoint}", f"images={images}", f"out={tmp_path / str(threads)}"]
        assert predict([*options, f"threads={threads}"]) == 3
    for name in ("predictions.csv", "predictions.json", "report.html"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes(), name


def test_threads_share_the_weights_and_not_the_hooks(inspected):
    inspector = Inspector.load(inspected[0])
    inspector.share_out(2)
    model, twin = (inspector._idle.get() for _ in range(2))
    assert [id(each) for each in model.parameters()] == [id(each) for each in twin.parameters()]
    assert not {id(each) for each in model.modules()} & {id(each) for each in twin.modules()}


@pytest.mark.slow
@pytest.mark.measured
def test_an_inspection_by_several_processes_writes_the_same_files(inspected, tmp_path):
    checkpoint, images = inspected
    for processes in (1, 3):
        out = tmp_path / str(processes)
        options = [f"checkpoint={checkpoint}", f"images={images}", f"out={out}", f"processes={processes}"]
        with warm.spawning():
            assert predict(options) == 3
    for name in ("predictions.csv", "predictions.json", "report.html"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes(), name


@pytest.mark.slow
def test_a_killed_process_ends_an_inspection(inspected):
    checkpoint, images = inspected
    before = set(children_of(os.getpid()))
    with warm.spawning():
        rows = inspect_on_processes(Inspector.load(checkpoint), find_joints(str(images)) * 20, 2)
        next(rows)
    for child in set(children_of(os.getpid())) - before:
        os.kill(child, signal.SIGKILL)
    with pytest.raises(UserError, match="was killed, most likely for want of memory"):
        list(rows)


@pytest.mark.parametrize("option", ["processes=0", "threads=-1", "device=tpu"])
def test_what_an_inspection_cannot_use_is_refused(option, inspected, tmp_path):
    checkpoint, images = inspected
    with pytest.raises(UserError, match=option):
        predict([f"checkpoint={checkpoint}", f"images={images}", f"out={tmp_path / 'out'}", option])
