"""Options that cannot be right are refused before anything is read, in one sentence."""

import inspect
import re
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from documented import compose_command
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.callbacks import EarlyStopping

from solder_vae.models.muon import Muon
from solder_vae.models.networks import Encoder
from solder_vae.models.options import OF_OPTIMIZATION
from solder_vae.models.precision import FULL
from solder_vae.models.steps import TrainingModule, check_optimization
from solder_vae.training.checks import check_examples
from solder_vae.training.first_checks import OF_EARLY_STOPPING, OF_TRAINER
from solder_vae.training.resume import check_epochs_left
from solder_vae.training.run import build_model, build_parts
from solder_vae.training.schema import TrainerOptions
from solder_vae.training.trainer import make_trainer
from solder_vae.utils.cli import check_keys, readable
from solder_vae.utils.errors import UserError


def config_of(*overrides):
    (config,) = compose_command("solder_vae.train", list(overrides))
    check_keys(config)
    return config


def prepare(*overrides):
    """What a run does before it reads any data."""
    config = config_of(*overrides)
    build_parts(config)
    make_trainer(config, Path(), precision=FULL, logger=False, callbacks=[])


def refused(*overrides):
    """The sentence for options that do not fit."""
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as error:
        prepare(*overrides)
    return readable(error.value)


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=2"], "trainer.devices=2 needs data parallelism: add trainer=ddp"),
        (["trainer=ddp", "trainer.devices=0"], "whole number, 1 or more"),
        (["trainer=ddp", "trainer.devices=auto"], "trainer.devices=auto does not fit: use a whole number."),
        (["trainer=ddp", "trainer.devices=3"], "data.batch_size=32 cannot be shared out evenly .*=3"),
        (["trainer=ddp", "trainer.strategy=fsdp"], "trainer.strategy=fsdp is unknown"),
        (["trainer=ddp", "trainer.accelerator=gpu", "trainer.devices=32"], r"there are \d+ GPUs"),
        (["+trainer.accumulate_grad_batches=2"], "accumulate_grad_batches is not supported"),
        (["trainer.accelerator=abc"], "trainer.accelerator=abc is unknown: use auto, cpu, gpu, cuda, mps"),
        (["trainer.precision=16-mixed"], "float16 scales the loss"),
        (["data.train=1.5"], "data.train=1.5 does not fit: use a whole number, 0 or more"),
        (["data.seed=true"], "data.seed=True does not fit"),
        (["model.draws=inf"], "score.draws=inf does not fit"),
        (["data.use_cache=abc"], "data.use_cache=abc does not fit: use true or false"),
        (["trainer.gradient_clip_val=nan"], "trainer.gradient_clip_val=nan does not fit"),
        (["logger.tags=2"], "logger.tags=2 does not fit: use a list"),
        (["logger.tags=['']"], "logger.tags has an empty one"),
        (["logger.tags=[null]"], r"logger.tags=\[null\] does not fit: use a list"),
        (["logger.project=''"], "logger.project is empty: use a name"),
        (["logger.project={a:1}"], "logger.project={a:1} does not fit: use text"),
        (["logger.mode=of"], "logger.mode=of is unknown: use offline, online, disabled"),
        (["seed=null"], "seed=null does not fit: use a whole number"),
        (["seed=-1"], "seed=-1 does not fit"),
        (["seed=4294967296"], "seed=4294967296 does not fit"),
        (["seed=true"], "seed=true does not fit"),
        (["seed=${nope}"], "seed does not fit: Interpolation key 'nope' not found"),
        (["beta=abc"], "beta=abc does not fit: use a number, or null"),
        (["pictures=maybe"], "pictures=maybe does not fit: use true or false"),
        (["criterion=test/auroc"], "criterion=test/auroc is unknown"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0 does not fit: use a whole number, 1 or more"),
        (["+trainer.limit_val_batches=0"], "trainer.limit_val_batches=0 does not fit: use a number above 0"),
        (
            ["+trainer.limit_train_batches=1.5"],
            "limit_train_batches=1.5 does not fit: use a share up to 1.0, or a whole",
        ),
        (
            ["+trainer.check_val_every_n_epoch=5", "trainer.max_epochs=4"],
            "check_val_every_n_epoch=5 does not fit trainer.max_epochs=4: no epoch would be validated",
        ),
        (
            ["+callbacks.x._target_=pytorch_lightning.callbacks.GradientAccumulationScheduler"],
            "GradientAccumulationScheduler is not supported, since batch norm and the gradient constraint need whole",
        ),
        (["model.lr='1e-3'"], "model.lr='1e-3' does not fit: use a number"),
        (["trainer.min_steps=-1"], "trainer.min_steps=-1 does not fit: use a whole number, 0 or more"),
        (["trainer.min_steps=null"], "trainer.min_steps=null does not fit"),
        (["trainer.min_epochs=0"], "trainer.min_epochs=0 does not fit: use a whole number, 1 or more"),
        (["trainer.max_epochs=1.5"], "trainer.max_epochs=1.5 does not fit: use a whole number"),
        (["data.severity=3"], "data.severity=3 does not fit"),
        (["data.severity=[nan,1]"], r"data.severity=\[nan, 1\] does not fit"),
        (["data.defects=bridge"], "data.defects=bridge does not fit: use a list"),
        (["data.transforms=[3]"], r"data.transforms=\[3\] does not fit"),
        (["model.encoder=3"], "model.encoder=3 does not fit: use a _target_"),
        (["plugins=my_models"], "plugins=my_models does not fit: use a list of words"),
        (["model.lr_factor=1"], "model.lr_factor=1 does not fit: use a number between 0 and 1"),
        (["model.lr_patience=1.5"], "model.lr_patience=1.5 does not fit"),
        (["data.batch_size=1", "data.image_size=8"], "leaves batch norm a single pixel"),
        (["trainer=ddp", "trainer.precision=bf16-true"], "bf16-true is not supported"),
    ],
)
def test_what_cannot_be_right_is_refused(overrides, message):
    assert re.search(message, refused(*overrides))


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sede=1", "'sede' is no option of this command: did you mean seed?"),
        ("+sede=1", "'sede' is no option of this command: did you mean seed?"),
        ("logger.projct=x", "'logger.projct' is no option of this command: did you mean logger.project?"),
        ("+logger.projct=x", "'logger.projct' is no option of this command: did you mean logger.project?"),
        ("model.lrr=1", "'model.lrr' is no option of this command: did you mean model.lr?"),
        ("+model.lrr=1", "'model.lrr' is no option of solder_vae.models.BetaVAE: did you mean model.lr?"),
        ("model.lr_patienc=1", "'model.lr_patienc' is no option of this command: did you mean model.lr_patience?"),
        ("+data.trains=1", "'data.trains' is no option of solder_vae.data.synthetic.data.synthetic_data: did you mean"),
        ("trainer.max_epoch=3", "'trainer.max_epoch' is no option of a run: did you mean trainer.max_epochs?"),
        ("+trainer.deterministic=true", "'trainer.deterministic' is no option of a run: the keys are accelerator, "),
        (
            "optimizer.lr=1",
            "The values of optimizer are keys of model and model.optimizer: "
            "write model.KEY=VALUE or model.optimizer.KEY=VALUE.",
        ),
        (
            "~optimizer",
            "model.scheduler.max_lr does not fit: Interpolation key 'model.lr' not found. "
            "An optimizer's file sets it: see conf/optimizer/muon.yaml.",
        ),
        ("scheduler.interval=step", "The values of scheduler are keys of model.scheduler: write model.scheduler.KEY="),
        (
            "+model.optimizer.amsgrad=true",
            "'model.optimizer.amsgrad' is no option of solder_vae.models.muon.Muon: the keys are",
        ),
        ("model._target_=nix.Nix", "_target_: nix.Nix cannot be imported: No module named 'nix'."),
        ("model._target_=solder_vae.models.Nix", "_target_: solder_vae.models.Nix cannot be imported: "),
        ("data.root=x", "data.root is an option of data=folder: add that."),
        ("score=gradcam", "score=gradcam is unknown: did you mean score=gradcon?"),
        ("model=resnet", "model=resnet is unknown: use annealed_vae, backbone, "),
        ("zzz=1", "'zzz' is no option of this command: the keys are seed, "),
        ("+model.zzz=1", "'model.zzz' is no option of solder_vae.models.BetaVAE: the keys are alpha, beta, "),
    ],
)
def test_unknown_keys_are_refused_with_those_that_there_are(override, message):
    assert refused(override).startswith(message)


