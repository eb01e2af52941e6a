"""The training command as a user runs it: what it leaves behind, that it repeats and resumes exactly, its errors."""

import contextlib
import csv
import json
import os
import pty
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import warm
import yaml
from commands import TINY, inspect_wandb, run_command, train
from pages import Page

pytestmark = pytest.mark.slow

FILES = {
    "best.ckpt",
    "last.ckpt",
    "config.yaml",
    "metrics.csv",
    "metrics.json",
    "predictions.csv",
    "train.log",
    "loss_curves.png",
    "score_histogram.png",
    "roc.png",
    "pr.png",
    "reconstructions.png",
    "report.html",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the default command (beta-VAE, beta 3, GradCon), seed 0."""
    folder = tmp_path_factory.mktemp("finished")
    result = train("hydra.run.dir=run", "pictures=true", "logger.mode=offline", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run", result


def test_a_run_leaves_everything_behind(finished):
    directory, result = finished
    assert {path.name for path in directory.iterdir()} >= FILES
    assert not [path for path in directory.iterdir() if path.name.endswith(".tmp")]
    shown = Page((directory / "report.html").read_text(encoding="utf-8")).data["joints"]
    with (directory / "predictions.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert {joint["path"] for joint in shown} == rows.keys()
    for joint in shown:
        row = rows[joint["path"]]
        assert (joint["truth"], joint["label"] == "abnormal") == (row["defect"], row["predicted"] == "1")
        assert joint["margin"] == pytest.approx(float(row["margin"]), rel=1e-6)
    for picture in directory.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    config = yaml.safe_load((directory / "config.yaml").read_text())
    assert (config["beta"], config["model"]["beta"], config["score"]["name"], config["seed"]) == (3, 3, "gradcon", 0)
    for word in (
        "AUROC",
        "gradcon *",
        "elbo",
        "recon",
        "all abnormal",
        "mean colour",
        "bridge",
        "Threshold of gradcon",
    ):
        assert word in result.stdout


def test_numbers_agree_with_each_other(finished):
    directory, _ = finished
    metrics = json.loads((directory / "metrics.json").read_text())
    with (directory / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    labels = np.array([int(row["label"]) for row in rows])
    predicted = np.array([int(row["predicted"]) for row in rows])
    scores = np.array([float(row["gradcon"]) for row in rows])
    threshold = metrics["thresholds"]["gradcon"]["value"]
    assert {float(row["threshold"]) for row in rows} == {threshold}
    assert (predicted == (scores > threshold)).all()
    assert metrics["test/tp"] == (predicted & labels).sum()
    assert metrics["test/false_call_rate"] == pytest.approx(predicted[labels == 0].mean())
    assert metrics["test/gradcon/auroc"] == metrics["test/auroc"]
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    assert metrics["test/auroc"] == pytest.approx(np.mean(pairs), abs=1e-6)
    for name in ("recon", "elbo", "gradcon"):
        assert metrics[f"test/{name}/floor_f1"] == pytest.approx(2 / 3)
    assert {f"baseline/{name}/auroc" for name in ("mean colour", "size", "nearest pixels")} <= set(metrics)


def test_checkpoint_decides_alone(finished):
    """The checkpoint holds what a decision needs: the threshold, the validation scores, the preprocessing."""
    from solder_vae.models.checkpoint import load_model

    directory, _ = finished
    metrics = json.loads((directory / "metrics.json").read_text())
    model = load_model(directory / "best.ckpt")
    assert model.preprocessing == {"image_size": 16, "view": "plain"}
    assert model.decision_state["primary"] == "gradcon"
    assert model.decision_state["thresholds"] == metrics["thresholds"]
    assert len(model.decision_state["validation_scores"]["gradcon"]) == 24
    assert model.reference.steps == 6 or model.reference.steps == 3  # best after the second or the first epoch


def test_same_seed_same_bits_and_another_seed_others(finished, tmp_path):
    directory, _ = finished
    assert train("hydra.run.dir=again", cwd=tmp_path).returncode == 0
    assert (tmp_path / "again/metrics.json").read_bytes() == (directory / "metrics.json").read_bytes()
    assert (tmp_path / "again/predictions.csv").read_bytes() == (directory / "predictions.csv").read_bytes()
    assert train("hydra.run.dir=other", "seed=1", cwd=tmp_path).returncode == 0
    assert (tmp_path / "other/metrics.json").read_bytes() != (directory / "metrics.json").read_bytes()


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.measured
def test_resume_ends_in_the_same_weights(tmp_path):
    """Also across a drop of the learning rate, which is due between the two parts."""
    common = ("optimizer=adam", "scheduler=plateau", "model.lr=0.02", "model.lr_patience=0")
    assert train(*common, "trainer.max_epochs=4", "hydra.run.dir=whole", cwd=tmp_path).returncode == 0
    assert train(*common, "trainer.max_epochs=2", "hydra.run.dir=part", cwd=tmp_path).returncode == 0
    resumed = train(*common, "trainer.max_epochs=4", "resume=part/last.ckpt", "hydra.run.dir=rest", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    for name in ("last.ckpt", "best.ckpt"):
        whole, rest = weights(tmp_path / "whole" / name), weights(tmp_path / "rest" / name)
        assert all(torch.equal(whole[key], rest[key]) for key in whole)
    assert (tmp_path / "whole/metrics.json").read_bytes() == (tmp_path / "rest/metrics.json").read_bytes()
    rates = [row["lr-Adam"] for row in csv.DictReader((tmp_path / "whole/metrics.csv").open()) if row["lr-Adam"]]
    assert rates[1] == "0.02" > rates[2], "the drop must come where the training is cut"


@pytest.mark.parametrize("flags", [["--config-dir=own", "experiment=both"], ["hydra.mode=MULTIRUN"]])
def test_a_sweep_may_be_asked_for_by_hydras_mode(flags, tmp_path):
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/both.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    result = train(*flags, "seed=0,1", "data.val=0", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert "error: 2 of 2 jobs failed" in result.stderr


@pytest.mark.measured
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=vae", "beta=3"], "model=beta_vae beta=3"),
        (["model=cae", "score=elbo"], "use one of score=recon, score=gradcon"),
        (["model=resnet"], "beta_vae, cae, vae"),
        (["score=f1"], "blend, classifier, combined, elbo, gradcon, knn, mahalanobis, pixels, recon"),
        (["threshold=best"], "false_call_rate, fixed, quantile, sigma"),
        (["threshold.q=1.5"], "rule quantile needs q=NUMBER, a number from 0 to 1, got 1.5"),
        (["betta=3"], "betta"),
        (["data=folder"], "data.root"),
        (["data=folder", "data.root=nowhere"], "nowhere"),
        (["resume=nowhere.ckpt"], "nowhere.ckpt"),
        (["data.image_size=20"], "multiple of 8"),
        (["model.lr=1e30"], "The training loss became"),
        (["logger.mode=loud"], "offline, online, disabled"),
        (["seed=-1"], "seed=-1"),
        (["seed=null"], "seed=null"),
        (["trainer.max_epochs=abc"], "trainer.max_epochs=abc"),
        (["trainer.devices=2"], "trainer.devices=2"),
        (["model.lr_factor=2"], "model.lr_factor=2"),
        (["data.val=0"], "0 val images"),
        (["data.test_normal=0", "data.test_abnormal=0"], "0 test images"),
        (["data.batch_size=abc"], "does not fit"),
        (["threshold=false_call_rate", "threshold.rate=0.01"], "needs at least 99 normals, there are 24"),
        (["hydra.run.dir=/proc/none"], "/proc/none"),
    ],
)
def test_mistakes_get_one_sentence_and_status_2(overrides, message, tmp_path):
    tiny = () if "data=folder" in overrides else None
    run = (lambda *args, cwd: run_command("train", *args, cwd=cwd)) if tiny == () else train
    result = run("hydra.run.dir=run", *overrides, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_help_lists_the_choices_at_once(tmp_path):
    result = run_command("train", "--help", cwd=tmp_path, fresh=True)
    assert result.returncode == 0
    for words in ("beta_vae, cae, vae", "elbo, gradcon, knn, mahalanobis, pixels, recon", "data=folder data.root=PATH"):
        assert words in result.stdout


def test_dashboards_get_config_metrics_pictures_and_predictions(finished):
    logged = inspect_wandb(finished[0])
    config, summary = logged["config"], logged["summary"]
    choices = config["choices"]
    assert (choices["model"], config["beta"], choices["score"], config["seed"]) == ("beta_vae", 3, "gradcon", 0)
    assert logged["state"] == "finished"
    for key in ("train/loss", "val/loss"):
        assert summary[key]["min"] <= summary[key]["last"]
    for key in ("best/loss", "test/precision", "test/recall", "test/f1", "test/auroc", "test/recon/auroc"):
        assert isinstance(summary[key], int | float)
    assert summary["predictions"]["nrows"] == 18
    assert "pictures/reconstructions" in summary


def test_a_sweep_is_one_group_of_finished_runs(tmp_path):
    options = ("model=cae,vae", "score=recon", "logger.mode=offline", "hydra.sweep.dir=sweeps/mine")
    result = train("-m", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    runs = [inspect_wandb(tmp_path / "sweeps/mine" / job) for job in ("0", "1")]
    assert [run["name"] for run in runs] == ["cae recon seed=0", "vae beta=1 recon seed=0"]
    assert {run["state"] for run in runs} == {"finished"}
    table = run_command("report", "sweeps/mine", cwd=tmp_path, fresh=True)
    assert table.returncode == 0, table.stderr
    assert "| cae " in table.stdout
    assert "| mean colour alone " in table.stdout


def test_best_epoch_survives_a_resumption_elsewhere(tmp_path):
    """The best epoch came before the interruption: it must be found, although the run goes on in another folder."""
    assert train("scheduler=plateau", "trainer.max_epochs=2", "hydra.run.dir=whole", cwd=tmp_path).returncode == 0
    assert train("scheduler=plateau", "trainer.max_epochs=1", "hydra.run.dir=part", cwd=tmp_path).returncode == 0
    part = torch.load(tmp_path / "part/best.ckpt", weights_only=True)
    whole = torch.load(tmp_path / "whole/best.ckpt", weights_only=True)
    assert whole["epoch"] == 0, "this setting must have its best epoch early, or the test shows nothing"
    resumed = train(
        "scheduler=plateau", "trainer.max_epochs=2", "resume=part/last.ckpt", "hydra.run.dir=rest", cwd=tmp_path
    )
    assert resumed.returncode == 0, resumed.stderr
    rest = torch.load(tmp_path / "rest/best.ckpt", weights_only=True)
    assert rest["epoch"] == whole["epoch"] == part["epoch"]
    assert all(torch.equal(rest["state_dict"][key], value) for key, value in whole["state_dict"].items())
    assert (tmp_path / "rest/metrics.json").read_bytes() == (tmp_path / "whole/metrics.json").read_bytes()


def test_a_terminal_shows_a_progress_bar(tmp_path):
    """On a terminal a bar counts the steps of all epochs; without one (all other tests) there is none."""
    controller, terminal = pty.openpty()
    options = ("logger.mode=disabled", "pictures=false", "hydra.run.dir=run")
    command = [warm.python(), "-m", "solder_vae.train", *TINY, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # raised when the process has closed its end
        while chunk := os.read(controller, 65536):
            shown += chunk
    os.close(controller)
    assert process.wait(timeout=600) == 0, shown.decode()[-2000:]
    assert "6/6" in shown.decode(), "two epochs of three steps"
    assert shown.startswith(b"Training beta_vae (beta=3) on the embedded data set"), "before anything takes time"
    assert "AUROC" in shown.decode()


@pytest.mark.measured
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_epochs=2"], "has had 2 of 2 epochs"),
        (["trainer.max_epochs=4", "beta=4"], "beta was 3, now 4"),
        (["trainer.max_epochs=4", "model=cae", "score=recon"], "resume it with model=beta_vae"),
    ],
)
def test_what_cannot_be_resumed_is_refused(finished, overrides, message, tmp_path):
    result = train(f"resume={finished[0] / 'last.ckpt'}", *overrides, "hydra.run.dir=run", cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr


def test_metrics_are_there_before_pictures_are_drawn(tmp_path, monkeypatch):
    """A result is worth more than its pictures."""
    from solder_vae.training import run_files

    class Drawing(Exception):
        pass

    def draw(*_):
        raise Drawing

    monkeypatch.setattr(run_files, "figures", draw)
    monkeypatch.setattr(run_files, "prediction_rows", lambda _: [["path"]])
    model = SimpleNamespace(diagnostics=dict)
    with pytest.raises(Drawing):
        run_files.write_artefacts(tmp_path, model, None, {"test/f1": 1.0})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"test/f1": 1.0}
