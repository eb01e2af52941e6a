"""What examples/extension adds from outside the package goes every way that the package's own models go.

Each command runs as a user types it, in a copy of that folder: nothing of the package is touched.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import pictures, write_images
from commands import inspect_wandb, run_command, train
from documented import compose_command

from solder_vae.utils.errors import UserError
from solder_vae.utils.plugins import import_plugins

EXTENSION = Path(__file__).parents[2] / "examples" / "extension"
CONF = "--config-dir=conf"
RUNS = {
    "vq_vae": ("model=vq_vae", "score=recon", "scheduler=plateau"),
    # Large steps: after six small ones codes hardly vary, and their distances are mostly rounding.
    "wide": ("model=wide", "score=code_distance", "threshold=margin", "scheduler=plateau", "model.lr=0.02"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the extension with a trained run of each model, and joints to inspect."""
    folder = tmp_path_factory.mktemp("extension") / "mine"
    shutil.copytree(EXTENSION, folder, ignore=shutil.ignore_patterns("__pycache__"))
    write_images(folder / "joints", pictures(12))
    for name, options in RUNS.items():
        result = train(CONF, *options, "logger.mode=offline", f"hydra.run.dir=runs/{name}", cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


def done(*arguments, cwd):
    result = run_command(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_has_its_numbers_and_logs_them(name, folder):
    numbers = json.loads((folder / "runs" / name / "metrics.json").read_text())
    score = dict(option.split("=") for option in RUNS[name])["score"]
    assert numbers["score"] == score
    assert numbers["beta"] == (None if name == "vq_vae" else 3)
    assert f"test/{score}/auroc" in numbers
    assert "test/gradcon/auroc" in numbers, "the paper's decoder gives GradCon to every encoder"
    logged = inspect_wandb(folder / "runs" / name)
    assert f"test/{score}/auroc" in json.dumps(logged)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_it_is_resumed_and_reported(name, folder):
    options = (*RUNS[name], "trainer.max_epochs=3", f"resume=runs/{name}/last.ckpt", f"hydra.run.dir=more/{name}/0")
    result = train(CONF, *options, cwd=folder)
    assert result.returncode == 0, result.stderr
    printed = done("report", f"more/{name}", cwd=folder).stdout
    assert dict(option.split("=") for option in RUNS[name])["score"] in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_it_inspects_where_its_module_is_named_and_nowhere_else(name, folder):
    """A checkpoint names its plugin; nothing imports it unasked."""
    arguments = ("predict", f"checkpoint=runs/{name}/best.ckpt", "images=joints")
    result = run_command(*arguments, f"out=refused_{name}", cwd=folder)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "it needs plugins=[my_models]" in line
    assert not (folder / f"refused_{name}").exists()
    done(*arguments, f"out=verdicts_{name}", "plugins=my_models", cwd=folder)
    verdicts = json.loads((folder / f"verdicts_{name}" / "predictions.json").read_text())
    assert len(verdicts["predictions"]) == 12
    two = done(*arguments, f"out=two_{name}", "plugins=my_models", "processes=2", cwd=folder)
    assert two.returncode == 0
    assert (folder / f"two_{name}/predictions.csv").read_bytes() == (
        folder / f"verdicts_{name}/predictions.csv"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_its_threshold_is_set_anew_and_it_is_exported(name, folder):
    done(
        "threshold", f"checkpoint=runs/{name}/best.ckpt", "rule=margin", "share=0.8", "factor=1.5", "plugins=my_models",
        f"out=threshold_{name}", cwd=folder,
    )  # fmt: skip
    path = folder / f"threshold_{name}" / "calibrated.ckpt"
    arguments = ("export", f"checkpoint={path}", f"out={name}.onnx", "plugins=my_models")
    assert "Parity" in done(*arguments, cwd=folder).stdout
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    score, label, _ = session.run(None, {"images": pictures(3)})
    assert np.isfinite(score).all()
    assert set(label.tolist()) <= {0, 1}


@pytest.mark.slow
def test_what_onnx_cannot_hold_is_refused_in_one_sentence(folder):
    source = (folder / "my_models.py").read_text()
    for run, old, new in (
        (
            "vq_vae",
            "nearest = (codes",
            "codes = codes + 0 * torch.linalg.eigvals(codes.T @ codes).real.sum(); nearest = (codes",
        ),
        ("wide", "exportable = True", "exportable = False"),
    ):
        assert old in source
        altered = folder / f"altered_{run}"
        altered.mkdir()
        (altered / "my_models.py").write_text(source.replace(old, new))
        arguments = (f"checkpoint=../runs/{run}/best.ckpt", "out=a.onnx", "plugins=my_models")
        result = run_command("export", *arguments, cwd=altered)
        assert result.returncode == 2
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert "ONNX" in line
        assert "step 1/3" not in line  # the exporter's own report
        assert "\x1b" not in line
        assert not (altered / "a.onnx").exists()


@pytest.mark.slow
def test_a_fitted_score_travels_in_the_checkpoint(folder):
    checkpoint = torch.load(folder / "runs/wide/best.ckpt", weights_only=True)
    assert checkpoint["plugins"] == ["my_models"]
    state = checkpoint["scores"]["code_distance"]
    assert state["mean"].shape == state["deviation"].shape == (10,)
    assert (state["deviation"] > 0).all()


def test_a_plugin_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no module no_such_module"):
        import_plugins("no_such_module")
    (tmp_path / "broken_plugin.py").write_text("1 / 0")
    with pytest.raises(UserError, match="broken_plugin fails when it is imported: ZeroDivisionError"):
        import_plugins(["broken_plugin"])
    (tmp_path / "needy_plugin.py").write_text("import a_library_that_is_not_there")
    with pytest.raises(UserError, match="needs a_library_that_is_not_there, which is not installed"):
        import_plugins("[needy_plugin]")


def test_what_a_config_names_must_exist():
    from solder_vae.training.run import build_model

    (config,) = compose_command("solder_vae.train", ["+model.encoder._target_=nowhere.Encoder"])
    with pytest.raises(UserError, match=r"nowhere\.Encoder cannot be imported"):
        build_model(config)