def test_values_keep_their_kind():
    """Names of folders and tables have them: beta=3 is not beta=3.0."""
    config = config_of("beta=3", "logger.project=2", "trainer.gradient_clip_val=1")
    assert (repr(config.beta), config.logger.project, config.trainer.gradient_clip_val) == ("3", "2", 1)


def test_what_is_right_is_not_refused():
    for devices in (1, 2, 32):
        prepare("trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={devices}")
    prepare("+trainer.accumulate_grad_batches=1", "trainer.precision=bf16-mixed")
    nulls = ("max_time", "limit_val_batches", "gradient_clip_algorithm", "benchmark", "profiler")
    prepare(*(f"+trainer.{key}=null" for key in nulls), "+trainer.check_val_every_n_epoch=20")
    plateau = ("scheduler=plateau", "+model.scheduler.min_lr=[1e-6]", "+model.scheduler.mode=min")
    prepare(*plateau, "callbacks=early_stopping", "+callbacks.early_stopping.stopping_threshold=null")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_lightning_refuses_is_told_in_its_words(tmp_path):
    with pytest.raises(UserError, match=r"does not fit pytorch_lightning\.Trainer: No supported gpu backend"):
        make_trainer(config_of("trainer.accelerator=gpu"), tmp_path, precision=FULL, logger=False, callbacks=[])


