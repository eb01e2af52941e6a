"""model=backbone from the command to the run's files, and what predict, threshold, export and sweeps make of it."""

import csv
import json
import shutil

import pytest
import small_networks
import torch
from checkpoints import pictures, write_images
from commands import TINY, inspect_wandb, run_command
from torch import nn

from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.onnx.export import write_onnx
from solder_vae.models.backbone import Script
from solder_vae.utils.errors import UserError
from solder_vae.utils.plugins import import_plugins

NETWORK = (
    "model=backbone",
    "model.network={_target_: small_networks.Maps, pretrained: true}",
    "model.layers=[0,1]",
    "model.size=16",
    *(text for text in TINY if not text.startswith(("model.", "trainer."))),
)
NAMED = "plugins=[small_networks]"


def run(*overrides, cwd, **environment):
    shutil.copy(small_networks.__file__, cwd)  # where commands look for modules
    flags = [override for override in overrides if override.startswith("-")]
    values = [override for override in overrides if not override.startswith("-")]
    return run_command("train", *flags, *NETWORK, *values, cwd=cwd, **environment)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run with pictures, and what it said."""
    folder = tmp_path_factory.mktemp("run")
    result = run("hydra.run.dir=run", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run", result


@pytest.fixture(scope="module")
def calibrated(trained):
    """The same checkpoint with another threshold, as commands in that folder name it."""
    command = ("threshold", "checkpoint=run/best.ckpt", "rule=quantile", "q=0.9", "out=anew", NAMED)
    set_anew = run_command(*command, cwd=trained[0].parent)
    assert set_anew.returncode == 0, set_anew.stderr
    return "anew/calibrated.ckpt"


@pytest.mark.slow
@pytest.mark.measured
def test_a_run_leaves_what_it_can(trained):
    folder, result = trained
    numbers = json.loads((folder / "metrics.json").read_text())
    assert numbers["model"] == "backbone"
    assert numbers["score"] == "knn"
    assert {"test/knn/auroc", "test/mahalanobis/auroc", "val/pseudo_defect_auroc", "baseline/nearest pixels/auroc"} <= {
        *numbers
    }
    assert "val/loss" not in numbers
    assert "test/localisation/pixel_auroc" in numbers  # its own map finds the embedded set's masks
    found = {path.name for path in folder.iterdir()}
    assert {
        "best.ckpt",
        "predictions.csv",
        "config.yaml",
        "roc.png",
        "score_histogram.png",
        "anomaly_maps.png",
    } <= found
    assert not found & {"last.ckpt", "metrics.csv", "loss_curves.png", "reconstructions.png"}
    assert "knn *" in result.stdout
    summary = inspect_wandb(folder)
    assert "test/auroc" in json.dumps(summary)


@pytest.mark.slow
def test_its_checkpoint_decides_in_every_command(trained, calibrated):
    folder, _ = trained
    work = folder.parent
    write_images(work / "joints", pictures(6, seed=5))
    predicted = run_command("predict", "checkpoint=run/best.ckpt", "images=joints", "out=seen", NAMED, cwd=work)
    assert predicted.returncode == 0, predicted.stderr
    rows = list(csv.DictReader((work / "seen/predictions.csv").open()))
    import_plugins(["small_networks"])
    verdicts = Inspector.load(folder / "best.ckpt").score(sorted((work / "joints").iterdir()))
    assert [float(row["score"]) for row in rows] == pytest.approx([verdict.score for verdict in verdicts], rel=1e-5)
    assert verdicts[0].recon is None
    assert verdicts[0].heat_map.shape == (16, 16)
    assert verdicts[0].heat_map.min() >= 0
    assert '["joint","anomaly map"]' in (work / "seen/report.html").read_text().replace(", ", ",")
    assert (work / calibrated).exists()
    refused = run_command("predict", "checkpoint=run/best.ckpt", "images=joints", "out=no", cwd=work)
    assert refused.returncode == 2
    assert NAMED in refused.stderr


class Halving(nn.Module):
    """Maps whose size depends on what is in the image, which no graph can hold."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        while bool(x.amax() > 0.1):
            x = x[:, :, ::2] / 2
        return [x.repeat(1, 2, 1, 1), x.repeat(1, 2, 1, 1)[:, 1:]]


@pytest.mark.slow
@pytest.mark.measured
def test_a_torchscript_network_is_exported_too(tmp_path):
    path = small_networks.script(tmp_path / "maps.pt")
    trained = run("hydra.run.dir=run", f"model.network={path}", "pictures=false", "logger.mode=disabled", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    exported = run_command("export", "checkpoint=run/best.ckpt", "out=a.onnx", f"plugins=[{path}]", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert "0 labels differ" in exported.stdout

    import_plugins([str(path)])
    inspector = Inspector.load(tmp_path / "run/best.ckpt")
    network = inspector.model.network = Script(torch.jit.script(Halving()))
    with pytest.raises(UserError, match=r"TorchScript that torch can't .* model\.network=\{_target_: ") as caught:
        write_onnx(inspector, tmp_path / "b.onnx")
    assert "\x1b" not in str(caught.value)
    assert inspector.model.network is network
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.slow
def test_sweeps_skip_what_is_finished_and_a_seed_gives_the_same(tmp_path):
    sweep = ("-m", "seed=0,1", "skip_finished=true", "hydra.sweep.dir=many", "logger.mode=disabled", "pictures=false")
    first = run(*sweep, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    files = [tmp_path / f"many/{number}/metrics.json" for number in (0, 1)]
    before = [path.read_bytes() for path in files]
    again = run(*sweep, cwd=tmp_path)
    assert again.stderr.count("finished already") == 2
    files[0].unlink()
    assert run(*sweep, cwd=tmp_path).returncode == 0
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.lr=1e-3"], "'model.lr' is no option"),
        (["model.width=8"], "'model.width' is no option"),
        (["optimizer=adamw"], "optimizer"),
        (["score=gradcon"], "score=gradcon does not fit model=backbone"),
        (["resume=last.ckpt"], "nothing to resume"),
        (["trainer=ddp", "trainer.devices=2"], "one process"),
        (["score.alpha=0.1"], "no effect"),
        (["criterion=val/loss"], "criterion=val/pseudo_defect_auroc"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.slow
def test_what_only_training_could_do_is_refused(overrides, message, tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"")
    result = run(*overrides, "hydra.run.dir=run", "logger.mode=disabled", cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") <= 3  # what it was about to do, then why not
    assert not (tmp_path / "run/metrics.json").exists()


@pytest.mark.slow
def test_the_real_weights_export_with_their_memory_and_known_defects_inside(tmp_path):
    small = [text for text in TINY if text.startswith(("data.", "pictures"))]
    known = ("score=combined", "data.known=12", "data.defects=[bridge,missing_component]")
    said = ("hydra.run.dir=run", "pictures=false", "logger.mode=disabled")
    result = run_command("train", "model=backbone", *known, *small, *said, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    scores = torch.load(tmp_path / "run/best.ckpt", weights_only=True)["scores"]
    assert scores["knn"]["memory"].shape == (48, 304)
    assert scores["classifier"]
    exported = run_command("export", "checkpoint=run/best.ckpt", "out=a.onnx", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert "0 labels differ" in exported.stdout
