"""One run with known defects through the commands: train, predict, threshold."""

import csv
import json
import subprocess

import numpy as np
import pytest
from checkpoints import as_function
from commands import run_command, train

from solder_vae import Inspector
from solder_vae.data.synthetic import render
from solder_vae.inspection.onnx.graph import InspectionGraph
from solder_vae.inspection.onnx.parity import compare

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    result = train(
        "score=combined", "data.known=12", "data.defects=[bridge,missing_component]", "hydra.run.dir=run", cwd=folder
    )
    assert result.returncode == 0, result.stderr
    return folder, result


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_says_what_was_known_and_how_well_types_are_told(run):
    folder, result = run
    numbers = json.loads((folder / "run/metrics.json").read_text())
    assert (numbers["known"], numbers["known/bridge"], numbers["known/missing_component"]) == (12, 6, 6)
    assert "known     12 images: 6 bridge, 6 missing_component" in result.stderr
    rows = [row for row in table(folder / "run/predictions.csv") if row["defect"] != "normal"]
    assert numbers["test/type_n"] == len(rows) == 9
    assert numbers["test/type_accuracy"] == np.mean([row["defect"] == row["type"] for row in rows])
    assert {"knn", "classifier", "combined"} <= rows[0].keys()


def test_an_inspection_gives_the_type_with_its_probability(run):
    folder, _ = run
    inspector = Inspector.load(folder / "run/best.ckpt")
    images = [render(9, "test_abnormal", index, "bridge").image for index in range(3)]
    verdicts = inspector.score(images)
    assert {verdict.likeness.type for verdict in verdicts} <= {"bridge", "missing_component"}
    assert all(0.5 <= verdict.likeness.probability <= 1 for verdict in verdicts)
    assert verdicts[0].row["type"] == verdicts[0].likeness.type


def test_predict_and_threshold_take_the_checkpoint(run):
    folder, _ = run
    (folder / "joints").mkdir()
    import cv2

    for index in range(24):
        image = render(5, "val", index).image
        cv2.imwrite(str(folder / f"joints/{index}.png"), np.ascontiguousarray(image[..., ::-1]))
    commands = (
        ("threshold", "checkpoint=run/best.ckpt", "rule=quantile", "q=0.9", "normals=joints", "out=new"),
        ("predict", "checkpoint=new/calibrated.ckpt", "images=joints", "out=seen"),
    )
    for command in commands:
        result: subprocess.CompletedProcess[str] = run_command(*command, cwd=folder)
        assert result.returncode == 0, result.stderr
    rows = table(folder / "seen/predictions.csv")
    assert sum(row["label"] == "abnormal" for row in rows) <= 3  # of 24, at the 0.9 quantile of the same
    assert {row["type"] for row in rows} <= {"bridge", "missing_component"}
    assert json.loads((folder / "seen/predictions.json").read_text())["predictions"][0]["type_probability"] >= 0.5


def test_the_graph_to_export_decides_as_the_checkpoint(run):
    """The export itself is test_backbone_run's."""
    inspector = Inspector.load(run[0] / "run/best.ckpt")
    assert compare(inspector, as_function(InspectionGraph(inspector)), count=20).holds


def test_a_classifier_without_known_defects_is_refused_before_training(tmp_path):
    result = train("score=classifier", "hydra.run.dir=run", cwd=tmp_path)
    assert result.returncode == 2
    assert "score=classifier learns from known defects and there are none" in result.stderr
