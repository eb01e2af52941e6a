"""Progress on a terminal."""

import contextlib
import logging
import os
import pty
import sys

from rich.progress import Progress

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
