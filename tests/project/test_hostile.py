"""Files and options from somebody who means harm, or from a broken disk: read, or refused in one sentence.

Never a crash of the interpreter, a hang, memory beyond a bound, a file read or written elsewhere, or code that runs.
"""

import contextlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import fuzz
import numpy as np
import pytest
import torch
from checkpoints import pictures, png, write_checkpoint, write_images
from commands import run_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solder_vae.data.decompression_bombs import INFLATED_UNCHECKED
from solder_vae.data.folder import FolderSource
from solder_vae.data.image_files import read_image
from solder_vae.data.layouts import find_records, read_manifest
from solder_vae.inspection.boards.placement_files import read_fiducials, read_footprints, read_pads
from solder_vae.models.autoencoder import CAE
from solder_vae.models.checkpoint import load_model, read_checkpoint
from solder_vae.predict import run as predict
from solder_vae.training.resume import check_resumable
from solder_vae.utils.cli import parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import printable

SUPPORT = Path(__file__).parents[1] / "support"
in_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)


def told(script, *arguments, cwd, **options):
    """What a script of this folder tells of its cases, run in a process of its own."""
    result = run_python(SUPPORT / script, *map(str, arguments), cwd=cwd, timeout=3600, **options)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


def feed(reader, first, count, folder, **environment):
    """Damaged files for a reader; how they ended. See hostile.py for what is not allowed."""
    return told("hostile.py", reader, first, count, folder, cwd=Path.cwd(), fresh=True, **environment)


@pytest.mark.parametrize(
    ("first", "count"), [fuzz.IMAGES[0], *(pytest.param(*part, marks=pytest.mark.slow) for part in fuzz.IMAGES[1:])]
)
def test_damaged_images(first, count, tmp_path):
    """Under a small limit on the number of pixels, so that the bound on memory is small, too."""
    ends = feed("image", first, count, tmp_path, OPENCV_IO_MAX_IMAGE_PIXELS=str(1 << 20))
    assert ends["refused"] > count / 5
    assert ends["read"] > count / 25


def test_damaged_images_under_the_usual_limit(tmp_path):
    feed("image", 20_000, 100, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "count"), fuzz.CHECKPOINTS)
def test_damaged_checkpoints(first, count, tmp_path):
    ends = feed("checkpoint", first, count, tmp_path)
    assert ends["refused"] > count / 2
    assert ends["read"] > count / 100


def refused(path, says):
    with pytest.raises(UserError, match=says) as error:
        read_image(path)
    assert str(path) in str(error.value)


