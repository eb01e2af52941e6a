"""What starts at once: by what is imported, not by the clock."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import run_command

PACKAGE = Path(__file__).parents[2] / "solder_vae"
SLOW = ("torch", "pytorch_lightning", "albumentations")

WITHOUT_TORCH = (
    *(f"utils.{name}" for name in ("errors", "cli", "config", "files", "tables", "text", "labels", "threads")),
    "utils.document",
    *(f"metrics.{name}" for name in ("intervals", "threshold", "trade_off", "paired", "disentanglement")),
    "metrics.latent_separation",
    "data.layouts",
    "data.image_files",
    "data.splits",
    "data.synthetic.__main__",
    "data.transforms",
    "evaluation.tsne",
    "evaluation.style",
    "models.checkpoint_archive",
    "training.finished",
    "studies.sweeps.runs",
    "studies.sweeps.report",
    "inspection.joints",
    *(f"inspection.boards.{name}" for name in ("options", "placement_files", "registration", "board", "crops")),
    *(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"),
)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_modules_without_torch(module):
    code = f"import sys, solder_vae.{module}; print([name for name in {SLOW} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == "[]"


def test_an_inspection_does_without_what_only_training_needs():
    code = "import sys, solder_vae.inspection.batch; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    heavy = {"pytorch_lightning", "torchmetrics", "albumentations", "matplotlib", "sklearn", "hydra", "torch._dynamo"}
    assert not heavy & set(found.stdout.split())


@pytest.mark.parametrize(
    "arguments",
    [
        *([command, "chekpoint=x"] for command in ("predict", "threshold", "export", "crop", "dashboard", "serve")),
        *([command, "seeed=1"] for command in ("train", "audit", "reproduce")),
        ["report"],
        ["report", "nowhere"],
        ["predict", "checkpoint=no.ckpt", "images=.", "out=new"],
        ["predict", "checkpoint=a.ckpt", "images=nowhere", "out=new"],
        ["predict", "checkpoint=a.ckpt", "images=.", "out=."],
        ["predict", "checkpoint=a.ckpt", "images=.", "out=new", "device=tpu"],
        ["predict", "checkpoint=a.ckpt", "board=no.png", "pads=no.csv", "out=new"],
        ["threshold", "checkpoint=no.ckpt", "rule=quantile", "q=0.9"],
        ["threshold", "checkpoint=a.ckpt", "rule=quantle"],
        ["threshold", "checkpoint=a.ckpt", "rule=quantile", "q=2"],
        ["threshold", "checkpoint=a.ckpt", "rule=cost", "escape_cost=2", "prevalence=0.1"],
        ["export", "checkpoint=no.ckpt", "out=a.onnx"],
        ["crop", "board=no.png", "pads=no.csv", "out=new"],
        ["serve", "checkpoint=no.ckpt"],
        ["serve", "checkpoint=a.ckpt", "pictures=0"],
        ["train", "model=cea"],
        ["train", "data=folder", "data.root=nowhere"],
        ["train", "resume=no.ckpt"],
        ["audit", "data.root=nowhere", "out=new"],
        ["audit", "out=new"],
        ["reproduce", "scale=huge"],
    ],
    ids=" ".join,
)
def test_mistakes_are_told_without_torch(arguments, tmp_path):
    (tmp_path / "a.ckpt").touch()
    result = run_command(*arguments, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    imported = {
        line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time")
    }
    assert result.returncode == 2
    assert "error: " in result.stderr
    assert "solder_vae" in imported
    assert not imported & set(SLOW)
