"""Records: a row a joint and a row a board, each once, whoever writes at the same time."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest
from checkpoints import pictures, png, write_checkpoint, write_images
from recorded import PADS, rows

from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.joints import Joint, Source
from solder_vae.inspection.records import Records
from solder_vae.predict import run as predict
from solder_vae.utils.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")[0]


@pytest.fixture
def board(tmp_path):
    (tmp_path / "pads.csv").write_text(PADS)
    (tmp_path / "SN0007.png").write_bytes(png(pictures(1, size=64)[0]))
    return tmp_path / "SN0007.png"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def row(score=1.0, label="abnormal"):
    return {"score": score, "threshold": 0.5, "margin": score - 0.5, "label": label}


def test_a_boards_joints_and_the_board_are_recorded(checkpoint, board, tmp_path):
    database = tmp_path / "line.sqlite"
    options = [f"checkpoint={checkpoint}", f"board={board}", f"pads={tmp_path / 'pads.csv'}", f"database={database}"]
    assert predict([*options, f"out={tmp_path / 'out'}"]) == 0
    said = {each["path"]: each for each in json.loads((tmp_path / "out/predictions.json").read_text())["predictions"]}
    found = {each["designator"]: each for each in rows(database)}
    assert found.keys() == said.keys() == {"R1.1", "R1.2", "U1.1"}
    for name, each in found.items():
        assert (each["score"], each["threshold"], each["verdict"]) == (
            said[name]["score"],
            said[name]["threshold"],
            said[name]["label"],
        )
        assert (each["serial"], each["side"], each["model"]) == ("SN0007", "top", "beta_vae/gradcon")
        assert (each["checkpoint"], each["picture"]) == (sha256(checkpoint), sha256(board))
        assert each["time"].endswith("Z")
    assert (found["U1.1"]["package"], found["U1.1"]["x"], found["U1.1"]["y"]) == ("SO8", 8, 30)
    (one,) = rows(database, "boards")
    worst = max(said.values(), key=lambda each: each["margin"])
    assert (one["serial"], one["joints"], one["worst"], one["verdict"]) == ("SN0007", 3, worst["path"], worst["label"])
    assert one["abnormal"] == sum(each["label"] == "abnormal" for each in said.values())
    assert one["score"] == worst["score"]


@pytest.mark.slow
def test_the_same_picture_by_the_same_model_is_one_row(checkpoint, board, tmp_path):
    database = tmp_path / "line.sqlite"
    write_images(tmp_path / "images", pictures(5))
    shutil.copy(tmp_path / "images/000.png", tmp_path / "images/copy_of_000.png")
    other = write_checkpoint(tmp_path / "other.ckpt", score="recon")[0]
    for number, model in enumerate((checkpoint, checkpoint, other)):
        options = [f"checkpoint={model}", f"database={database}"]
        predict([*options, f"images={tmp_path / 'images'}", f"out={tmp_path / f'images_{number}'}"])
        predict([*options, f"board={board}", f"pads={tmp_path / 'pads.csv'}", f"out={tmp_path / f'board_{number}'}"])
    assert len(rows(database)) == 2 * (5 + 3)
    assert len(rows(database, "boards")) == 2
    assert {each["model"] for each in rows(database)} == {"beta_vae/gradcon", "beta_vae/recon"}


def test_a_board_that_is_inspected_again_by_other_pads_has_their_joints_alone(checkpoint, board, tmp_path):
    """Joints that pads= no longer has would decide the board's verdict for ever."""
    options = [f"checkpoint={checkpoint}", f"board={board}", f"database={tmp_path / 'line.sqlite'}"]
    for number, pads in enumerate((PADS, PADS.replace("U1.1", "U9.1").replace("R1.2", "R7.2"))):
        (tmp_path / "pads.csv").write_text(pads)
        assert predict([*options, f"pads={tmp_path / 'pads.csv'}", f"out={tmp_path / f'out_{number}'}"]) == 0
    assert {each["designator"] for each in rows(tmp_path / "line.sqlite")} == {"R1.1", "R7.2", "U9.1"}
    (one,) = rows(tmp_path / "line.sqlite", "boards")
    assert one["joints"] == 3


