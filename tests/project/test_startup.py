"""What starts at once: by what is imported, not by the clock."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import bare
import pytest
import refused

PACKAGE = Path(__file__).parents[2] / "solder_vae"

WITHOUT_TORCH = (
    *(f"utils.{name}" for name in ("errors", "cli", "config", "files", "tables", "text", "labels", "threads")),
    "utils.document",
    *(f"metrics.{name}" for name in ("intervals", "threshold", "trade_off", "paired", "disentanglement")),
    "metrics.latent_separation",
    "data.layouts",
    "data.folder",
    "data.synthetic.data",
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


@pytest.mark.slow
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
    ["threshold", "checkpoint=a.ckpt", "rule=quantile", "q=0.9", "normals=nowhere"],
    ["threshold", "checkpoint=a.ckpt", "rule=quantile", "q=0.9", "labelled=nowhere"],
    ["threshold", "checkpoint=torn.ckpt", "show=true"],
    ["predict", "checkpoint=a.ckpt", "images=a.png", "out=new", "plugins=no_such_module"],
    ["export", "checkpoint=no.ckpt", "out=a.onnx"],
    ["export", "checkpoint=a.ckpt", "out=a.onnx", "plugins=no_such_module"],
    ["crop", "board=no.png", "pads=no.csv", "out=new"],
    ["serve", "checkpoint=no.ckpt"],
    ["serve", "checkpoint=a.ckpt", "pictures=0"],
    ["serve", "checkpoint=a.ckpt", "port=0", "plugins=no_such_module"],
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
            "data.known=-1", "data.root=x", "score=gradcam", "beta=-1", "+model.foo=1", "data.transforms=[3]",
            "resume=torn.ckpt",
        )
    ),
    ["train", "model=cae", "score=recon", "beta=3"],
    ["audit", "data.root=nowhere", "out=new"],
    ["audit", "out=new"],
    ["audit", "data.root=.", "out=new", "data.view=grey"],
    *(["reproduce", option] for option in ("scale=huge", "heads=[x]", "model.width=0", "data.image_size=60")),
]  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each module and all that it imports bring along, and what each mistake does, of one interpreter."""
    folder = tmp_path_factory.mktemp("mistakes")
    zipfile.ZipFile(folder / "a.ckpt", "w").close()
    for name in ("torn.ckpt", "a.png"):
        (folder / name).touch()
    requests = {f"solder_vae.{module}": f"solder_vae.{module}" for module in (*WITHOUT_TORCH, "models.autoencoder")}
    requests |= {" ".join(mistake): ["-m", f"solder_vae.{mistake[0]}", *mistake[1:]] for mistake in MISTAKES}
    return dict(zip(requests, bare.answers(list(requests.values()), folder), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_modules_without_torch(module, told):
    assert told[f"solder_vae.{module}"] == (0, "", [])


@pytest.mark.slow
def test_a_module_with_torch_is_noticed(told):
    status, said, heavy = told["solder_vae.models.autoencoder"]
    assert (status, heavy) == (0, ["torch"]), said


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [" ".join(mistake) for mistake in MISTAKES])
def test_mistakes_are_told_without_torch(arguments, told):
    status, said, heavy = told[arguments]
    assert status == 2, said
    assert "error: " in said
    assert heavy == []


@pytest.mark.slow
def test_every_option_of_a_run_is_refused_without_torch():
    """And before its import: what stands for no class, no path and no word of the user's own has wrong values."""
    done = subprocess.run(
        [sys.executable, refused.__file__], capture_output=True, text=True, timeout=300, check=True, cwd=Path.cwd()
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({option for _, option, _ in answers}) > 80
    assert [answer for answer in answers if answer[2] is None] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=cae", "score=elbo"], "score=elbo does not fit model=cae: use one of score=recon, score=gradcon."),
        (
            ["model=backbone", "score=recon"],
            "score=recon does not fit model=backbone: use one of score=mahalanobis, score=knn.",
        ),
        (["data.image_size=60"], "data.image_size=60 does not fit the network: use a multiple of 8."),
        (["model=backbone", "resume=a.ckpt"], "model=backbone is not trained, so there is nothing to resume"),
        (["model=backbone", "score.alpha=1"], "model=backbone is not trained, so score.alpha=1 has no effect"),
        (["+score.foo=1"], "'score.foo' is no option of score=gradcon: the keys are "),
        (["score=knn", "+score.foo=1"], "'score.foo' is no option of score=knn: the keys are "),
    ],
)
def test_what_does_not_go_together_is_told_without_torch(overrides, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zipfile.ZipFile("a.ckpt", "w").close()
    (config,) = refused.compose_command("solder_vae.train", overrides)
    sys.meta_path.insert(0, blocker := refused.NoTorch())
    try:
        with pytest.raises(refused.UserError) as error:
            refused.check_first(config)
    finally:
        sys.meta_path.remove(blocker)
    assert str(error.value).startswith(message)


def test_what_is_known_of_a_model_without_its_class_is_what_the_class_says():
    from solder_vae import models
    from solder_vae.models.options import OF_MODELS, OF_SCORES
    from solder_vae.models.scores import Score

    assert set(OF_MODELS) == set(models._MODULES)
    for name, known in OF_MODELS.items():
        kind = getattr(models, name)
        assert (kind.name, kind.rules, kind.provides) == (known.name, known.rules, known.provides)
        model = kind()
        taken = {*model.hparams} - {"score", "scores"}
        assert (model.stride, taken) == (known.stride, {*known.rules})
        assert set(known.scores) <= set(model.scores)
    targets = {type_.__name__ for type_ in Score.registry.values() if type_.__module__.startswith("solder_vae.")}
    assert {*OF_SCORES, "Recon", "Elbo", "GradConScore"} == targets
