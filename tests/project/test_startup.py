"""What starts at once: by what is imported, not by the clock."""

import subprocess
import sys
from pathlib import Path

import bare
import pytest

PACKAGE = Path(__file__).parents[2] / "solder_vae"

WITHOUT_TORCH = (
    *(f"utils.{name}" for name in ("errors", "cli", "config", "files", "tables", "text", "labels", "threads")),
    "utils.document",
    *(f"metrics.{name}" for name in ("intervals", "threshold", "trade_off", "paired", "disentanglement")),
    "metrics.latent_separation",
    "data.layouts",
    "data.folder",
    "data.synthetic.data",
    "data.view",
    "training.first_checks",
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


@pytest.fixture(scope="module")
def imported():
    """What each module and all that it imports bring along."""
    requests = [f"solder_vae.{module}" for module in (*WITHOUT_TORCH, "models.autoencoder")]
    return dict(zip(requests, bare.answers(requests, Path.cwd()), strict=True))


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_modules_without_torch(module, imported):
    assert imported[f"solder_vae.{module}"] == (0, "", [])


def test_a_module_with_torch_is_noticed(imported):
    status, said, heavy = imported["solder_vae.models.autoencoder"]
    assert (status, heavy) == (0, ["torch"]), said


def test_an_inspection_does_without_what_only_training_needs():
    code = "import sys, solder_vae.inspection.batch; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    heavy = {"pytorch_lightning", "torchmetrics", "albumentations", "matplotlib", "sklearn", "hydra", "torch._dynamo"}
    assert not heavy & set(found.stdout.split())


MISTAKES = [
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
    ["train", "data=folder", "data.root=.", "data.layout=x"],
    ["train", "data=folder", "data.root=.", "data.known=nowhere"],
    ["train", "resume=no.ckpt"],
    *(
        ["train", option]
        for option in (
            "seed=-1", "seed=x", "model.lrr=1", "threshold.q=2", "threshold=fixed", "few_normals=maybe",
            "criterion=val/los", "logger.mode=on", "plugins=[no_such_module]", "trainer.max_epochs=0",
            "trainer.precision=16", "trainer.devices=3", "trainer.gradient_clip_val=-1", "data.batch_size=0",
            "data.image_size=0", "data.view=grey", "data.crop=round", "data.severity=[2,3]", "data.defects=[bridg]",
            "data.known=-1", "data.root=x", "score=gradcam",
        )
    ),
    ["train", "model=cae", "score=recon", "beta=3"],
    ["audit", "data.root=nowhere", "out=new"],
    ["audit", "out=new"],
    ["audit", "data.root=.", "out=new", "data.view=grey"],
    ["reproduce", "scale=huge"],
]  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "a.ckpt").touch()
    requests = [["-m", f"solder_vae.{command}", *options] for command, *options in MISTAKES]
    return dict(zip(map(" ".join, MISTAKES), bare.answers(requests, folder), strict=True))


@pytest.mark.parametrize("arguments", [" ".join(mistake) for mistake in MISTAKES])
def test_mistakes_are_told_without_torch(arguments, told):
    status, said, heavy = told[arguments]
    assert status == 2, said
    assert "error: " in said
    assert heavy == []