@pytest.mark.slow
def test_a_board_of_many_joints_is_written_whole(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    records = Records(tmp_path / "line.sqlite", path)
    for number in range(1200):
        records.add(Joint("a", path, source=Source(path, "S", f"R{number}")), "", row())
        assert not rows(tmp_path / "line.sqlite")
    records.flush()
    assert [each["joints"] for each in rows(tmp_path / "line.sqlite", "boards")] == [1200]


def test_names_outside_utf_8_are_recorded(checkpoint, tmp_path):
    write_images(tmp_path / "SN1", pictures(1))
    (tmp_path / "SN1/000.png").rename(os.fsdecode(os.fsencode(tmp_path / "SN1") + b"/\xff.png"))
    options = [f"checkpoint={checkpoint}", f"images={tmp_path / 'SN1'}", f"database={tmp_path / 'line.sqlite'}"]
    assert predict([*options, f"out={tmp_path / 'out'}", r"serial=SN1/(.)"]) == 0
    (one,) = rows(tmp_path / "line.sqlite")
    assert (one["path"], one["serial"]) == (f"{tmp_path}/SN1/\\xff.png", "\\xff")
    assert len(rows(tmp_path / "line.sqlite", "boards")) == 1


def test_pictures_of_single_joints_make_a_board_by_their_serial(checkpoint, tmp_path):
    database = tmp_path / "line.sqlite"
    for serial, count in (("SN1", 3), ("SN2", 2)):
        write_images(tmp_path / "images" / serial, pictures(count, seed=count))
    options = [f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"database={database}"]
    assert predict([*options, f"out={tmp_path / 'out'}", r"serial=/(SN\d+)/"]) == 0
    assert {each["serial"]: each["joints"] for each in rows(database, "boards")} == {"SN1": 3, "SN2": 2}
    with pytest.raises(UserError, match="doesn't match serial="):
        predict([*options, f"out={tmp_path / 'again'}", r"serial=(X\d)"])


def test_a_joint_that_was_mended_and_photographed_anew_counts_by_its_last_picture(tmp_path):
    path, database = tmp_path / "a.png", tmp_path / "line.sqlite"
    (tmp_path / "model").write_bytes(b"m")
    records = Records(database, tmp_path / "model")
    for content, label in ((b"bad", "abnormal"), (b"mended", "normal")):
        path.write_bytes(content)
        records.add(Joint("a", path, source=Source(path, "SN5", "")), "", row(0.1, label))
        records.flush()
        time.sleep(0.01)  # times are told apart by milliseconds
    (board,) = rows(database, "boards")
    assert (board["joints"], board["abnormal"], board["verdict"]) == (1, 0, "normal")
    assert [each["verdict"] for each in rows(database)] == ["abnormal", "normal"], "what was found then stays"


def test_a_database_that_another_process_holds_is_told_apart(tmp_path, monkeypatch):
    (tmp_path / "model").write_bytes(b"m")
    monkeypatch.setattr("solder_vae.inspection.records._WAIT", 0.05)
    records = Records(tmp_path / "line.sqlite", tmp_path / "model")
    other = sqlite3.connect(tmp_path / "line.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match="held by another process for"):
        records.flush()
    other.execute("ROLLBACK")
    records.flush()


def test_several_boards_in_one_call(checkpoint, board, tmp_path, capsys):
    folder = tmp_path / "boards"
    folder.mkdir()
    for number in range(3):
        (folder / f"SN{number}.png").write_bytes(png(pictures(1, size=64, seed=number)[0]))
    (folder / "SN9.png").write_bytes(b"no picture")
    pads = f"pads={tmp_path / 'pads.csv'}"
    database = tmp_path / "line.sqlite"
    options = [f"checkpoint={checkpoint}", pads, f"board={folder}"]
    assert predict([*options, f"out={tmp_path / 'out'}", f"database={database}"]) == 3
    assert "3 boards, " in capsys.readouterr().out
    assert sorted(each["serial"] for each in rows(database, "boards")) == ["SN0", "SN1", "SN2"]
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [each["path"] for each in content["predictions"]][:4] == [
        "SN0.png/R1.1", "SN0.png/R1.2", "SN0.png/U1.1", "SN1.png/R1.1"
    ]  # fmt: skip
    assert [each["path"] for each in content["unreadable"]] == ["SN9.png"]
    table = (tmp_path / "out/boards.csv").read_text().splitlines()
    assert len(table) == 4
    assert table[1].split(",")[1:3] == ["SN0", "3"]
    for number in range(3):
        alone = tmp_path / f"alone_{number}"
        predict([f"checkpoint={checkpoint}", pads, f"board={folder / f'SN{number}.png'}", f"out={alone}"])
        assert (tmp_path / f"out/boards/SN{number}.png").read_bytes() == (alone / "board.png").read_bytes()
        one = json.loads((alone / "predictions.json").read_text())["predictions"]
        both = [each for each in content["predictions"] if each["path"].startswith(f"SN{number}.png/")]
        assert [each["score"] for each in both] == pytest.approx([each["score"] for each in one], rel=1e-5)


WRITER = """
import sys
from pathlib import Path
from solder_vae.inspection.joints import Joint, Source
from solder_vae.inspection.records import Records
database, checkpoint, folder, first = sys.argv[1:]
records = Records(Path(database), Path(checkpoint))
for number in range(int(first), int(first) + 400):
    path = Path(folder) / f"{number // 50}.png"
    joint = Joint("x", path, source=Source(path, "SN1", f"R{number}"))
    records.add(joint, "", {"score": float(number), "threshold": 500.0, "label": "normal"})
    if number % 50 == 49:
        records.flush()
records.flush()
"""


@pytest.mark.slow
def test_several_processes_write_to_one_database(tmp_path):
    """Half of each one's rows are also another's."""
    for number in range(16):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
    arguments = [str(tmp_path / "line.sqlite"), str(tmp_path / "0.png"), str(tmp_path)]
    command = [sys.executable, "-c", WRITER, *arguments]
    writers = [subprocess.Popen([*command, str(first)]) for first in (0, 200, 400)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert len(rows(tmp_path / "line.sqlite")) == 800
    boards = rows(tmp_path / "line.sqlite", "boards")
    assert sum(board["joints"] for board in boards) == 800
    assert max(board["score"] for board in boards) == 799


def test_a_transaction_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    records = Records(tmp_path / "line.sqlite", path)
    records.add(Joint("a", path, source=Source(path, "S", "R1")), "", row())
    records.flush()
    records.add(Joint("a", path, source=Source(path, "S", "R2")), "", row())
    records.add(Joint("a", path, source=Source(path, "S", "R3")), "", {})  # a row that cannot be written
    with pytest.raises(KeyError):
        records.flush()
    records.close()
    assert [each["designator"] for each in rows(tmp_path / "line.sqlite")] == ["R1"]


def test_what_a_database_cannot_be_is_refused(checkpoint, tmp_path):
    write_images(tmp_path / "images", pictures(1))
    (tmp_path / "text.sqlite").write_text("no database, but a text that is long enough to be taken for a header" * 20)
    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE joints (a)").connection.commit()
    options = [f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}"]
    for name, message in (
        ("text.sqlite", "not a database"),
        ("other.sqlite", "holds other tables"),
        ("no/folder.sqlite", "unable to open"),
        ("images", "unable to open"),
    ):
        with pytest.raises(UserError, match=message):
            predict([*options, f"database={tmp_path / name}"])
        assert not (tmp_path / "out").exists()


def test_scores_in_the_database_are_the_inspectors(checkpoint, tmp_path):
    paths = write_images(tmp_path / "images", pictures(20))
    predict(
        [f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}",
         f"database={tmp_path / 'line.sqlite'}"]
    )  # fmt: skip
    by_path = {each["path"]: each for each in rows(tmp_path / "line.sqlite")}
    for verdict, path in zip(Inspector.load(checkpoint).score(paths), paths, strict=True):
        assert by_path[str(path)]["score"] == verdict.score
        assert by_path[str(path)]["verdict"] == verdict.label
