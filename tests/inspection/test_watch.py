"""A watched folder: each picture once, half-written ones wait, and a killed process loses and doubles nothing."""

import os
import signal
import subprocess
import threading
import time

import cv2
import pytest
import warm
from checkpoints import pictures, png, write_checkpoint
from recorded import PADS, rows, without_time

from solder_vae.inspection.boards.options import BoardOptions
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.records import Records
from solder_vae.inspection.watch import Watch, asked_of, joints_in
from solder_vae.predict import run as predict
from solder_vae.utils.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")[0]


@pytest.fixture
def watch(checkpoint, tmp_path):
    """Makes watches of one folder and one database."""
    (tmp_path / "in").mkdir()
    (tmp_path / "pads.csv").write_text(PADS)

    def make(pads=False, serial=""):
        options = BoardOptions(pads=str(tmp_path / "pads.csv") if pads else "")
        records = Records(tmp_path / "line.sqlite", checkpoint)
        joints = joints_in(options, tmp_path / "in", serial)
        asked = asked_of(options, serial)
        return Watch(tmp_path / "in", Inspector.load(checkpoint), records, joints, asked, say=said.append)

    said = []
    make.said = said
    return make


def look(watch):
    """One look into the folder and what follows from it: the names of the pictures."""
    ready = watch.ready()
    if ready:
        watch.judge(ready)
    return sorted(path.name for path in ready)


def names(folder):
    return sorted(row["path"].rpartition("/")[2] for row in rows(folder / "line.sqlite"))


def test_each_picture_is_judged_once(watch, tmp_path):
    one = watch()
    images = pictures(4)
    for index in (0, 1):
        (tmp_path / f"in/{index}.png").write_bytes(png(images[index]))
    assert look(one) == []  # it may be half-written: two looks must find it unchanged
    assert look(one) == ["0.png", "1.png"]
    assert look(one) == []
    (tmp_path / "in/sub").mkdir()
    (tmp_path / "in/sub/2.png").write_bytes(png(images[2]))
    assert [look(one), look(one), look(one)] == [[], ["2.png"], []]
    assert len(watch.said) == 2
    assert " 2 pictures, 2 joints, " in watch.said[0]
    assert "joints a second" in watch.said[0]
    assert str(one).startswith("3 pictures with 3 joints, ")
    again = watch()  # as after a restart
    assert [look(again), look(again)] == [[], []]
    (tmp_path / "in/0.png").write_bytes(png(images[3]))  # another picture of the same name
    assert [look(again), look(again)] == [[], ["0.png"]]
    board = watch(pads=True, serial=r"(\d)\.png")  # other joints are asked for now
    assert [look(board), look(board), look(board)] == [[], ["0.png", "1.png", "2.png"], []]
    (tmp_path / "pads.csv").write_text(PADS + "\n")
    other = watch(pads=True, serial=r"(\d)\.png")
    assert [look(other), look(other)] == [[], ["0.png", "1.png", "2.png"]]
    assert names(tmp_path) == ["0.png", "0.png", "1.png", "2.png"]


def test_a_name_outside_utf_8_is_judged_once(watch, tmp_path):
    name = os.fsdecode(b"a\xff.png")
    (tmp_path / "in" / name).write_bytes(png(pictures(1)[0]))
    one = watch()
    assert [look(one), look(one), look(one)] == [[], [name], []]
    again = watch()
    assert [look(again), look(again)] == [[], []]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp"])
