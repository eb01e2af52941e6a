"""Files and folders appear whole or not at all."""

import fcntl
from pathlib import Path

import pytest

from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_directory, atomic_file, file_lock


def half_written(path):
    path.write_text("half")
    path.write_text("\ud800", encoding="utf-8")


def fill_and_fail(directory):
    (directory / "a").write_text("1")
    (directory / "a" / "b").write_text("2")


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(UnicodeEncodeError), atomic_file(path) as temporary:
        half_written(temporary)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    out = tmp_path / "deep" / "out"
    with atomic_directory(out) as directory:
        (directory / "a").write_text("1")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["a"]
    assert list(out.parent.iterdir()) == [out]


def test_an_empty_folder_is_filled_and_a_failure_leaves_it_empty(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(NotADirectoryError), atomic_directory(out) as directory:
        fill_and_fail(directory)
    assert list(tmp_path.rglob("*")) == [out]
    with atomic_directory(out) as directory:
        (directory / "a").write_text("1")
    assert [path.name for path in out.iterdir()] == ["a"]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("1")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "folder/kept", "dangling"):
        with pytest.raises(UserError, match="nothing is overwritten"), atomic_directory(tmp_path / name):
            pass
    with pytest.raises(UserError, match="cannot be made"), atomic_directory(tmp_path / "folder" / "kept" / "below"):
        pass
    assert (tmp_path / "folder" / "kept").read_text() == "1"


def test_a_lock_lets_one_in_at_a_time(tmp_path):
    """Nobody else gets it meanwhile, not even beside others, and the next one gets it at once."""
    path = tmp_path / "below" / "run"
    with file_lock(path), path.with_suffix(".lock").open() as other:
        for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, kind | fcntl.LOCK_NB)
    with path.with_suffix(".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_current_folder_will_do(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_directory(Path()) as directory:
        (directory / "a").write_text("1")
    assert (tmp_path / "here" / "a").exists()