def chunk(kind, content, length=None):
    length = len(content) if length is None else length
    return struct.pack(">I", length) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_images_that_claim_more_than_they_have(tmp_path):
    """A few bytes must not set aside gigabytes; the process's peak tells."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    small = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0))
    start = b"\x89PNG\r\n\x1a\n"
    bombs = {
        "pixels.png": start + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""),
        "chunk.png": start + small + chunk(b"IDAT", b"x", length=0xFFFFFFF0),
        "text.png": start + small + chunk(b"zTXt", b"x", length=0x7FFFFFFF) + chunk(b"IEND", b""),
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
    code = (
        "import resource, sys; from solder_vae.data.image_files import read_image;"
        "from solder_vae.utils.errors import UserError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for path in sys.argv[1:]:\n"
        "    try: read_image(path)\n"
        "    except UserError: continue\n"
        "    sys.exit(path)\n"
        "sys.exit(f'{peak() - before} KiB' if peak() - before > 1 << 16 else 0)"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in bombs)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_images_that_would_take_long(tmp_path):
    """A few bytes must not take hours: of a PNG that goes on behind its last pixel, or a JPEG of scans without end."""
    start, ends = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0))
    (tmp_path / "goes_on.png").write_bytes(start + header + chunk(b"IDAT", zlib.compress(bytes(1 << 29))) + ends)
    whole = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scan = whole.index(b"\xff\xda")
    length = int.from_bytes(whole[scan + 2 : scan + 4], "big")
    scans = (whole[scan : scan + 2 + length] + b"\0") * 200
    (tmp_path / "scans.jpg").write_bytes(whole[:scan] + scans + b"\xff\xd9")
    for name in ("goes_on.png", "scans.jpg"):
        refused(tmp_path / name, "is cut short or corrupt")
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert read_image(tmp_path / "whole.jpg").shape == (64, 64, 3)


def test_large_pictures_are_no_bombs(tmp_path):
    """Whose pixels take more bytes than are left unchecked."""
    noise = np.random.default_rng(0).integers(0, 1 << 16, (300, 301, 4), dtype=np.uint16)
    for name, image in {
        "rgba16.png": noise,
        "grey.png": noise[..., 0],
        "rgb.jpg": (noise[..., :3] >> 8).astype(np.uint8),
    }.items():
        (tmp_path / name).write_bytes(cv2.imencode(Path(name).suffix, image)[1].tobytes())
        assert read_image(tmp_path / name).shape == (300, 301, 3)
    assert (tmp_path / "rgba16.png").stat().st_size > INFLATED_UNCHECKED


NASTY = st.one_of(
    st.sampled_from(
        ["", "..", "../a.png", "/etc/passwd", "C:\\a.png", "a\\..\\b", "\0", "nan", "1e999", '"', "normal", "\ud800"]
    ),
    st.text(max_size=20),
    st.integers().map(str),
)
LINES = st.lists(st.lists(NASTY, min_size=1, max_size=6).map(",".join), max_size=6).map("\n".join)
HEADS = [
    "path,label,split,group",
    "name,x,y,width,height",
    "ref,posx,posy,rot,side",
    "package,pad,x,y,width,height",
    "",
]
TABLES = st.one_of(
    st.binary(max_size=300),
    st.tuples(st.sampled_from(HEADS), LINES).map(lambda parts: "\n".join(parts).encode(errors="surrogatepass")),
)


@pytest.mark.slow
@pytest.mark.parametrize("read", [read_manifest, read_pads, read_footprints, read_fiducials])
@given(content=TABLES)
@in_a_folder
def test_damaged_tables(read, tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    try:
        rows = read(path)
    except UserError:
        return
    for row in rows if read is read_manifest else ():
        assert tmp_path in row.path.parents or str(row.path).encode() in content  # whole, as it was given
        assert ".." not in row.path.parts


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "..\\secret.png"])
def test_manifests_lead_elsewhere_by_whole_paths_only(name, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(png(pictures(1)[0]))
    (root / "manifest.csv").write_text(f"path,label\n{name},normal\n")
    with pytest.raises(UserError, match="leads out of the table's folder"):
        find_records(root)


def test_loops_of_links_end(tmp_path):
    normal = tmp_path / "root/normal"
    write_images(normal, pictures(3))
    (normal / "up").symlink_to(tmp_path / "root", target_is_directory=True)
    (normal / "self").symlink_to("self")
    (normal / "one.png").symlink_to("two.png")
    (normal / "two.png").symlink_to("one.png")
    records = find_records(tmp_path / "root")
    assert sum(not record.path.is_symlink() for record in records) == 3
    refused(normal / "one.png", "can't be read")


NAMES = (
    "line\nbreak.png",
    "quote'\".png",
    "<script>alert(1)<.png",
    "\x1b[31mred.png",
    "comma,semicolon;.png",
    "=cmd.png",
    "x" * 251 + ".png",
    "焊" * 83 + ".png",
)


def test_hostile_names_are_read_and_reported(tmp_path):
    """Names of 255 bytes included; browsers are shown names as text by tests/inspection/test_batch.py."""
    folder = tmp_path / "root/normal"
    folder.mkdir(parents=True)
    for name, picture in zip(NAMES, pictures(len(NAMES)), strict=True):
        (folder / name).write_bytes(png(picture))
    tables = FolderSource(tmp_path / "root", image_size=16).tables()
    names = [path for table in tables.values() for path in table.paths]
    assert sorted(names) == sorted(printable(str(folder / name)) for name in NAMES)
    checkpoint, _ = write_checkpoint(tmp_path / "best.ckpt")
    assert predict([f"checkpoint={checkpoint}", f"images={folder}", f"out={tmp_path / 'out'}"]) == 0
    report = (tmp_path / "out/report.html").read_text()
    assert "<script>alert" not in report
    assert "\x1b" not in report


@dataclass(frozen=True)
class Options:
    path: str = ""
    count: int = 1
    rate: float | None = None
    draw: bool = False


@pytest.mark.slow
@given(
    st.lists(
        st.one_of(st.text(max_size=30), st.tuples(st.sampled_from(["path", "count", "rate"]), NASTY).map("=".join))
    )
)
def test_any_arguments(arguments):
    try:
        assert isinstance(parse(Options, arguments, "usage"), Options)
    except UserError:
        pass
    except SystemExit:
        assert {"--help", "-h"} & set(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("first", fuzz.OPTIONS)
def test_options_that_hardly_fit(first, tmp_path):
    """Every key of a training run, each with one value, or with all: see hostile_options.py."""
    ends = told("hostile_options.py", first, fuzz.EACH, cwd=tmp_path)
    if first == 0:
        assert ends["refused"] > 20
        assert ends["trained"] > 2


def test_numbers_of_many_digits_take_no_time():
    started = time.process_time()
    for text in ("9" * 100_000, "9" * 1_000_000 + "e9"):
        for key in ("count", "rate"):
            with pytest.raises(UserError, match="number: give one"):
                parse(Options, [f"{key}={text}"], "")
    assert time.process_time() - started < 5


class Payload:
    """Unpickled in the usual way, it makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch '{self.target}'",))


