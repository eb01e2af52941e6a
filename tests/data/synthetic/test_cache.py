"""The cache of rendered sets: damage, staleness, concurrent runs and folders that can't be written."""

import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae.data.synthetic import SyntheticSource, cache, source

ARRAYS = {"images": np.arange(300, dtype=np.uint8).reshape(3, 10, 10), "factor/light": np.array(["ring", "dome", "x"])}


def tiny(folder, **changes):
    options = {"train": 3, "val": 1, "test_normal": 1, "test_abnormal": 2, "render_workers": 1, "image_size": 16}
    return SyntheticSource(cache_dir=folder, **(options | changes))


def equal(first, second):
    return all(
        np.array_equal(first[split].images, second[split].images)
        and np.array_equal(first[split].masks, second[split].masks)
        and first[split].factors.keys() == second[split].factors.keys()
        and all(
            np.array_equal(first[split].factors[name], second[split].factors[name]) for name in first[split].factors
        )
        for split in ("train", "val", "test")
    )


@pytest.fixture
def counted(monkeypatch):
    """Counts how often a set is rendered."""
    calls, real = [], source.render_many
    monkeypatch.setattr(source, "render_many", lambda *args: calls.append(1) or real(*args))
    return calls


def test_what_is_stored_is_loaded(tmp_path):
    cache.store(tmp_path / "a.bin", "identity", ARRAYS)
    loaded = cache.load(tmp_path / "a.bin", "identity")
    assert loaded.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], values)


def test_no_cut_and_no_flipped_bit_is_ever_read(tmp_path):
    path = tmp_path / "a.bin"
    cache.store(path, "identity", ARRAYS)
    whole = path.read_bytes()

    @given(st.integers(0, len(whole) - 1), st.integers(0, 7), st.booleans())
    @settings(max_examples=60, deadline=None)
    def is_not_read(at, bit, cut):
        path.write_bytes(whole[:at] if cut else whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
        assert cache.load(path, "identity") is None

    is_not_read()


def test_another_identity_is_not_read(tmp_path):
    cache.store(tmp_path / "a.bin", "identity", ARRAYS)
    assert cache.load(tmp_path / "a.bin", "another") is None


def test_a_second_run_reads_what_the_first_rendered(tmp_path, counted):
    first, second = tiny(tmp_path).tables(), tiny(tmp_path).tables()
    assert len(counted) == 1
    assert equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-1] + b"?"])
def test_a_damaged_cache_is_rendered_again_and_mended(tmp_path, counted, caplog, damage):
    first = tiny(tmp_path).tables()
    (file,) = tmp_path.glob("*.bin")
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert equal(tiny(tmp_path).tables(), first)
    assert "rendering again" in caplog.text
    assert equal(tiny(tmp_path).tables(), first)
    assert len(counted) == 2


@pytest.mark.slow
def test_every_setting_has_a_cache_of_its_own(tmp_path, counted):
    for changes in ({}, {"seed": 1}, {"severity": (0.9, 1)}, {"image_size": 24}, {"train": 4}, {"defects": ["bridge"]}):
        tiny(tmp_path, **changes).tables()
    assert len(counted) == len(list(tmp_path.glob("*.bin"))) == 6


def test_a_new_generator_does_not_read_the_old_ones_images(tmp_path, counted, monkeypatch):
    tiny(tmp_path).tables()
    monkeypatch.setattr(cache, "generator_version", lambda: "the next version")
    tiny(tmp_path).tables()
    assert len(counted) == 2


def test_the_generator_version_follows_its_source(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "synthetic"
    (folder / "defects").mkdir(parents=True)
    for name in ("cache.py", "camera.py", "defects/surface.py", "../transforms.py", "sheet.py"):
        (folder / name).write_text("first")
    monkeypatch.setattr(cache, "__file__", str(folder / "cache.py"))
    version = cache.generator_version.__wrapped__
    first = version()
    (folder / "sheet.py").write_text("a sheet changes no picture")
    assert version() == first
    (folder / "defects/surface.py").write_text("second")
    assert version() != first


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        tables = tiny(tmp_path / "file" / "cache").tables()
    assert len(tables["train"]) == 3
    assert "going on without" in caplog.text


def test_a_full_disk_costs_a_warning_and_leaves_nothing(tmp_path, caplog, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with caplog.at_level(logging.WARNING):
        assert len(tiny(tmp_path).tables()["train"]) == 3
    assert "No space left" in caplog.text
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_no_cache_when_told_so(tmp_path):
    tiny(tmp_path, use_cache=False).tables()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SOLDER_VAE_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/solder_vae"),
        ({"HOME": "/home/someone"}, "/home/someone/.cache/solder_vae"),
    ],
)
def test_where_caches_go(monkeypatch, variables, expected):
    for name in ("SOLDER_VAE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache.default_directory().as_posix() == expected


CODE = (
    "import sys, hashlib; from solder_vae.data.synthetic import SyntheticSource;"
    "t = SyntheticSource(train=60, val=2, test_normal=2, test_abnormal=9, image_size=16, render_workers=1,"
    "cache_dir=sys.argv[1]).tables();"
    "print(hashlib.sha256(b''.join(t[s].images.tobytes() for s in t)).hexdigest())"
)


def start(folder):
    command = [sys.executable, "-c", CODE, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})


@pytest.mark.slow
def test_runs_started_together_share_one_whole_cache(tmp_path):
    runs = [start(tmp_path) for _ in range(2)]
    printed = [run.communicate(timeout=600) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], printed
    assert printed[0][0] == printed[1][0] != ""
    assert len(list(tmp_path.glob("*.bin"))) == 1
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.slow
def test_a_run_killed_midway_leaves_nothing_that_is_read(tmp_path):
    killed = start(tmp_path)
    while not list(tmp_path.glob("*.lock")) and killed.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    after = start(tmp_path)
    out, errors = after.communicate(timeout=600)
    assert after.returncode == 0, errors
    assert len(out.strip()) == 64
