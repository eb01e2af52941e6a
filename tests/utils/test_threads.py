"""Progress on a terminal."""

import contextlib
import logging
import os
import pty
import subprocess
import sys

import pytest
import warm
from checkpoints import pictures, write_checkpoint, write_images
from rich.progress import Progress

from solder_vae.data.image_files import write_png
from solder_vae.utils.threads import _Remaining, progress_bar, tracked


def test_the_remaining_time_is_of_all_that_went_before():
    now = 0.0
    bar = Progress(get_time=lambda: now)
    bar.add_task("", total=8)
    (task,) = bar.tasks
    assert _Remaining().render(task) == "-:--:--"
    now = 3600.0  # far longer than the half minute that rich looks back
    bar.advance(task.id, 2)
    assert _Remaining().render(task) == "3:00:00"


def test_lines_of_the_log_stand_above_the_bar(monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        handler = logging.StreamHandler(terminal)
        monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with progress_bar("Working", 2) as advance:
            advance(1)
            logging.getLogger().warning("a line")
        assert handler.stream is terminal
    shown = b""
    with contextlib.suppress(OSError):  # that is how a terminal ends whose other side is closed
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert b"1/2" in shown
    assert b"\x1b[2Ka line\r\n" in shown  # on a line that was erased before


def test_no_bar_in_a_file(capsys):
    assert list(tracked(iter("abc"), "Working", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    folder = tmp_path_factory.mktemp("things")
    write_checkpoint(folder / "best.ckpt", "cae", "recon")
    for name in ("normal", "void"):
        write_images(folder / "set" / name, pictures(12, seed=len(name)))
    write_png(folder / "board.png", pictures(1, 64)[0])
    (folder / "pads.csv").write_text("name,x,y,width,height\nA,4,4,20,20\nB,30,30,20,20\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("audit data.root=set data.image_size=16", ["Loading", "Examining images", "Looking for shortcuts", "Writing"]),
        ("threshold checkpoint=best.ckpt rule=sigma normals=set/normal", ["Loading", "Inspecting", "Writing"]),
        ("export checkpoint=best.ckpt", ["Loading", "Writing the graph"]),
        ("crop board=board.png pads=pads.csv", ["Reading the board", "Cutting out"]),
    ],
)
def test_commands_say_at_once_on_a_terminal_what_they_do(command, said, things, tmp_path):
    """The first bar comes before torch does; an export is ended as soon as all was seen."""
    name, *options = command.split()
    out = tmp_path / ("out.onnx" if name == "export" else "out")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    python = sys.executable if name in ("audit", "crop") else warm.python()  # others start anew elsewhere
    arguments = [python, "-m", f"solder_vae.{name}", *options, f"out={out}"]
    process = subprocess.Popen(arguments, cwd=things, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while (name != "export" or said[-1].encode() not in shown) and (part := os.read(ours, 4096)):
            shown += part
    if name == "export":
        process.kill()
    assert process.wait(timeout=300) in (0, -9), shown.decode()
    os.close(ours)
    places = [shown.find(text.encode()) for text in said]
    assert -1 not in places, shown.decode()
    assert places == sorted(places)
