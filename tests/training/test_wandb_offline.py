"""What an offline Weights & Biases run holds, read back from its files: all that a later ``wandb sync`` sends."""

import base64
import csv
import hashlib
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from commands import train, wandb_leet

from solder_vae.training.run_files import IMAGES_SHOWN, rows_with_pictures, summary_numbers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a sweep's only job."""
    folder = tmp_path_factory.mktemp("offline")
    choices = ("model=beta_vae", "beta=0.5", "score=elbo", "logger.tags=[line 3]", "logger.project=joints")
    result = train("-m", *choices, "pictures=true", "hydra.sweep.dir=sweeps/mine", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "sweeps/mine/0"


@pytest.fixture(scope="module")
def records(job):
    """The run's records in order, each as its type and content."""
    lines = map(json.loads, wandb_leet("inspect", "--json", job / "wandb/latest-run").splitlines())
    return [(line["type"], line.get(line["type"], {})) for line in lines]


@pytest.fixture(scope="module")
def history(records):
    return [record["item"] for kind, record in records if kind == "history"]


def of_kind(records, kind):
    return [record for found, record in records if found == kind]


@pytest.mark.measured
def test_the_run_is_named_grouped_tagged_and_can_be_repeated(records, job):
    (run,) = of_kind(records, "run")
    assert run["display_name"] == "beta_vae beta=0.5 elbo seed=0"
    assert (run["run_group"], run["project"]) == ("mine", "joints")
    assert set(run["tags"]) == {"line 3", "beta_vae", "elbo", "synthetic"}
    overrides = yaml.safe_load((job / ".hydra/overrides.yaml").read_text())
    assert shlex.split(run["notes"]) == ["python", "-m", "solder_vae.train", *overrides], "this run alone, to paste"
    (end,) = of_kind(records, "exit")
    assert end["exit_code"] == 0
    assert of_kind(records, "stats"), "of the system: memory, processors"


def test_the_config_is_the_run_s(records, job):
    (run,) = of_kind(records, "run")
    logged = {key: value for key, value in run["config"]["update"].items() if key != "_wandb"}
    assert logged.pop("choices") == {"model": "beta_vae", "score": "elbo", "data": "synthetic", "threshold": "quantile"}
    assert logged == yaml.safe_load((job / "config.yaml").read_text()), "nested as in the file"
    assert logged["model"]["lr"] == 1e-3


def test_curves_are_those_of_metrics_csv(history, job):
    with (job / "metrics.csv").open(newline="") as file:
        written = [
            (key, int(row["step"]), float(value))
            for row in csv.DictReader(file)
            for key, value in row.items()
            if value and key not in ("step", "epoch")
        ]
    logged = [
        (key, item["trainer/global_step"], value)
        for item in history
        for key, value in item.items()
        if key.startswith(("train/", "val/", "lr-"))
    ]
    assert {key for key, *_ in written} >= {"train/loss", "val/loss", "val/recon", "val/kl", "lr-Muon"}
    assert sorted(logged) == [(key, step, pytest.approx(value, rel=1e-6)) for key, step, value in sorted(written)]


def test_results_are_those_of_metrics_json(records, history, job):
    numbers = summary_numbers(json.loads((job / "metrics.json").read_text()))
    results = {key: value for key, value in numbers.items() if not key.startswith("val/")}
    summary = {}
    for record in of_kind(records, "summary"):
        summary |= record["update"]
    (logged,) = [item for item in history if "test/auroc" in item]
    assert {"test/elbo/f1", "test/recon/auroc", "test/auroc_low", "baseline/size/auroc"} <= set(results)
    for key, value in results.items():
        assert logged[key] == pytest.approx(value, rel=1e-6), key
        assert summary[key] == pytest.approx(value, rel=1e-6), key
    for key in ("loss", "recon", "kl"):
        assert summary[f"best/{key}"] == pytest.approx(numbers[f"val/{key}"], rel=1e-6)


def test_the_best_of_each_metric_is_at_its_right_end(records):
    ends = {
        metric.get("name") or metric["glob_name"]: set(metric.get("summary") or ())
        for metric in of_kind(records, "metric")
    }
    assert ends["val/*"] == ends["train/*"] == {"min", "last"}
    assert ends["val/kl"] == ends["val/active_units"] == {"last"}
    for part in ("test", "test/recon", "test/elbo", "test/gradcon"):
        assert all(ends[f"{part}/{key}"] == {"max"} for key in ("auroc", "precision", "recall", "f1"))
        assert all(ends[f"{part}/{key}"] == {"min"} for key in ("false_call_rate", "escape_rate"))


def test_pictures_and_predictions_are_the_run_s(history, records, job):
    files = job / "wandb/latest-run/files"
    logged = {
        key.removeprefix("pictures/").removesuffix(".filenames"): files / value[0]
        for item in history
        for key, value in item.items()
        if key.endswith(".filenames")
    }
    pictures = {path.stem: path for path in job.glob("*.png")}
    assert set(logged) == set(pictures) >= {"score_histogram", "reconstructions", "roc", "loss_curves"}
    for name, path in pictures.items():
        assert logged[name].read_bytes() == path.read_bytes(), name
    (path,) = (item["predictions.path"] for item in history if "predictions.path" in item)
    table = json.loads((files / path).read_text())
    assert table["columns"].pop() == "image"
    images = [row.pop() for row in table["data"]]
    with (job / "predictions.csv").open(newline="") as file:
        assert [table["columns"], *table["data"]] == list(csv.reader(file))
    assert images == ["Image"] * 18  # all of them: there are fewer than IMAGES_SHOWN
    (sent,) = [item for item in of_kind(records, "artifact") if item["name"].endswith("-predictions")]
    pictures = [item for item in sent["manifest"]["contents"] if item["path"].startswith("media/images/")]
    assert len(pictures) == 18
    assert all(Path(item["local_path"]).read_bytes().startswith(b"\x89PNG") for item in pictures)


def test_curves_have_epochs_as_their_axis(records, history):
    metrics = of_kind(records, "metric")
    axis = {metric.get("name") or metric["glob_name"]: metric.get("step_metric") for metric in metrics}
    assert {axis[name] for name in ("train/*", "val/*", "val/kl", "lr-*")} == {"epoch"}
    assert axis["test/auroc"] is None
    curves = [item for item in history if any(key.startswith(("train/", "val/", "lr-")) for key in item)]
    assert {item["epoch"] for item in curves} == {0, 1}


def test_roc_and_precision_recall_are_native_charts(history, job):
    files = job / "wandb/latest-run/files"
    for name, ends in (("roc", ([0, 0], [1, 1])), ("pr", (None, [0, 1]))):
        (path,) = {item[key] for item in history for key in item if key == f"curves/{name}_table.path"}
        table = json.loads((files / path).read_text())
        assert table["columns"] == ["step", "lineKey", "lineVal"]
        by_score = {key: [row[::2] for row in table["data"] if row[1] == key] for _, key, _ in table["data"]}
        assert set(by_score) == {"recon", "elbo", "gradcon"}
        for points in by_score.values():
            assert points[-1] == ends[1]
            assert ends[0] in (None, points[0])


def test_few_of_many_images_are_sent():
    """The clearest mistakes first, and never more than the bound."""
    scores = np.linspace(-1, 1, 200)
    labels = np.where(np.arange(200) < 2, 1, 0)  # two escapes at the bottom, false calls from 101 up
    evaluation = SimpleNamespace(
        primary="recon", test={"recon": scores}, limits=np.zeros(200), predicted=scores > 0,
        table=SimpleNamespace(labels=labels),
    )  # fmt: skip
    shown = rows_with_pictures(evaluation)
    assert len(shown) == IMAGES_SHOWN
    assert {0, 1, 199} <= shown
    assert 100 not in shown


def test_the_model_descends_from_the_data_by_their_content(records, job):
    artifacts = {artifact["type"]: artifact for artifact in of_kind(records, "artifact")}
    data, model = artifacts["dataset"], artifacts["model"]
    about_data, about_model = (json.loads(artifact["metadata"]) for artifact in (data, model))
    assert data["use_after_commit"], "the run uses it; else it would seem to have made it"
    assert not model.get("use_after_commit")
    assert data["name"] == f"data-{about_data['sha256'][:16]}"
    assert about_data | {"train": 48, "val": 24, "test": 18} == about_data
    (splits,) = data["manifest"]["contents"]
    assert {key: len(rows) for key, rows in json.loads(Path(splits["local_path"]).read_text()).items()} == {
        "train": 48, "val": 24, "test": 18,
    }  # fmt: skip
    assert model["name"] == "beta_vae-elbo"
    assert about_model["data"] == about_data["sha256"]
    assert (about_model["beta"], about_model["seed"]) == (0.5, 0)
    (checkpoint,) = model["manifest"]["contents"]
    assert Path(checkpoint["local_path"]) == job / "best.ckpt"
    assert base64.b64decode(checkpoint["digest"]) == hashlib.md5((job / "best.ckpt").read_bytes()).digest()