def content(extra):
    return {"model": "cae", "state_dict": {}, "hyper_parameters": {}, "extra": extra}


def archive(entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in entries:
            file.writestr(name, data)
    return buffer.getvalue()


def torch_archive(data):
    """What ``torch.save`` would write around a pickle."""
    return archive([("archive/data.pkl", data), ("archive/version", "3\n"), ("archive/byteorder", "little")])


def attacks(target):
    """Files that would make ``target`` if any of what is in them ran, by what they try."""
    evil = content(Payload(target))
    good, saved = io.BytesIO(), io.BytesIO()
    torch.save(content(1), good)
    torch.save(evil, saved)
    legacy = io.BytesIO()
    torch.save(evil, legacy, _use_new_zipfile_serialization=False)
    plain = pickle.dumps(content(1), protocol=2)
    return {
        "torch.save": saved.getvalue(),
        "format before zip": legacy.getvalue(),
        **{f"bare pickle {protocol}": pickle.dumps(evil, protocol) for protocol in range(6)},
        **{f"pickle {protocol} in an archive": torch_archive(pickle.dumps(evil, protocol)) for protocol in range(6)},
        "good archive behind an evil one": saved.getvalue() + good.getvalue(),
        "evil archive behind a good one": good.getvalue() + saved.getvalue(),
        "two entries of a name": archive([("archive/data.pkl", plain), ("archive/data.pkl", pickle.dumps(evil, 2))]),
        "evil one in another folder": archive([("a/data.pkl", plain), ("b/data.pkl", pickle.dumps(evil, 2))]),
        "path out of the archive": archive([("archive/data.pkl", plain), (f"../../..{target}", b"x")]),
        "script": archive([("archive/data.pkl", plain), ("archive/constants.pkl", b""), ("archive/code/a.py", b"x")]),
        "INST": torch_archive(b"(S'touch " + os.fsencode(target) + b"'\nios\nsystem\n."),
    }


def test_the_payload_would_work(tmp_path):
    """Or the test below would show nothing."""
    target = tmp_path / "owned"
    pickle.loads(pickle.dumps(content(Payload(target))))
    assert target.exists()


def test_checkpoints_cannot_run_code(tmp_path):
    target, path = tmp_path / "owned", tmp_path / "evil.ckpt"
    for name, data in attacks(target).items():
        path.write_bytes(data)
        for load in (read_checkpoint, load_model):
            try:
                load(path)
                assert load is read_checkpoint, name  # the good half of two archives may be read
            except UserError:
                pass
        assert not target.exists(), name
        assert list(tmp_path.iterdir()) == [path], name


def repeated_entry():
    """A good checkpoint of 130 kB whose table of contents names one of its entries a thousand times: 65 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in {"data.pkl": pickle.dumps(content(1), 2), "version": "3\n", "byteorder": "little"}.items():
            file.writestr(f"archive/{name}", data)
        file.writestr("archive/data/0", bytes(1 << 16))
        file.filelist += [file.getinfo("archive/data/0")] * 1000
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (repeated_entry, "other than tensors"),
        (
            lambda: torch_archive(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R."),
            "other than tensors",
        ),
        (lambda: archive([("archive/data.pkl", b"\0" * (1 << 28))], zipfile.ZIP_DEFLATED), "other than tensors"),
        (lambda: torch_archive(b"\x80\x02" + b"]" * 100_000 + b"."), "not a"),
        (lambda: pickle.dumps({"model": [], "state_dict": {}}, 2), "not a readable checkpoint"),
    ],
    ids=["an entry many times", "bytearray of 64 GiB", "compressed zeros", "many lists", "no archive"],
)
def test_checkpoints_cannot_fill_the_memory(make, says, tmp_path):
    path = tmp_path / "bomb.ckpt"
    path.write_bytes(make())
    with pytest.raises(UserError, match=says):
        read_checkpoint(path)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
KEYS = ("model", "state_dict", "hyper_parameters", "preprocessing", "precision", "calibration")
KEYS += ("epoch", "global_step", "callbacks", "optimizer_states")


@pytest.mark.slow
@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=4))
@settings(in_a_folder, max_examples=100)
def test_checkpoints_that_hold_nonsense(tmp_path, changes):
    path, model = tmp_path / "nonsense.ckpt", CAE()
    base = {"model": "cae", "state_dict": {}, "hyper_parameters": dict(model.hparams), "preprocessing": {}}
    base |= {"precision": "32-true", "calibration": None, "epoch": 0, "global_step": 1, "callbacks": {}}
    torch.save({**base, "optimizer_states": [], **changes}, path)
    for load in (load_model, lambda path: check_resumable(path, model, 10)):
        with contextlib.suppress(UserError):
            load(path)
