"""Whether a run is done already: its result is there, and its config is the one that would be run now."""

import json

import pytest
from documented import compose_command
from omegaconf import OmegaConf

from solder_vae.training.finished import finished


def config_of(*overrides):
    (config,) = compose_command("solder_vae.train", ["score=recon", *overrides])
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


@pytest.fixture
def run(tmp_path):
    OmegaConf.save(config_of(), tmp_path / "config.yaml", resolve=True)
    (tmp_path / "metrics.json").write_text(json.dumps({"val/loss": 0.25}))
    return tmp_path


def test_a_run_of_the_same_config_counts(run):
    assert finished(config_of(), run) == 0.25
    without_effect = ("pictures=false", "logger.mode=disabled", "few_normals=accept", "skip_finished=true")
    assert finished(config_of(*without_effect), run) == 0.25


@pytest.mark.slow
@pytest.mark.parametrize("other", ["model.width=8", "threshold.q=0.9", "threshold=sigma", "optimizer=adamw", "seed=1"])
def test_a_run_of_another_config_does_not(other, run):
    assert finished(config_of(other), run) is None


def test_a_run_without_its_result_does_not(run):
    (run / "metrics.json").unlink()
    assert finished(config_of(), run) is None
