"""What a recalibration takes of the joints that it is given: good ones alone, and each picture once."""

import pytest
from checkpoints import pictures, write_checkpoint, write_images

from solder_vae.inspection.inspector import Inspector
from solder_vae.threshold import run
from solder_vae.utils.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("given") / "best.ckpt")[0]


def sorted_set(root, good="normal"):
    """40 good joints and 12 bad ones."""
    images = pictures(52, seed=5)
    return write_images(root / good, images[:40]), write_images(root / "short", images[40:])


def calibrated(checkpoint, out, normals, *options):
    """The scores that the threshold comes from."""
    run([f"checkpoint={checkpoint}", "rule=quantile", f"normals={normals}", f"out={out}", *options])
    return Inspector.load(out / "calibrated.ckpt").validation_scores["gradcon"]


def test_joints_that_a_folder_calls_bad_are_left_out_of_the_normals(checkpoint, tmp_path, caplog):
    sorted_set(tmp_path / "set")
    found = calibrated(checkpoint, tmp_path / "all", tmp_path / "set")
    assert "12 of its 52 joints are not good and left out (12 short)" in caplog.text
    assert found == calibrated(checkpoint, tmp_path / "good", tmp_path / "set/normal")
    assert calibrated(checkpoint, tmp_path / "pattern", tmp_path / "set/*/*.png") == found
    # Whoever gives a folder itself says that its joints are good.
    assert len(calibrated(checkpoint, tmp_path / "short", tmp_path / "set/short")) == 12


def test_own_names_of_the_normal_class_count(checkpoint, tmp_path):
    sorted_set(tmp_path / "set", "fine")
    assert len(calibrated(checkpoint, tmp_path / "unknown", tmp_path / "set")) == 52
    assert len(calibrated(checkpoint, tmp_path / "named", tmp_path / "set", "normal=fine")) == 40


def test_joints_that_a_table_calls_bad_or_undecided_are_left_out(checkpoint, tmp_path, caplog):
    good, bad = sorted_set(tmp_path / "set")
    labels = ["OK"] * 39 + ["undecided"] + ["void"] * 12
    rows = [f"{path},{label}" for path, label in zip([*good, *bad], labels, strict=True)]
    (tmp_path / "crops.csv").write_text("\n".join(["path,label", *rows]))
    assert len(calibrated(checkpoint, tmp_path / "out", tmp_path / "crops.csv")) == 39
    assert "13 of its 52 joints are not good and left out (1 undecided, 12 void)" in caplog.text
    (tmp_path / "bad.csv").write_text("\n".join(["path,label", *rows[40:]]))
    with pytest.raises(UserError, match=r"none of its 12 joints is good by its folder or label \(12 void\)"):
        calibrated(checkpoint, tmp_path / "no", tmp_path / "bad.csv")
    assert not (tmp_path / "no").exists()
