"""Whether a run is done already, where its config was written before rules were named by ``_target_``."""

import json

import pytest
from omegaconf import OmegaConf

from solder_vae.training.finished import finished
from solder_vae.utils.cli import CONF

BEFORE = {
    "quantile": {"rule": "quantile", "q": 0.95},
    "sigma": {"rule": "sigma", "k": 2.0},
    "false_call_rate": {"rule": "false_call_rate", "rate": 0.05},
    "fixed": {"rule": "fixed", "value": None},
}


@pytest.mark.parametrize("choice", BEFORE)
def test_a_run_from_before_counts_if_rule_and_numbers_are_the_same(choice, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"val/loss": 0.25}))
    OmegaConf.save({"seed": 0, "threshold": BEFORE[choice]}, tmp_path / "config.yaml")
    now = OmegaConf.create(
        {"seed": 0, "criterion": "val/loss", "threshold": OmegaConf.load(CONF / "threshold" / f"{choice}.yaml")}
    )
    assert finished(now, tmp_path) == 0.25
    for key, value in now.threshold.items():
        if key != "_target_":
            other = OmegaConf.merge(now, {"threshold": {key: (value or 0) + 0.01}})
            assert finished(other, tmp_path) is None
    for another in set(BEFORE) - {choice}:
        other = OmegaConf.merge(now, {"threshold": OmegaConf.load(CONF / "threshold" / f"{another}.yaml")})
        assert finished(other, tmp_path) is None


def test_a_rule_that_is_not_known_is_another(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"val/loss": 0.25}))
    OmegaConf.save({"threshold": {"rule": "mine", "q": 0.95}}, tmp_path / "config.yaml")
    now = OmegaConf.create({"criterion": "val/loss", "threshold": OmegaConf.load(CONF / "threshold/quantile.yaml")})
    assert finished(now, tmp_path) is None
