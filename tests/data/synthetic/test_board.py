"""The rendered board: things are where it says they are, and the same each time."""

import csv

import numpy as np
import pytest

from solder_vae.data.image_files import read_image
from solder_vae.data.synthetic.board.__main__ import main
from solder_vae.data.synthetic.board.layout import PACKAGES, inspection_window
from solder_vae.data.synthetic.board.scene import render_board


@pytest.fixture(scope="module")
def picture():
    return render_board(seed=0)


@pytest.mark.slow
def test_fiducials_are_where_the_board_says(picture):
    """Measured in the picture itself: the bright disc's centre of mass."""
    for x, y in picture.fiducials.values():
        column, row = picture.pixels(x, y)
        left, top = int(column) - 30, int(row) - 30
        disc = picture.image[top : top + 60, left : left + 60].min(axis=2) > 180
        rows, columns = np.mgrid[top : top + 60, left : left + 60] + 0.5
        assert columns[disc].mean() == pytest.approx(column, abs=0.2)
        assert rows[disc].mean() == pytest.approx(row, abs=0.2)


@pytest.mark.slow
def test_another_seed_another_board(picture):
    """The same one gives the same board: see test_command."""
    other = render_board(seed=3)
    assert not np.array_equal(other.image, picture.image)
    assert other.defects != picture.defects


@pytest.mark.slow
def test_defects_show_where_the_truth_says(picture):
    """Against the same board without defects: the defective joints change, the others do not."""
    sound = render_board(seed=0, defective=0)
    assert set(sound.defects.values()) == {"normal"}
    difference = np.abs(picture.image.astype(int) - sound.image).max(axis=2)
    change = {"normal": [], "abnormal": []}
    for part in picture.components:
        package = PACKAGES[part.package]
        for pad in range(2 * package.count):
            offset = complex(*inspection_window(package, pad)) * np.exp(1j * np.radians(part.rotation))
            column, row = (int(at) for at in picture.pixels(part.x + offset.real, part.y + offset.imag))
            kind = "normal" if picture.defects[f"{part.name}.{pad + 1}"] == "normal" else "abnormal"
            change[kind].append(difference[row - 20 : row + 20, column - 20 : column + 20].mean())
    assert len(change["abnormal"]) >= 8
    assert min(change["abnormal"]) > 2 * np.median(change["normal"])


@pytest.mark.slow
@pytest.mark.measured
def test_command(picture, tmp_path, capsys):
    assert main(["--out", str(tmp_path / "board")]) == 0
    assert np.array_equal(read_image(tmp_path / "board/board.png"), picture.image)
    with (tmp_path / "board/truth.csv").open(encoding="utf-8") as file:
        assert {row["name"]: row["label"] for row in csv.DictReader(file)} == picture.defects
    assert main(["--out", str(tmp_path / "board")]) == 2
    assert "exists already" in capsys.readouterr().err
