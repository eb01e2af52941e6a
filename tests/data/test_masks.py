"""Masks of defects in MVTec AD's layout: read beside their images, in the images' order, cropped as they are."""

import json

import cv2
import numpy as np
import pytest
from checkpoints import pictures, png
from commands import run_command

from solder_vae.data.folder import FolderSource
from solder_vae.data.masks import mask_path


@pytest.fixture
def root(tmp_path):
    """MVTec: train/good, test/good, test/DEFECT and ground_truth/DEFECT/000_mask.png; pictures are 24 x 16."""
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 30), ("test/good", 6), ("test/bent", 4), ("test/cut", 4)):
        (tmp_path / folder).mkdir(parents=True)
        for number, square in enumerate(pictures(count, size=24, seed=len(folder))):
            image = square[:16].copy()
            if "good" not in folder:
                mask = np.zeros((16, 24), np.uint8)
                top, left = rng.integers(2, 9), rng.integers(5, 14)
                mask[top : top + 5, left : left + 5] = 255
                image[mask > 0] = 255
                name = tmp_path / folder.replace("test", "ground_truth") / f"{number:03d}_mask.png"
                name.parent.mkdir(parents=True, exist_ok=True)
                name.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
            (tmp_path / folder / f"{number:03d}.png").write_bytes(png(image))
    return tmp_path


def test_each_mask_lies_on_its_own_image(root):
    """The defects are white squares, so the mask says where the prepared image is white."""
    tables = FolderSource(root, image_size=16).tables()
    assert tables["train"].masks is None
    assert tables["val"].masks is None
    test = tables["test"]
    assert test.masks.shape == (14, 16, 16)
    for image, mask, defect in zip(test.images[:], test.masks, test.defects, strict=True):
        assert mask.any() == (defect != "normal")
        if mask.any():
            assert mask.sum() == 25
            assert (image[mask] == 255).all()


def test_a_missing_mask_is_said_and_nothing_is_measured_by_halves(root, caplog):
    (root / "ground_truth/bent/002_mask.png").unlink()
    assert FolderSource(root, image_size=16).tables()["test"].masks is None
    assert "1 of 8 defective test images have no mask" in caplog.text


@pytest.mark.parametrize(
    ("shape", "value", "told"),
    [
        ((8, 12), 255, "12 x 8 pixels, its image 24 x 16"),
        ((24, 16), 255, "16 x 24 pixels, its image 24 x 16"),
        ((16, 24), 0, "marks nothing"),
    ],
)
def test_a_mask_that_cannot_say_where_is_told_and_nothing_is_measured(root, caplog, shape, value, told):
    mask = root / "ground_truth/cut/001_mask.png"
    mask.write_bytes(cv2.imencode(".png", np.full(shape, value, np.uint8))[1].tobytes())
    assert FolderSource(root, image_size=16).tables()["test"].masks is None
    assert str(mask) in caplog.text
    assert told in caplog.text


def test_other_layouts_have_none(tmp_path):
    assert mask_path(tmp_path / "a.png") is None
    assert mask_path(type(tmp_path)("a.png")) is None


@pytest.mark.slow
def test_a_run_measures_where_the_maps_find_them(root):
    (root / "ground_truth/cut/001_mask.png").write_bytes(
        cv2.imencode(".png", np.pad(np.full((1, 1), 255, np.uint8), ((8, 7), (12, 11))))[1].tobytes()
    )  # a speck: nothing is left of it at 16 px
    options = (
        "data=folder",
        "few_normals=accept",
        f"data.root={root}",
        "data.image_size=16",
        "data.batch_size=8",
        "trainer.max_epochs=1",
    )
    run = ("score=recon", "logger.mode=disabled", "hydra.run.dir=run")
    result = run_command("train", *options, *run, "pictures=false", cwd=root)
    assert result.returncode == 0, result.stderr
    numbers = json.loads((root / "run/metrics.json").read_text())
    assert 0 <= numbers["test/localisation/pixel_auroc"] <= 1
    assert 0 <= numbers["test/localisation/defect/bent/aupro"] <= 1
    assert "Where the anomaly map finds them" in result.stdout
