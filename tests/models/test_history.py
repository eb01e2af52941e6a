"""The log of a checkpoint: what is in it, what is shown of it, and files that have none or nonsense."""

import re

import pytest
import torch
from checkpoints import pictures, write_checkpoint, write_images
from commands import run_command, train

from solder_vae.inspection.inspector import Inspector
from solder_vae.models.checkpoint import read_checkpoint
from solder_vae.models.history import entries, entry, line, lines
from solder_vae.threshold import run as threshold


def test_the_latest_of_each_kind_is_in_the_line_and_all_are_in_the_lines():
    log = [entry("trained", "a", "A"), *(entry("thresholds", f"set {at}", f"T{at}") for at in range(3))]
    assert re.fullmatch(r"A \(20\d\d-\d\d-\d\d\); T2 \(20\d\d-\d\d-\d\d\)\.", line(log))
    assert [text.partition("UTC: ")[2] for text in lines(log)] == ["a.", "set 0.", "set 1.", "set 2."]
    assert line([]) == ""


@pytest.mark.parametrize("nonsense", [None, 3, "x", [3], [{"when": "now"}], {"when": 1}, [{"when": 1, "what": 2}]])
def test_nonsense_is_left_out(nonsense):
    assert entries(nonsense) == []
    (cleaned,) = entries([{**entry("trained", "x", "y"), "text": "\x1b[31m", "more": torch.zeros(2)}])
    assert cleaned["text"] == "\\x1b[31m"
    assert cleaned.keys() == {"when", "what", "text", "brief"}


@pytest.mark.slow
@pytest.mark.measured
def test_a_checkpoint_without_a_log_works_and_threshold_begins_one(tmp_path, capsys):
    path, _ = write_checkpoint(tmp_path / "old.ckpt")
    assert threshold([f"checkpoint={path}", "show=true"]) == 0
    assert "has no log" in capsys.readouterr().out
    write_images(tmp_path / "good", pictures(30))
    arguments = ["rule=quantile", "q=0.9", f"normals={tmp_path / 'good'}", f"out={tmp_path / 'new'}"]
    assert threshold([f"checkpoint={path}", *arguments]) == 0
    said = capsys.readouterr().out
    assert "from 30 given normals" in said
    assert "validation" not in said
    assert threshold([f"checkpoint={tmp_path / 'new/calibrated.ckpt'}", "show=true"]) == 0
    shown = capsys.readouterr().out
    assert "from 30 given normals: 10.0 %" in shown
    assert f"by quantile, q = 0.9, from 30 given normals (normals={tmp_path / 'good'})." in shown
    assert Inspector.load(tmp_path / "new/calibrated.ckpt").of_normals == "given normals"
    again = ["rule=quantile", "q=0.8", f"out={tmp_path / 'again'}"]
    assert threshold([f"checkpoint={tmp_path / 'new/calibrated.ckpt'}", *again]) == 0
    assert "from 30 given normals" in capsys.readouterr().out
    assert len(read_checkpoint(tmp_path / "again/calibrated.ckpt")["log"]) == 2


@pytest.mark.slow
def test_a_training_says_when_and_on_what_and_equal_runs_differ_in_nothing_else(tmp_path):
    for name in ("one", "two"):
        assert train("model=cae", "score=knn", f"hydra.run.dir={name}", cwd=tmp_path).returncode == 0
    one, two = (read_checkpoint(tmp_path / name / "best.ckpt") for name in ("one", "two"))
    trained, limits = one["log"]
    length = f"{one['epoch'] + 1} epochs, {one['global_step']} steps"  # until the best one
    assert f"model=cae score=knn seed=0, {length}, on the embedded data set, hash " in trained["text"]
    assert "(train 48 good; val 24 good; test 9 good and 9 bad)" in trained["text"]
    assert limits["text"].endswith("by quantile, q = 0.95, from 24 validation normals")
    assert [each["text"] for each in one["log"]] == [each["text"] for each in two["log"]]
    for part in ("state_dict", "scores"):
        torch.testing.assert_close(one[part], two[part], rtol=0, atol=0)
    assert one["calibration"] == two["calibration"]
    assert (tmp_path / "one/metrics.json").read_bytes() == (tmp_path / "two/metrics.json").read_bytes()
    write_images(tmp_path / "images", pictures(3))
    seen = run_command("predict", "checkpoint=one/best.ckpt", "images=images", "out=out", cwd=tmp_path)
    assert "The checkpoint: trained on 48 good joints, data " in seen.stdout
    assert "trained: model=cae" in (tmp_path / "out/report.html").read_text()
