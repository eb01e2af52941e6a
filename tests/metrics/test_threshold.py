"""Threshold rules: what they promise, held against simulation and brute force; bad input named."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy.stats import binom

from solder_vae.metrics.intervals import clopper_pearson
from solder_vae.metrics.threshold import RULES, Threshold, check_rule, fit_threshold, refit_rule
from solder_vae.utils.errors import UserError

CONF = Path(__file__).parents[2] / "conf" / "threshold"
NORMALS = np.random.default_rng(0).lognormal(-4, 0.4, 567)

finite_scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def test_quantile_is_numpys() -> None:
    assert fit_threshold(NORMALS, "quantile", q=0.9).value == np.quantile(NORMALS, 0.9)


def test_sigma_is_mean_plus_k_sample_deviations() -> None:
    assert fit_threshold([1.0, 2.0, 3.0], "sigma", k=3).value == pytest.approx(2 + 3 * 1)


def test_fixed_is_the_value_with_the_rate_seen() -> None:
    threshold = fit_threshold([1.0, 2.0, 3.0, 4.0], "fixed", value=3)
    assert threshold.value == 3.0
    assert threshold.expected_false_call_rate == 0.25, "3.0 itself is not above 3.0"


@given(scores=finite_scores, q=st.floats(0, 1))
def test_quantile_leaves_about_its_share_above(scores: list[float], q: float) -> None:
    threshold = fit_threshold(scores, "quantile", q=q)
    # np.quantile lies between the order statistics around (n - 1) q, so at most one score more is above than 1 - q says
    assert threshold.expected_false_call_rate * len(scores) <= (1 - q) * (len(scores) - 1) + 1
    assert threshold.interval[0] <= threshold.expected_false_call_rate <= threshold.interval[1]
    assert threshold.n == len(scores)


@pytest.mark.parametrize(("n", "rate", "place"), [(19, 0.05, 19), (39, 0.05, 38), (99, 0.29, 71), (567, 0.05, 540)])
def test_false_call_rate_takes_the_conformal_order_statistic(n: int, rate: float, place: int) -> None:
    """ceil((1 - rate)(n + 1)), in exact arithmetic: 0.29 * 100 = 28.999... in floating point."""
    scores = np.random.default_rng(1).permutation(n) + 1.0
    assert fit_threshold(scores, "false_call_rate", rate=rate).value == place


@pytest.mark.parametrize(("n", "rate"), [(20, 0.1), (30, 0.05), (99, 0.2)])
def test_false_call_rate_keeps_its_promise(n: int, rate: float) -> None:
    """Over many calibrations, the rate on new normals is floor(rate (n+1))/(n+1) <= rate, within binomial error."""
    generator = np.random.default_rng(7)
    trials = 20000
    called = 0
    for _ in range(trials):
        scores = generator.exponential(size=n + 1)
        called += bool(fit_threshold(scores[:n], "false_call_rate", rate=rate).predict(scores[n:])[0])
    exact = math.floor(rate * (n + 1) + 1e-9) / (n + 1)
    assert exact <= rate
    assert abs(called / trials - exact) < 4 * math.sqrt(exact * (1 - exact) / trials)


def test_false_call_rate_keeps_its_promise_under_ties() -> None:
    generator = np.random.default_rng(3)
    called = 0
    for _ in range(5000):
        scores = generator.integers(0, 4, size=31)
        called += bool(fit_threshold(scores[:30], "false_call_rate", rate=0.1).predict(scores[30:])[0])
    assert called / 5000 <= 0.1 + 4 * math.sqrt(0.1 * 0.9 / 5000)


@pytest.mark.parametrize("rate", [0.05, 0.01, 0.3])
def test_too_few_normals_says_how_many_are_needed(rate: float) -> None:
    needed = math.ceil(1 / rate - 1e-9) - 1
    fit_threshold(np.arange(needed), "false_call_rate", rate=rate)
    with pytest.raises(UserError, match=rf"at least {needed} validation normals, there are {needed - 1}"):
        fit_threshold(np.arange(needed - 1), "false_call_rate", rate=rate)


@pytest.mark.parametrize("rule", ["quantile", "false_call_rate"])
def test_interval_covers_the_true_rate(rule: str) -> None:
    """Though the threshold is set on the same scores, 95 % of the intervals hold the rate of the population."""
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(2000):
        threshold = fit_threshold(generator.random(80), rule)  # uniform scores: the true rate above t is 1 - t
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
    threshold = fit_threshold([0.1], "fixed", value=0.1)
    assert threshold.predict([0.1, np.nextafter(0.1, 1), 0.0]).tolist() == [False, True, False]
    # in float32 both would be equal and the score not called
    assert threshold.predict(np.array([0.1], dtype=np.float32)).tolist() == [True]


@pytest.mark.parametrize("rule", list(RULES))
def test_travels_in_a_checkpoint(rule: str, tmp_path: Path) -> None:
    threshold = fit_threshold(NORMALS, rule, **({"value": 0.03} if rule == "fixed" else {}))
    torch.save({"calibration": threshold.to_dict()}, tmp_path / "x.ckpt")
    loaded = torch.load(tmp_path / "x.ckpt", weights_only=True)["calibration"]
    assert Threshold.from_dict(loaded) == threshold


@pytest.mark.parametrize("rule", list(RULES))
def test_every_config_calibrates(rule: str) -> None:
    path = CONF / f"{rule}.yaml"
    config = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(config, dict)
    assert path.read_text().startswith(f"# python -m solder_vae.train threshold={rule} threshold.")
    if rule == "fixed":
        with pytest.raises(UserError, match=r"threshold\.value=NUMBER"):
            fit_threshold(NORMALS, **config)
        config["value"] = 0.03
    assert fit_threshold(NORMALS, **config).rule == rule


def test_every_rule_has_a_config() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(RULES)


@pytest.mark.parametrize(
    ("rule", "params", "message"),
    [
        ("best", {}, "choose threshold=quantile, sigma, false_call_rate or fixed"),
        ("sigma", {"q": 0.9}, "no parameter 'q': it takes threshold.k=NUMBER"),
        ("sigma", {"k": "three"}, "needs a number, got 'three'"),
        ("sigma", {"k": True}, "got True"),
        ("sigma", {"k": math.nan}, "got nan"),
        ("quantile", {"q": 95}, "a number from 0 to 1, got 95"),
        ("false_call_rate", {"rate": 0}, "between 0 and 1, got 0"),
        ("false_call_rate", {"rate": 1.0}, "between 0 and 1"),
        ("fixed", {}, "needs a number, got None: type threshold.value=NUMBER"),
    ],
)
def test_bad_rules_are_named_before_training(rule: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_rule(rule, **params)
    with pytest.raises(UserError, match=message):
        fit_threshold(NORMALS, rule, **params)


def test_bad_scores_are_named() -> None:
    with pytest.raises(UserError, match=r"2 of 3 anomaly scores of the validation normals .* \(first: row 1\)"):
        fit_threshold([0.0, math.nan, math.inf])
    with pytest.raises(UserError, match="No validation normals"):
        fit_threshold([])
    with pytest.raises(UserError, match="needs 2 validation normals"):
        fit_threshold([1.0], "sigma")


@pytest.mark.parametrize("rule", ["quantile", "sigma", "false_call_rate"])
def test_same_rule_is_the_rule_on_the_other_scores(rule: str) -> None:
    other = NORMALS[::-1] * 7 + 3
    assert refit_rule(fit_threshold(NORMALS, rule), other) == fit_threshold(other, rule)


@given(above=st.integers(0, 40))
def test_same_rule_matches_a_fixed_values_rate(above: int) -> None:
    scores = np.arange(40.0)
    fixed = fit_threshold(scores, "fixed", value=39.5 - above)
    other = refit_rule(fixed, scores**2 - 5)
    assert other.expected_false_call_rate == pytest.approx(min(fixed.expected_false_call_rate, 39 / 40))
