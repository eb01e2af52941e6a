"""Threshold rules: what they promise, held against simulation and brute force; bad input named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from scipy.stats import binom

from solder_vae.metrics.intervals import clopper_pearson
from solder_vae.metrics.threshold import (
    Cost,
    FalseCallRate,
    Fixed,
    Labelled,
    Quantile,
    Rule,
    Sigma,
    Threshold,
    fit_threshold,
    make_rule,
    refit_rule,
)
from solder_vae.utils.config import build
from solder_vae.utils.errors import UserError

CONF = Path(__file__).parents[2] / "conf" / "threshold"
NORMALS = np.random.default_rng(0).lognormal(-4, 0.4, 567)

finite_scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def test_quantile_is_numpys() -> None:
    assert fit_threshold(NORMALS, Quantile(0.9)).value == np.quantile(NORMALS, 0.9)


def test_sigma_is_mean_plus_k_sample_deviations() -> None:
    assert fit_threshold([1.0, 2.0, 3.0], Sigma(3)).value == pytest.approx(2 + 3 * 1)


def test_fixed_is_the_value_with_the_rate_seen() -> None:
    threshold = fit_threshold([1.0, 2.0, 3.0, 4.0], Fixed(3))
    assert threshold.value == 3.0
    assert threshold.expected_false_call_rate == 0.25, "3.0 itself is not above 3.0"


@given(scores=finite_scores, q=st.floats(0, 1))
def test_quantile_leaves_about_its_share_above(scores: list[float], q: float) -> None:
    threshold = fit_threshold(scores, Quantile(q))
    # np.quantile lies between the order statistics around (n - 1) q, so at most one score more is above than 1 - q says
    assert threshold.expected_false_call_rate * len(scores) <= (1 - q) * (len(scores) - 1) + 1
    assert threshold.interval[0] <= threshold.expected_false_call_rate <= threshold.interval[1]
    assert threshold.n == len(scores)


@pytest.mark.parametrize(("n", "rate", "place"), [(19, 0.05, 19), (39, 0.05, 38), (99, 0.29, 71), (567, 0.05, 540)])
def test_false_call_rate_takes_the_conformal_order_statistic(n: int, rate: float, place: int) -> None:
    """ceil((1 - rate)(n + 1)), in exact arithmetic: 0.29 * 100 = 28.999... in floating point."""
    scores = np.random.default_rng(1).permutation(n) + 1.0
    assert fit_threshold(scores, FalseCallRate(rate)).value == place


@pytest.mark.slow
@pytest.mark.parametrize(("n", "rate"), [(20, 0.1), (30, 0.05), (99, 0.2)])
def test_false_call_rate_keeps_its_promise(n: int, rate: float) -> None:
    """Over many calibrations, the rate on new normals is floor(rate (n+1))/(n+1) <= rate, within binomial error."""
    generator = np.random.default_rng(7)
    trials = 20000
    called = 0
    for _ in range(trials):
        scores = generator.exponential(size=n + 1)
        called += bool(fit_threshold(scores[:n], FalseCallRate(rate)).predict(scores[n:])[0])
    exact = math.floor(rate * (n + 1) + 1e-9) / (n + 1)
    assert exact <= rate
    assert abs(called / trials - exact) < 4 * math.sqrt(exact * (1 - exact) / trials)


def test_false_call_rate_keeps_its_promise_under_ties() -> None:
    generator = np.random.default_rng(3)
    called = 0
    for _ in range(5000):
        scores = generator.integers(0, 4, size=31)
        called += bool(fit_threshold(scores[:30], FalseCallRate(0.1)).predict(scores[30:])[0])
    assert called / 5000 <= 0.1 + 4 * math.sqrt(0.1 * 0.9 / 5000)


@pytest.mark.parametrize("rate", [0.05, 0.01, 0.3])
def test_too_few_normals_says_how_many_are_needed(rate: float) -> None:
    needed = math.ceil(1 / rate - 1e-9) - 1
    fit_threshold(np.arange(needed), FalseCallRate(rate))
    with pytest.raises(UserError, match=rf"at least {needed} normals, there are {needed - 1}"):
        fit_threshold(np.arange(needed - 1), FalseCallRate(rate))


@pytest.mark.parametrize("rule", ["quantile", "false_call_rate"])
def test_interval_covers_the_true_rate(rule: str) -> None:
    """Though the threshold is set on the same scores, 95 % of the intervals hold the rate of the population."""
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(2000):
        threshold = fit_threshold(
            generator.random(80), make_rule(rule)
        )  # uniform scores: the true rate above t is 1 - t
        covered += threshold.interval[0] <= 1 - threshold.value <= threshold.interval[1]
    assert covered / 2000 >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 2000)


@given(n=st.integers(1, 80), data=st.data())
def test_clopper_pearson_inverts_the_binomial_tails(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))
    low, high = clopper_pearson(count, n)
    assert 0 <= low <= count / n <= high <= 1
    if count > 0:
        assert binom.sf(count - 1, n, low) == pytest.approx(0.025, abs=1e-9)
    if count < n:
        assert binom.cdf(count, n, high) == pytest.approx(0.025, abs=1e-9)


def test_clopper_pearson_of_nothing_knows_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_predicts_abnormal_only_above_and_in_float64() -> None:
    threshold = fit_threshold([0.1], Fixed(0.1))
    assert threshold.predict([0.1, np.nextafter(0.1, 1), 0.0]).tolist() == [False, True, False]
    # in float32 both would be equal and the score not called
    assert threshold.predict(np.array([0.1], dtype=np.float32)).tolist() == [True]


LABELLED = Labelled(NORMALS[::2], NORMALS[::3] + 0.01)
PARAMETERS = {"fixed": {"value": 0.03}, "cost": {"escape_cost": 9, "prevalence": 0.01}}
OF_TRAINING = ["quantile", "sigma", "false_call_rate", "fixed"]


@pytest.mark.parametrize("rule", [*OF_TRAINING, "cost"])
def test_travels_in_a_checkpoint(rule: str, tmp_path: Path) -> None:
    threshold = fit_threshold(NORMALS, make_rule(rule, **PARAMETERS.get(rule, {})), LABELLED)
    torch.save({"calibration": threshold.to_dict()}, tmp_path / "x.ckpt")
    loaded = torch.load(tmp_path / "x.ckpt", weights_only=True)["calibration"]
    assert Threshold.from_dict(loaded) == threshold


def test_a_checkpoint_holds_names_and_numbers() -> None:
    """The text of checkpoints written since the first version, also when whole numbers were typed."""
    assert json.dumps(fit_threshold([0.0, 1.0, 2.0, 3.0], Quantile(1)).to_dict()) == (
        '{"value": 3.0, "rule": "quantile", "params": {"q": 1.0}, "expected_false_call_rate": 0.0, '
        '"interval": [0.0, 0.6023646356164746], "n": 4}'
    )


def test_a_checkpoint_of_a_rule_that_is_not_known_loads() -> None:
    data = fit_threshold(NORMALS).to_dict() | {"rule": "elsewhere", "params": {"a": 1, "b": 2.5}}
    assert Threshold.from_dict(data).params == {"a": 1, "b": 2.5}
    with pytest.raises(
        UserError,
        match="rule 'elsewhere' is unknown: use quantile, sigma, false_call_rate, fixed, cost, or name its module",
    ):
        make_rule("elsewhere", a=1)


@pytest.mark.parametrize("rule", OF_TRAINING)
def test_every_config_calibrates(rule: str) -> None:
    path = CONF / f"{rule}.yaml"
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    assert path.read_text().startswith(f"# python -m solder_vae.train threshold={rule} threshold.")
    if rule == "fixed":
        with pytest.raises(UserError, match="fixed needs value=NUMBER"):
            build(config)
        config.value = 0.03
    assert fit_threshold(NORMALS, build(config)).rule == rule
    if rule != "fixed":
        assert build(config) == make_rule(rule), "a default in the config is the rule's"


def test_every_rule_of_a_training_has_a_config() -> None:
    own = {name for name, kind in Rule.registry.items() if kind.__module__.startswith("solder_vae.")}
    assert own == {*OF_TRAINING, "cost"}
    assert {path.stem for path in CONF.glob("*.yaml")} == {
        name for name in own if not Rule.registry[name].needs_labelled
    }


@pytest.mark.parametrize(
    ("rule", "params", "message"),
    [
        ("best", {}, "'best' is unknown: use quantile, sigma, false_call_rate, fixed, cost, or name its module"),
        ("sigma", {"q": 0.9}, "sigma has no q: it takes k"),
        ("sigma", {"k": "three"}, "sigma needs k=NUMBER, a number, got 'three'"),
        ("sigma", {"k": True}, "got True"),
        ("sigma", {"k": math.nan}, "got nan"),
        ("quantile", {"q": 95}, "quantile needs q=NUMBER, a number from 0 to 1, got 95"),
        ("false_call_rate", {"rate": 0}, "between 0 and 1, got 0"),
        ("false_call_rate", {"rate": 1.0}, "between 0 and 1"),
        ("fixed", {}, "fixed needs value=NUMBER"),
        ("fixed", {"value": None}, "fixed needs value=NUMBER, a number, got nothing"),
        ("cost", {"prevalence": 0.1}, "cost needs escape_cost=NUMBER"),
        ("cost", {}, "cost needs escape_cost=NUMBER and prevalence=NUMBER"),
        ("cost", {"escape_cost": 0, "prevalence": 0.1}, "escape_cost=NUMBER, a number above 0.*, got 0"),
        ("cost", {"escape_cost": 1, "prevalence": 1}, "prevalence=NUMBER, a number between 0 and 1.*, got 1"),
    ],
)
def test_bad_rules_are_named_before_training(rule: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_rule(rule, **params)


def test_bad_scores_are_named() -> None:
    with pytest.raises(UserError, match=r"2 of 3 anomaly scores of the validation normals .* \(first: row 1\)"):
        fit_threshold([0.0, math.nan, math.inf])
    with pytest.raises(UserError, match="No validation normals"):
        fit_threshold([])
    with pytest.raises(UserError, match="needs 2 normals"):
        fit_threshold([1.0], Sigma())
    with pytest.raises(UserError, match=r"1 of 2 anomaly scores of the labelled abnormals"):
        fit_threshold([0.0], Cost(1, 0.5), Labelled(np.zeros(2), np.array([1, math.nan])))
    with pytest.raises(UserError, match="rule cost needs a labelled set"):
        fit_threshold([0.0], Cost(1, 0.5))


@pytest.mark.parametrize("name", ["quantile", "sigma", "false_call_rate"])
def test_same_rule_is_the_rule_on_the_other_scores(name: str) -> None:
    other, rule = NORMALS[::-1] * 7 + 3, make_rule(name)
    assert refit_rule(rule, fit_threshold(NORMALS, rule), other) == fit_threshold(other, rule)


@given(above=st.integers(0, 40))
def test_same_rule_matches_a_fixed_values_rate(above: int) -> None:
    scores, rule = np.arange(40.0), Fixed(39.5 - above)
    fixed = fit_threshold(scores, rule)
    other = refit_rule(rule, fixed, scores**2 - 5)
    assert other.expected_false_call_rate == pytest.approx(min(fixed.expected_false_call_rate, 39 / 40))
