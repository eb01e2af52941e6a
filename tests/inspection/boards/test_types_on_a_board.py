"""From a rendered board with known defects to another one's picture with the types of its defects drawn on it."""

import csv

import numpy as np
import pytest
from commands import run_command

from solder_vae.data.image_files import read_image
from solder_vae.data.synthetic.board.__main__ import main as render

pytestmark = pytest.mark.slow

FILES = {"pads": "centroid.csv", "fiducials": "fiducials.csv", "footprints": "footprints.csv"}
KINDS = ("missing_component", "bridge", "shifted_component")


def of(board):
    return [f"board={board}/board.png", *(f"{key}={board}/{name}" for key, name in FILES.items())]


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    """docs/use/crop.md's commands, with one board to learn from instead of six."""
    folder = tmp_path_factory.mktemp("boards")
    for board, seed, defective in (("known", 1, 12), ("new", 7, 9)):
        arguments = [
            "--out",
            str(folder / board),
            "--seed",
            str(seed),
            "--defective",
            str(defective),
            "--kinds",
            *KINDS,
        ]
        assert render(arguments) == 0
    options = ("data.root=crops/crops.csv", "data.known=all", "data.fractions=[80,10,10]", "pictures=false")
    for command, *arguments in (
        ("crop", *of("known"), "labels=known/truth.csv", "out=crops"),
        ("train", "experiment=inspect", "data=folder", *options, "logger.mode=disabled", "hydra.run.dir=run"),
        ("predict", "checkpoint=run/best.ckpt", *of("new"), "out=out"),
    ):
        done = run_command(command, *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.measured
def test_missing_shifted_and_bridged_parts_are_found_and_told_apart(inspected):
    truth = {row["name"]: row["label"] for row in rows_of(inspected / "new/truth.csv")}
    rows = [row for row in rows_of(inspected / "out/predictions.csv") if truth[row["path"]] != "normal"]
    assert {truth[row["path"]] for row in rows} == set(KINDS)
    assert np.mean([row["label"] == "abnormal" for row in rows]) >= 0.75
    told = [row for row in rows if truth[row["path"]] != "bridge"]  # of which too few are known to be told apart
    assert np.mean([row["type"] == truth[row["path"]] for row in told]) >= 0.75


def test_they_are_drawn_on_the_board(inspected):
    picture, drawn = (read_image(inspected / name) for name in ("new/board.png", "out/board.png"))
    assert drawn.shape == picture.shape
    abnormal = [row for row in rows_of(inspected / "out/predictions.csv") if row["label"] == "abnormal"]
    orange = (drawn == (213, 94, 0)).all(axis=2)
    assert orange.sum() > 300 * len(abnormal)  # the frames
    assert (drawn == 0).all(axis=2).sum() > 1000 * len(abnormal)  # the notes' ground, two lines each
    report = (inspected / "out/report.html").read_text(encoding="utf-8")
    assert "nearest known defect: missing_component" in report
