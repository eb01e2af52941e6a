"""``python -m solder_vae.data.synthetic`` and ``conf/data/synthetic.yaml``, used as a user does."""

import csv

import cv2
import numpy as np
import pytest
from commands import run_command
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from solder_vae.data.folder import FolderSource
from solder_vae.data.image_files import read_image
from solder_vae.data.synthetic import DEFECTS, SyntheticSource, render
from solder_vae.data.synthetic.__main__ import main
from solder_vae.data.synthetic.sheet import contact_sheet
from solder_vae.training.schema import register
from solder_vae.utils.cli import CONF


def rows(folder):
    with (folder / "factors.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_command_writes_images_masks_factors_and_a_sheet(tmp_path):
    done = run_command("data.synthetic", "--out", "out", "-n", "6", "--defect", "bridge", cwd=tmp_path, fresh=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = tmp_path / "out"
    table = rows(folder)
    assert [row["defect"] for row in table] == ["bridge"] * 6
    for row in table:
        image, mask = read_image(folder / row["image"]), cv2.imread(str(folder / row["mask"]), cv2.IMREAD_GRAYSCALE)
        assert image.shape[:2] == mask.shape == (int(row["native_height"]), int(row["native_width"]))
        assert set(np.unique(mask)) <= {0, 255}
        assert mask.any()
    assert read_image(folder / "sheet.png").std() > 10
    assert len(list(folder.rglob("*.png"))) == 2 * 6 + 1


def test_written_images_are_the_rendered_ones(tmp_path):
    assert main(["--out", str(tmp_path / "out"), "-n", "11", "--seed", "4", "--severity", "0.5", "0.5"]) == 0
    table = rows(tmp_path / "out")
    assert [row["defect"] for row in table] == ["normal", *DEFECTS, "normal"]
    assert [float(row["severity"]) for row in table] == [0.0] + [0.5] * 9 + [0.0]
    expected = render(4, "test_abnormal", 3, table[3]["defect"], (0.5, 0.5)).image
    np.testing.assert_array_equal(read_image(tmp_path / "out" / table[3]["image"]), expected)


@pytest.mark.slow
def test_what_the_command_writes_is_a_data_folder(tmp_path):
    main(["--out", str(tmp_path / "out"), "-n", "60"])
    tables = FolderSource(root=str(tmp_path / "out" / "images")).tables()
    assert sum(map(len, tables.values())) == 60
    assert set(tables["test"].defects) - {"normal"} == set(DEFECTS)


@pytest.mark.parametrize(
    "arguments", [["-n", "0"], ["--severity", "0.9", "0.1"], ["--severity", "0", "2"], ["--seed", "-1"]]
)
def test_mistakes_end_in_one_sentence_and_status_2(tmp_path, capsys, arguments):
    assert main(["--out", str(tmp_path / "out"), *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    assert main(["--out", str(tmp_path), "-n", "1"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_defect_is_refused_by_name(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path / "out"), "--defect", "tombstone"])
    assert "pin_holes" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "columns"), [(1, 10), (10, 10), (11, 10), (7, 3)])
def test_sheets_hold_every_tile(count, columns):
    joint = render(0, "test_abnormal", 0, "bridge")
    one, sheet = contact_sheet([joint], 1), contact_sheet([joint] * count, columns)
    gap = 4
    wide, high = min(count, columns), -(-count // columns)
    assert sheet.shape == (high * (one.shape[0] - gap) + gap, wide * (one.shape[1] - gap) + gap, 3)
    last = sheet[(high - 1) * (one.shape[0] - gap) :, ((count - 1) % columns) * (one.shape[1] - gap) :]
    np.testing.assert_array_equal(last[: one.shape[0], : one.shape[1]], one)


def test_the_shipped_config_makes_the_papers_set():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=["data=synthetic", "seed=7", "data.severity=[0.4,0.9]"])
    module = instantiate(config.data, _convert_="all")
    assert isinstance(module.source, SyntheticSource)
    assert module.source.counts == {"train": 2513, "val": 567, "test_normal": 84, "test_abnormal": 66}
    assert (module.source.seed, module.seed, module.source.severity) == (7, 7, (0.4, 0.9))
