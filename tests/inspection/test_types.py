"""Component types through every command, by one small run with long boxes: training, predict, threshold, export."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from checkpoints import pictures, write_images
from commands import run_command

from solder_vae.data.folder import FolderSource
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.joints import find_joints
from solder_vae.inspection.onnx.export import write_onnx
from solder_vae.metrics.by_type import ALL
from solder_vae.metrics.threshold import FalseCallRate, Quantile, fit_threshold
from solder_vae.models.checkpoint import load_model
from solder_vae.models.neighbours import Knn
from solder_vae.utils.errors import UserError

REGEX = r"([RCU])\d+/"
OPTIONS = (
    "data=folder", "data.root=data", f"data.type_regex={REGEX}", "data.crop=letterbox", "data.image_size=16",
    "data.batch_size=32", "data.fractions=[50,40,10]", "model=cae", "score=knn", "trainer.max_epochs=1",
    "logger.mode=disabled", "pictures=false",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.measured]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """R and C have normals enough, U has not; C is darker."""
    folder = tmp_path_factory.mktemp("types")
    for kind, count, seed, share in (("R1", 70, 1, 1.0), ("C2", 70, 2, 0.4), ("U3", 12, 3, 0.7)):
        images = [(image[:20] * share).astype(np.uint8) for image in pictures(count + 5, 40, seed=seed)]
        write_images(folder / "data/normal" / kind, images[:count])
        write_images(folder / "data/short" / kind, [255 - image for image in images[count:]])
    done = run_command("train", *OPTIONS, "hydra.run.dir=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Within their type: C " in done.stdout
    return folder


def test_a_run_judges_each_test_image_within_its_type(run):
    numbers = json.loads((run / "run/metrics.json").read_text())
    assert set(numbers["thresholds_by_type"]) == {"R", "C"}
    rows = rows_of(run / "run/predictions.csv")
    for row in rows:
        kind = row["component"]
        assert kind == row["path"].split("/")[-2][0]
        own = numbers["thresholds_by_type"].get(kind, numbers["thresholds"])["knn"]
        assert row["judged_among"] == (kind if kind != "U" else ALL)
        assert float(row["threshold"]) == own["value"]
        assert row["predicted"] == str(int(float(row["knn"]) > own["value"]))
    counted = sum(row["predicted"] == "1" for row in rows if row["label"] == "1")
    assert numbers["test/tp"] == counted


@pytest.mark.parametrize("images", ["data", "data/**/*.png", "list.csv"])
def test_predict_decides_as_the_run_did(run, images, tmp_path):
    tested = {row["path"]: row for row in rows_of(run / "run/predictions.csv")}
    if images == "list.csv":  # a table's own type comes first
        lines = [f"{path},{row['component']}" for path, row in tested.items()]
        (run / images).write_text("\n".join(["path,type", *lines]))
    done = run_command("predict", "checkpoint=run/best.ckpt", f"images={images}", f"out={tmp_path}/out", cwd=run)
    assert done.returncode == 0, done.stderr
    assert "Within their type: C " in done.stdout
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert set(content["thresholds_by_type"]) == {"R", "C"}
    new = {row["path"].rpartition("data/")[2]: row for row in rows_of(tmp_path / "out/predictions.csv")}
    for path, row in tested.items():
        mine = new[path.rpartition("data/")[2]]
        assert (mine["component"], mine["judged_among"]) == (row["component"], row["judged_among"])
        assert float(mine["knn"]) == pytest.approx(float(row["knn"]), rel=1e-4)
        assert float(mine["threshold"]) == float(row["threshold"])
    assert '"judged_among":"R"' in (tmp_path / "out/report.html").read_text()


def test_ranks_and_thresholds_come_from_the_types_own_normals(run):
    inspector = Inspector.load(run / "run/best.ckpt")
    assert inspector.crop == "letterbox"
    paths = sorted((run / "data/short").rglob("*.png"))
    for result in inspector.score(paths):
        kind = result.judged_among
        normals = inspector.normals if kind == ALL else inspector.of_types[kind].scores["knn"]
        assert result.rank == np.mean(np.array(normals) < result.score)
        expected = fit_threshold(normals, Quantile(0.95)).value
        assert result.threshold == expected
    told = inspector.score(paths[:1], types=["U"])[0]
    assert (told.component, told.judged_among) == ("U", ALL)


def test_neighbours_are_looked_for_within_the_type(run):
    model = load_model(run / "run/best.ckpt")
    knn = model.scores["knn"]
    assert set(knn.kinds) == {"R", "C"}
    places = torch.cat(list(knn.kinds.values()))
    assert len(places.unique()) == len(places)
    features = torch.randn(9, len(knn.standard.mean), generator=torch.Generator().manual_seed(0))
    types = ["R", "C", "U", "", "R", "X", "C", "C", "R"]
    distances, found = knn.neighbours(features, types)
    points = knn.standard(features)
    for row, kind in enumerate(types):
        among = knn.kinds.get(kind, torch.arange(len(knn.memory)))
        by_hand = (knn.memory[among] - points[row]).norm(dim=1)
        assert distances[row, 0] == pytest.approx(float(by_hand.min()), rel=1e-5)
        assert found[row, 0] in among
    # somebody who knows of no types
    assert torch.all(knn.neighbours(features)[0] <= distances + 1e-5)


def test_one_left_out_is_compared_with_its_type():
    points = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    types = ["R"] * 25 + ["C"] * 25 + [""] * 10
    knn = Knn(k=2)
    knn.remember(points, types)
    scores = knn.among_themselves()
    for row, kind in enumerate(types):
        others = [place for place, each in enumerate(types) if place != row and (not kind or each == kind)]
        by_hand = (knn.memory[others] - knn.memory[row]).norm(dim=1).sort().values[:2].mean()
        assert scores[row] == pytest.approx(float(by_hand), rel=1e-4)
    again = Knn(k=2)
    again.load_state(knn.state())
    assert {kind: places.tolist() for kind, places in again.kinds.items()} == {
        kind: places.tolist() for kind, places in knn.kinds.items()
    }
    again.remember(points)
    assert not again.within_types


def test_recalibration_is_by_type(run, tmp_path):
    for number, more in enumerate(([], ["normals=data/normal"], ["normals=data/normal", "labelled=data"])):
        out = tmp_path / str(number)
        arguments = ("checkpoint=run/best.ckpt", "rule=false_call_rate", "rate=0.1", f"out={out}")
        done = run_command("threshold", *arguments, *more, cwd=run)
        assert done.returncode == 0, done.stderr
        assert "Within their type: C " in done.stdout
        before, after = (Inspector.load(path) for path in (run / "run/best.ckpt", out / "calibrated.ckpt"))
        assert after.type_regex == before.type_regex == REGEX
        for kind in ("R", "C"):
            normals = after.of_types[kind].scores["knn"]
            assert after.own[kind] == fit_threshold(normals, FalseCallRate(0.1))
            assert len(normals) == (70 if more else len(before.of_types[kind].scores["knn"]))
        chosen = next(row for row in rows_of(out / "trade_off.csv") if row["chosen"] == "1")
        assert float(chosen["threshold"]) == 0  # a difference from each joint's own
    with (out / "calibrated.ckpt").open("rb") as file:
        assert torch.load(file, weights_only=True)["calibration"]["types"].keys() == {"R", "C", "U"}


def test_normals_of_no_type_are_refused_by_a_memory_by_type(run, tmp_path):
    arguments = ("checkpoint=run/best.ckpt", "rule=quantile", "normals=data/normal/R1", f"out={tmp_path}/out")
    done = run_command("threshold", *arguments, "memory=add", cwd=run)
    assert done.returncode == 2
    assert "types (C, R), and no type is known of the 70 normals" in done.stderr
    write_images(tmp_path / "set" / "good", pictures(3))
    labelled = ("checkpoint=run/best.ckpt", "rule=quantile", f"labelled={tmp_path}/set", f"out={tmp_path}/out")
    done = run_command("threshold", *labelled, "memory=add", cwd=run)
    assert done.returncode == 2
    assert "no type is known of the 3 good joints of labelled=" in done.stderr
    assert not (tmp_path / "out").exists()
    done = run_command("threshold", *arguments, cwd=run)
    assert done.returncode == 0
    assert "Without a threshold of their own from now on are the types C, R" in done.stderr


def test_a_graph_that_would_need_types_is_refused(run, tmp_path):
    done = run_command("export", "checkpoint=run/best.ckpt", f"out={tmp_path}/a.onnx", cwd=run)
    assert done.returncode == 2
    assert "score=knn compares joints within their component type, which the graph is not told" in done.stderr
    assert "train without data.type_regex" in done.stderr
    inspector = Inspector(load_model(run / "run/best.ckpt"))
    inspector.type_regex = None  # then its types are a manifest's
    with pytest.raises(UserError, match="or train on a manifest without the column type"):
        write_onnx(inspector, tmp_path / "a.onnx")


def test_a_damaged_state_of_types_is_refused(run):
    model = load_model(run / "run/best.ckpt")
    for damage in ({"R": {}}, {"R": 3}, [1], {"R": {"thresholds": {}, "validation_scores": {"knn": [1.0]}}}):
        model.decision_state["types"] = damage
        with pytest.raises(UserError, match="calibration"):
            Inspector(model)
    del model.decision_state["types"]  # as in files of earlier versions
    assert Inspector(model).of_types == {}


def test_types_of_a_source(run, tmp_path):
    tables = FolderSource(run / "data", image_size=16, type_regex=REGEX).tables()
    for table in tables.values():
        assert table.types == [path.split("/")[-2][0] for path in table.paths]
    assert FolderSource(run / "data", image_size=16).tables()["train"].types is None
    with pytest.raises(UserError, match=r"data\.type_regex=\(Q\) matches no file's path"):
        FolderSource(run / "data", image_size=16, type_regex="(Q)").tables()
    with pytest.raises(UserError, match=r"data\.type_regex=Q needs parentheses"):
        FolderSource(run / "data", type_regex="Q")
    lines = [f"{path.relative_to(run)},{path.parts[-3]},{'Z' if at else ''}" for at, path in enumerate(
        sorted((run / "data").rglob("*.png")))]  # fmt: skip
    (run / "manifest.csv").write_text("\n".join(["path,label,type", *lines]))
    records = FolderSource(run / "manifest.csv", type_regex=REGEX).records()
    assert {record.type for record in records} == {"Z", "C"}  # the column comes before the name
    assert cv2.imread(str(records[0].path)) is not None


def test_a_board_tells_types_and_its_crops_can_be_trained_on(run, tmp_path):
    picture = np.concatenate(list(pictures(4, 40, seed=1)), axis=1)
    cv2.imwrite(str(tmp_path / "board.png"), picture)
    kinds = ["R", "C", "U", ""]
    boxes = [f"J{at},{40 * at},0,40,20,{kind}" for at, kind in enumerate(kinds)]
    (tmp_path / "pads.csv").write_text("\n".join(["name,x,y,width,height,type", *boxes]))
    board = (f"board={tmp_path}/board.png", f"pads={tmp_path}/pads.csv")
    done = run_command("predict", "checkpoint=run/best.ckpt", *board, f"out={tmp_path}/out", cwd=run)
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out/predictions.csv")
    assert [row["component"] for row in rows] == kinds
    assert [row["judged_among"] for row in rows] == ["R", "C", ALL, ALL]
    done = run_command("crop", *board, "label=normal", f"out={tmp_path}/crops", cwd=run)
    assert done.returncode == 0, done.stderr
    assert "100 % of the images are longer than 1.5:1" in done.stdout
    records = FolderSource(tmp_path / "crops/crops.csv").records()
    assert [(record.type, record.defect) for record in records] == [(kind, "normal") for kind in kinds]
    listed = find_joints(str(tmp_path / "crops/crops.csv"))
    assert [joint.type for joint in listed] == kinds


def test_places_are_relative_to_what_was_given(run, monkeypatch):
    monkeypatch.chdir(run)
    first = "normal/C2/000.png"
    assert find_joints("data")[0].place == first
    assert find_joints("data/*/*/*.png")[0].place == first
    assert find_joints("data/normal/C2/000.png")[0].place == "000.png"
