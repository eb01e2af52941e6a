"""What a recalibration takes of the joints that it is given: good ones alone, and each picture once."""

import re

import numpy as np
import pytest
import torch
from checkpoints import SIZE, pictures, write_checkpoint, write_images

from solder_vae.data.table import ImageTable
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def remembering(tmp_path_factory):
    """A narrow network, whose features are soon whitened, with 60 normals in its memory."""
    count = {"train": 60, "val": 30}
    tables = {
        split: ImageTable(pictures(n, seed=n), [*map(str, range(n))], ["normal"] * n, np.full((n, 2), SIZE))
        for split, n in count.items()
    }
    path = tmp_path_factory.mktemp("remembering") / "best.ckpt"
    return write_checkpoint(path, score="knn", tables=tables, scores={"knn": {}}, width=8)[0]


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["keep", "add", "replace"])
def test_a_picture_that_is_given_twice_counts_once(memory, remembering, tmp_path, caplog):
    """Else each copy would be the other's nearest neighbour, at distance 0."""
    images = pictures(15, seed=7)
    write_images(tmp_path / "once", images)
    write_images(tmp_path / "twice", np.concatenate([images, images[::-1]]))
    found = []
    for folder in ("once", "twice"):
        out = tmp_path / f"of_{folder}"
        options = [f"normals={tmp_path / folder}", f"memory={memory}", f"out={out}"]
        run([f"checkpoint={remembering}", "rule=false_call_rate", "rate=0.1", *options])
        found.append(Inspector.load(out / "calibrated.ckpt"))
    once, twice = found
    assert "15 of the 30 normals are copies of others and do not count" in caplog.text
    assert once.threshold.n == twice.threshold.n == 15
    for name, scores in once.validation_scores.items():
        assert twice.validation_scores[name] == pytest.approx(scores, rel=1e-4)
    memories = [inspector.model.scores["knn"].memory for inspector in found]
    torch.testing.assert_close(memories[0], memories[1], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_false_calls_that_are_labelled_twice_are_not_each_others_neighbours(remembering, tmp_path, capsys):
    images = pictures(8, seed=7)
    write_images(tmp_path / "once/normal", images)
    write_images(tmp_path / "twice/normal", np.concatenate([images, images]))
    called = []
    for folder in ("once", "twice"):
        out = tmp_path / f"of_{folder}"
        options = [f"labelled={tmp_path / folder}", "memory=add", f"out={out}"]
        run([f"checkpoint={remembering}", "rule=quantile", "q=0.02", *options])
        inspector = Inspector.load(out / "calibrated.ckpt")
        assert len(inspector.model.scores["knn"].memory) == 68
        assert "8 joints added to the memory" in str(inspector.model.log)
        called.append(int(re.search(r"labelled=\S+: (\d+) of", capsys.readouterr().out)[1]))
    assert called[0] > 0
    assert called[1] == 2 * called[0]


@pytest.mark.slow
def test_normals_that_are_in_the_memory_are_told(remembering, tmp_path, caplog):
    write_images(tmp_path / "some", np.concatenate([pictures(60, seed=60)[:7], pictures(30, seed=8)]))
    options = [f"checkpoint={remembering}", "rule=quantile", f"normals={tmp_path / 'some'}"]
    run([*options, f"out={tmp_path / 'keep'}"])
    assert "7 of the 37 normals are in the memory already" in caplog.text
    caplog.clear()
    run([*options, f"out={tmp_path / 'add'}", "memory=add"])
    assert "in the memory already" not in caplog.text
    run([*options[:2], f"normals={tmp_path / 'some'}", f"out={tmp_path / 'recon'}", "score=mahalanobis"])
    assert "in the memory already" not in caplog.text