def test_half_written_files_wait(watch, tmp_path, suffix, capsys):
    one = watch()
    content = cv2.imencode(suffix, pictures(1, size=60)[0])[1].tobytes()
    path = tmp_path / f"in/a{suffix}"
    for part in (0, 100, len(content) // 2):
        path.write_bytes(content[:part])
        assert look(one) == []
    assert look(one) == [path.name]  # the writer rests: it is tried, refused, and tried no more until it changes
    assert "It is tried again when it has changed." in capsys.readouterr().err
    assert [look(one), look(one)] == [[], []]
    assert rows(tmp_path / "line.sqlite") == []
    path.write_bytes(content)
    assert [look(one), look(one), look(one)] == [[], [path.name], []]
    assert names(tmp_path) == [path.name]


def test_a_picture_that_changes_while_it_is_judged_is_judged_again(watch, tmp_path, monkeypatch):
    one = watch()
    path = tmp_path / "in/a.png"
    path.write_bytes(png(pictures(1)[0]))
    inspect = one.inspector.inspect

    def late(joints):
        yield from inspect(joints)
        path.write_bytes(png(pictures(2)[1]))

    monkeypatch.setattr(one.inspector, "inspect", late)
    assert [look(one), look(one)] == [[], ["a.png"]]
    assert rows(tmp_path / "line.sqlite") == []
    monkeypatch.setattr(one.inspector, "inspect", inspect)
    assert [look(one), look(one), look(one)] == [[], ["a.png"], []]
    assert len(rows(tmp_path / "line.sqlite")) == 1


def test_pictures_that_vanish_and_folders_that_are_away_do_no_harm(watch, tmp_path, capsys):
    one = watch()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(png(pictures(1, seed=ord(name[0]))[0]))
    one.ready()
    ready = one.ready()
    ready[0].unlink()
    one.judge(ready)
    assert "a.png: can't be read" in capsys.readouterr().err
    assert names(tmp_path) == ["b.png"]
    (tmp_path / "in").rename(tmp_path / "away")
    assert [look(one), look(one)] == [[], []]
    assert capsys.readouterr().err.count("can't be read") == 1
    (tmp_path / "away").rename(tmp_path / "in")
    assert [look(one), look(one)] == [[], []]


def test_boards_are_watched_too(watch, tmp_path, capsys):
    one = watch(pads=True, serial=r"(SN\d+)")
    for name in ("SN1_top.png", "SN2_top.png", "nameless.png"):
        (tmp_path / "in" / name).write_bytes(png(pictures(1, size=64, seed=ord(name[2]))[0]))
    (tmp_path / "in/SN3_top.png").write_bytes(png(pictures(1, size=24)[0]))  # smaller than its boxes say
    look(one)
    assert len(look(one)) == 4
    assert sorted(row["serial"] for row in rows(tmp_path / "line.sqlite", "boards")) == ["SN1", "SN2"]
    errors = capsys.readouterr().err
    assert "doesn't match serial=" in errors
    assert "are not within" in errors
    assert {row["serial"] for row in rows(tmp_path / "line.sqlite")} == {"SN1", "SN2"}


def start(checkpoint, folder, *options):
    command = ["-m", "solder_vae.predict", f"checkpoint={checkpoint}", f"watch={folder / 'in'}", "poll=0.1"]
    return subprocess.Popen(
        [warm.python(), *command, f"database={folder / 'line.sqlite'}", *options],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def until(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_restarted_it_loses_and_doubles_nothing(checkpoint, tmp_path):
    """Killed twice while pictures come; the rows are in the end those of a single call."""
    (tmp_path / "in").mkdir()
    images, coming = pictures(300), threading.Event()

    def produce():
        for index, image in enumerate(images):
            content, path = png(image), tmp_path / f"in/{index:03d}.png"
            with path.open("wb") as file:
                file.write(content[:90])
                file.flush()
                time.sleep(0.005 * (index % 7))
                file.write(content[90:])
        coming.set()

    def done():
        return len(rows(tmp_path / "line.sqlite", "files")) if (tmp_path / "line.sqlite").exists() else 0

    process = start(checkpoint, tmp_path)
    assert process.stdout.readline().startswith("Following ")
    threading.Thread(target=produce, daemon=True).start()
    for least in (20, 80):
        until(lambda least=least: done() >= least)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        process = start(checkpoint, tmp_path)
    until(lambda: coming.is_set() and done() == len(images))
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert output.splitlines()[-1].startswith("Ended: ")
    single = [f"checkpoint={checkpoint}", f"images={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]
    assert predict([*single, f"database={tmp_path / 'single.sqlite'}"]) == 0
    found, expected = (rows(tmp_path / name) for name in ("line.sqlite", "single.sqlite"))
    assert len(found) == len(images)
    scores = {row["path"]: row.pop("score") for row in expected}
    for row in found:
        assert row.pop("score") == pytest.approx(scores[row["path"]], rel=1e-4)  # batches differ by rounding
    assert without_time(found) == without_time(expected)


def test_what_does_not_go_together_is_refused(checkpoint, tmp_path):
    (tmp_path / "in").mkdir()
    good = [f"checkpoint={checkpoint}", f"watch={tmp_path / 'in'}", f"database={tmp_path / 'line.sqlite'}"]
    for options, message in [
        ([*good, "out=x"], "out=... does not go with watch="),
        ([*good, "strict=true"], "strict=... does not go with watch="),
        ([*good, "processes=2"], "processes=... does not go with watch="),
        ([*good, "poll=0"], "poll=0 is out of range"),
        ([*good, "images=x"], "Give one of images="),
        ([*good, "pads=nowhere.csv"], "pads=nowhere.csv does not exist"),
        ([*good, "serial=SN"], "needs parentheses"),
        (good[:2], "watch=DIR needs database="),
        ([good[0], "watch=nowhere", good[2]], "watch=nowhere is no folder"),
        ([good[0], f"images={tmp_path}", "out=x", "serial=(a)"], "give database=PATH, too"),
    ]:
        with pytest.raises(UserError, match=message):
            predict(options)
    assert not (tmp_path / "line.sqlite").exists()
