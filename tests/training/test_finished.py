"""Whether a run is done already, where its config was written before rules were named by ``_target_``."""

import json

import pytest
from documented import compose_command
from omegaconf import OmegaConf

from solder_vae.training.finished import finished
from solder_vae.utils.cli import CONF

BEFORE = {
    "quantile": {"rule": "quantile", "q": 0.95},
    "sigma": {"rule": "sigma", "k": 2.0},
    "false_call_rate": {"rule": "false_call_rate", "rate": 0.05},
    "fixed": {"rule": "fixed", "value": None},
}


@pytest.mark.slow
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


def config_of(*overrides):
    (config,) = compose_command("solder_vae.train", ["score=recon", *overrides])
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cae", "beta_vae"])
def test_a_run_of_an_earlier_version_counts(model, tmp_path):
    """Its config has no network's size, optimizer, schedule, plugins; and an ensemble of one."""
    config = config_of(f"model={model}", "scheduler=plateau")
    plain = OmegaConf.to_container(config, resolve=True)
    for key in ("plugins", "callbacks", "criterion"):
        del plain[key]
    sizes, parts = ("latent_channels", "width", "head", "fast"), ("encoder", "decoder", "optimizer", "scheduler")
    for key in (*sizes, *parts, "_recursive_", "noise"):
        del plain["model"][key]
    del plain["score"]["noise"]
    plain["model"].setdefault("beta", None)
    plain["trainer"] |= {"ensemble": 1, "betas": None}
    plain["threshold"] = BEFORE["quantile"]
    (tmp_path / "metrics.json").write_text(json.dumps({"val/loss": 0.25}))
    OmegaConf.save(plain, tmp_path / "config.yaml")
    assert finished(config, tmp_path) == 0.25
    for other in ("model.width=8", "model.head=conv", "score.noise=per_image", "optimizer=adamw", "model.lr=3e-3"):
        assert finished(config_of(f"model={model}", "scheduler=plateau", other), tmp_path) is None
    assert finished(config_of(f"model={model}"), tmp_path) is None, "another schedule"


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [["trainer.max_epochs=5"], ["experiment=paper"], ["experiment=table2", "trainer.max_epochs=20"]]
)
def test_a_run_from_before_min_steps_counts_where_its_epochs_were_given(overrides, tmp_path):
    config = config_of(*overrides)
    plain = OmegaConf.to_container(config, resolve=True)
    del plain["trainer"]["min_steps"]
    (tmp_path / "metrics.json").write_text(json.dumps({"val/loss": 0.25}))
    OmegaConf.save(plain, tmp_path / "config.yaml")
    assert finished(config, tmp_path) == 0.25
    assert finished(config_of(*overrides, "trainer.max_epochs=null", "trainer.min_steps=5"), tmp_path) is None
    assert finished(config_of(*overrides, "trainer.min_steps=5"), tmp_path) == 0.25
    assert finished(config_of(*overrides, "trainer.min_steps=5", "callbacks=early_stopping"), tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("table", ["table2", "table3"])
def test_a_run_of_a_table_from_before_min_steps_had_the_default_epochs(table, tmp_path):
    config = config_of(f"experiment={table}", "trainer.min_steps=0")
    plain = OmegaConf.to_container(config, resolve=True)
    del plain["trainer"]["min_steps"]
    plain["trainer"]["max_epochs"] = 20
    (tmp_path / "metrics.json").write_text(json.dumps({"val/loss": 0.25}))
    OmegaConf.save(plain, tmp_path / "config.yaml")
    assert finished(config, tmp_path) == 0.25
    assert finished(config_of(f"experiment={table}", "trainer.min_steps=5"), tmp_path) is None
    assert finished(config_of(f"experiment={table}"), tmp_path) is None  # of few images it has more epochs
    assert finished(config_of(f"experiment=[paper,{table}]"), tmp_path) is None
