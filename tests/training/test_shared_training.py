"""A sweep trains once what several of its jobs have in common, and each job's result is that of a run of its own."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from commands import train
from documented import compose_command
from omegaconf import OmegaConf

from solder_vae.models.checkpoint import read_checkpoint
from solder_vae.training.shared_training import moved, noted, training_digest

HEADLINE = ("model=beta_vae", "beta=0.1,1,3,10", "score=recon,elbo,gradcon")


def config_of(*overrides):
    (config,) = compose_command("solder_vae.train", overrides)
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def with_value(config, override):
    """What composing with a value that chooses no file gives, at once."""
    return OmegaConf.merge(config, OmegaConf.from_dotlist([override]))


@pytest.mark.slow
def test_the_sweep_of_the_readme_has_eight_trainings():
    assert " ".join(HEADLINE) in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    betas, scores = (text.partition("=")[2].split(",") for text in HEADLINE[1:])
    jobs = [with_value(config_of(f"score={score}"), f"beta={beta}") for score in scores for beta in betas]
    assert (len(jobs), len({training_digest(job) for job in jobs})) == (12, 8)


@pytest.mark.slow
def test_what_changes_a_weight_is_another_training():
    recon = config_of("score=recon")
    base = training_digest(recon)
    same = [config_of("score=recon", choice) for choice in ("score=elbo", "threshold=sigma")]
    same += [with_value(recon, value) for value in ("score.latent=sample", "pictures=false", "logger.mode=online")]
    values = ("seed=1", "beta=1", "score.alpha=0.1", "model.lr=1", "data.train=9", "trainer.max_epochs=1")
    others = [config_of("score=recon", "model=cae"), *(with_value(recon, value) for value in values)]
    assert {training_digest(config) for config in same} == {base}
    assert len({base, *map(training_digest, others)}) == 1 + len(others)


@pytest.mark.slow
def test_a_note_counts_only_while_its_run_is_there(tmp_path):
    config = config_of("score=recon")
    digest = training_digest(config)
    job, note = tmp_path / "0", tmp_path / "note.json"
    job.mkdir()
    assert noted(note, tmp_path, digest) is None
    note.write_text(json.dumps("0"))
    OmegaConf.save(config, job / "config.yaml", resolve=True)
    for name in ("metrics.csv", "best.ckpt", "metrics.json"):
        assert noted(note, tmp_path, digest) is None
        (job / name).touch()
    assert noted(note, tmp_path, digest) == job
    assert noted(note, tmp_path, "another") is None
    note.write_text("{")
    assert noted(note, tmp_path, digest) is None


def test_paths_in_a_checkpoint_move_with_it():
    state = {"best": {"best_model_path": "/a/best.ckpt", "/a/best.ckpt": 1.0, "n": 2, "dirpath": "/b"}}
    assert moved(state, "/a", "/c") == {
        "best": {"best_model_path": "/c/best.ckpt", "/c/best.ckpt": 1.0, "n": 2, "dirpath": "/b"}
    }


def epochs_trained(job):
    return len(re.findall(r"epoch \d/2 ", (job / "train.log").read_text()))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two jobs of one training, side by side."""
    folder = tmp_path_factory.mktemp("shared")
    beside = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep", "skip_finished=true")
    result = train("-m", "beta=1", "score=recon,elbo", "scheduler=plateau", *beside, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "sweep"


@pytest.mark.slow
@pytest.mark.measured
def test_one_job_trains_and_both_have_the_results_of_runs_of_their_own(sweep, tmp_path):
    jobs = [sweep / "0", sweep / "1"]
    assert sorted(map(epochs_trained, jobs)) == [0, 2]
    (second,) = [job for job in jobs if not epochs_trained(job)]
    assert "trained already by" in (second / "train.log").read_text()
    score = OmegaConf.load(second / "config.yaml").score.name
    alone = tmp_path / "alone"
    result = train("beta=1", f"score={score}", "scheduler=plateau", f"hydra.run.dir={alone}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert epochs_trained(alone) == 2
    for name in ("metrics.json", "predictions.csv", "kl_per_unit.csv"):
        assert (second / name).read_bytes() == (alone / name).read_bytes(), name
    curves = [list(csv.DictReader((job / "metrics.csv").open())) for job in (second, alone)]
    assert curves[0] == curves[1]
    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = read_checkpoint(second / name), read_checkpoint(alone / name)
        assert ours.keys() == theirs.keys()
        for key in ("model", "hyper_parameters", "calibration", "preprocessing", "precision", "epoch", "plugins"):
            assert ours[key] == theirs[key], key
        assert all(torch.equal(ours["state_dict"][key], value) for key, value in theirs["state_dict"].items())
        assert str(second) in str(ours["callbacks"])


@pytest.mark.slow
def test_a_job_that_trained_nothing_can_be_resumed(sweep, tmp_path):
    (second,) = [job for job in sweep.glob("[01]") if not epochs_trained(job)]
    score = OmegaConf.load(second / "config.yaml").score.name
    options = (f"resume={second / 'last.ckpt'}", "trainer.max_epochs=3")
    result = train("beta=1", f"score={score}", "scheduler=plateau", *options, "hydra.run.dir=on", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "epoch 3/3" in (tmp_path / "on/train.log").read_text()