#: Arguments of classes in conf/ that a run gives them itself, or that have no meaning in one.
OF_THE_RUN = {
    pl.Trainer: {
        "accumulate_grad_batches", "barebones", "callbacks", "default_root_dir", "deterministic",
        "enable_autolog_hparams", "enable_checkpointing", "enable_model_summary", "enable_progress_bar",
        "fast_dev_run", "inference_mode", "limit_predict_batches", "limit_test_batches", "log_every_n_steps",
        "logger", "max_steps", "model_registry", "num_nodes", "num_sanity_val_steps", "overfit_batches", "plugins",
        "reload_dataloaders_every_n_epochs", "sync_batchnorm", "use_distributed_sampler", "val_check_interval",
    },
    EarlyStopping: {"monitor"},
    torch.optim.Adam: {"params"},
    torch.optim.AdamW: {"params"},
    Muon: {"params"},
    torch.optim.lr_scheduler.OneCycleLR: {"optimizer", "epochs", "steps_per_epoch", "last_epoch"},
    torch.optim.lr_scheduler.ReduceLROnPlateau: {"optimizer"},
}  # fmt: skip


@pytest.mark.parametrize("kind", OF_THE_RUN)
def test_every_argument_of_these_classes_has_its_rule(kind):
    rules = {
        pl.Trainer: {*OF_TRAINER, *(field.name for field in fields(TrainerOptions))},
        EarlyStopping: OF_EARLY_STOPPING,
    }
    known = {*rules.get(kind, OF_OPTIMIZATION.get(f"{kind.__module__.partition('.adam')[0]}.{kind.__name__}", ()))}
    assert known - {"_target_"} | OF_THE_RUN[kind] == {*inspect.signature(kind).parameters}


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [
                "scheduler=plateau",
                "~model.scheduler.patience",
                "~model.scheduler.factor",
                "model.scheduler._target_=torch.optim.lr_scheduler.StepLR",
                "+model.scheduler.step_size='x'",
            ],
            r"model\.scheduler .* does not (take|work with) what is given",
        ),
        (["model.scheduler._target_='../x'"], r"model\.scheduler names \.\./x, which cannot be imported"),
        (["model.optimizer._target_=torch.optim.Nothing"], r"model\.optimizer names .* cannot be imported"),
        (
            ["model.optimizer._target_=torch.optim.SGD", "model.optimizer.momentum=-1"],
            r"model\.optimizer \(torch\.optim\.SGD\) does not take what is given: Invalid momentum",
        ),
        (["scheduler=one_cycle", "model.scheduler.interval=steps"], "interval=steps is unknown: use epoch or step"),
    ],
)
def test_optimizer_and_schedule_are_tried_before_the_data_are_read(options, message):
    (config,) = compose_command("solder_vae.train", options)
    with pytest.raises(UserError, match=message):
        check_optimization(build_model(config))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [30, 31])
def test_a_schedule_that_ends_before_the_run_is_refused(steps):
    (config,) = compose_command("solder_vae.train", [f"model.scheduler.total_steps={steps}"])
    module = TrainingModule(build_model(config))
    module._trainer = SimpleNamespace(estimated_stepping_batches=31)
    with pytest.raises(UserError, match="=30 ends before the run's 31 steps") if steps < 31 else nullcontext():
        module.configure_optimizers()


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["optimizer=adamw"], ["scheduler=plateau"]])
def test_those_that_fit_are_let_through(options):
    (config,) = compose_command("solder_vae.train", options)
    check_optimization(build_model(config))


@pytest.mark.slow
def test_images_must_fit_the_stride_of_the_model_at_hand(monkeypatch):
    assert "image_size=20 does not fit the network: use a multiple of 8" in refused("data.image_size=20")
    build_parts(config_of("model=backbone", "criterion=val/pseudo_defect_auroc", "data.image_size=20"))
    monkeypatch.setattr(Encoder, "stride", 16)
    assert "image_size=24 does not fit the network: use a multiple of 16" in refused("data.image_size=24")


def test_a_memory_must_be_filled_by_the_training_normals():
    data = SimpleNamespace(tables={"train": range(48)})
    model = build_model(config_of("score=knn", "score.k=49"))
    with pytest.raises(UserError, match=r"score.k=49 does not fit 48 training normals: use 48 or less."):
        check_examples(model, data)
    check_examples(build_model(config_of("score=knn", "score.k=48")), data)


def test_a_schedule_without_an_end_goes_on_where_epochs_are_left():
    checkpoint = {"epoch": 1, "hyper_parameters": {"scheduler": None}}
    check_epochs_left("last.ckpt", checkpoint, 3)
    for epochs in (1, 2):
        with pytest.raises(UserError, match=rf"trained for 2 epochs: .* larger trainer.max_epochs than {epochs}"):
            check_epochs_left("last.ckpt", checkpoint, epochs)
