"""MIG, SAP and DCI on constructed codes with known answers, against loops, and as properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from solder_vae.data.synthetic.conditions import draw_conditions
from solder_vae.data.synthetic.factors import NORMAL_FACTORS, normal_factors
from solder_vae.data.synthetic.render import _factors
from solder_vae.data.synthetic.scene import draw_scene
from solder_vae.metrics.disentanglement import (
    BINS,
    active,
    chance,
    completeness,
    dci,
    discretise,
    disentanglement,
    measure,
    mig,
    mutual_information,
    rotated,
    sap,
)
from solder_vae.utils.errors import UserError

N = 1500
GENERATOR = np.random.default_rng(0)
UNIFORM = GENERATOR.uniform(-2, 2, (N, 3))
KIND = GENERATOR.integers(0, 4, N)
FACTORS = {**{name: UNIFORM[:, i] for i, name in enumerate("abc")}, "kind": np.array(list("wxyz"))[KIND]}
TRUE = np.column_stack([UNIFORM, KIND])
NOISE = GENERATOR.normal(size=(N, 20))
NAMES = ("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness")


def drawn_factors(count):
    """Factors of normal joints, without rendering them."""
    rows = []
    for i in range(count):
        scene = draw_scene(np.random.default_rng([0, i]))
        rows.append(_factors(scene, draw_conditions(np.random.default_rng([1, i])), 0.0))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_codes_that_are_the_factors_score_one():
    scores = measure(TRUE, FACTORS)
    assert tuple(scores) == NAMES
    assert all(score > 0.93 for score in scores.values()), scores
    among_noise = measure(np.hstack([NOISE, TRUE]), FACTORS)
    assert all(score > 0.93 for score in among_noise.values()), among_noise


def test_an_even_rotation_keeps_the_information_and_loses_the_rest():
    """Turned so that every unit is half plus or minus each factor: all know as much of it as all others."""
    hadamard = np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]]) / 2
    mixed = measure((TRUE - TRUE.mean(0)) / TRUE.std(0) @ hadamard, FACTORS)
    assert mixed["mig"] < 0.05
    assert mixed["sap"] < 0.08
    assert mixed["dci_disentanglement"] < 0.15
    assert mixed["dci_completeness"] < 0.15
    assert mixed["dci_informativeness"] > 0.7


def test_evenly_mixed_codes_have_no_gap():
    """Sums and differences of two factors: each unit knows as much of the one as of the other."""
    a, b = UNIFORM[:, 0], UNIFORM[:, 1]
    scores = measure(np.column_stack([a + b, a - b]), {"a": a, "b": b})
    assert scores["mig"] < 0.03
    assert scores["sap"] < 0.06
    assert scores["dci_disentanglement"] < 0.1
    assert scores["dci_completeness"] < 0.1


@pytest.mark.slow
def test_noise_scores_nothing():
    scores = measure(NOISE, FACTORS)
    assert max(scores.values()) < 0.05, scores
    assert max(chance(TRUE, FACTORS).values()) < 0.15


def test_a_duplicated_unit_closes_the_gaps_and_halves_completeness():
    scores = measure(np.repeat(TRUE, 2, axis=1), FACTORS)
    assert scores["mig"] == 0
    assert scores["sap"] == 0
    assert scores["dci_disentanglement"] > 0.9
    # Two of eight units share a factor: 1 - log 2 / log 8.
    assert scores["dci_completeness"] == pytest.approx(2 / 3, abs=0.06)


def test_dead_units_change_nothing_and_win_nothing():
    """Dead: constant, and all but constant though it tells a factor exactly."""
    dead = np.column_stack([np.full(N, 3.0), 1e-3 * UNIFORM[:, 0], np.zeros(N)])
    assert measure(np.hstack([dead, TRUE]), FACTORS) == measure(TRUE, FACTORS)
    assert measure(dead, FACTORS) == dict.fromkeys(NAMES, 0.0)
    assert active(np.hstack([dead, TRUE])).shape == TRUE.shape


def test_constant_units_do_not_break_the_measures_themselves():
    codes = np.column_stack([np.ones(N), TRUE])
    assert mig(codes, FACTORS) == mig(TRUE, FACTORS)
    assert sap(codes, FACTORS) == sap(TRUE, FACTORS)
    assert np.isfinite(dci(codes, FACTORS)).all()


def test_a_single_unit():
    scores = measure(UNIFORM[:, :1], {"a": UNIFORM[:, 0], "b": UNIFORM[:, 1]})
    assert scores["mig"] == pytest.approx(0.5, abs=0.05)  # all of a, nothing of b
    assert scores["sap"] == pytest.approx(0.5, abs=0.05)
    assert scores["dci_completeness"] == 0


def test_mutual_information_by_hand():
    bins = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0]])
    classes = np.array([0, 0, 1, 1])
    np.testing.assert_allclose(mutual_information(bins, classes), [math.log(2), 0, 0], atol=1e-12)
    # p(0,0) = 1/2, p(1,0) = p(1,1) = 1/4: I = 1/2 log(4/3) + 1/4 log(2/3) + 1/4 log 2
    by_hand = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    found = mutual_information(np.array([[0], [0], [1], [1]]), np.array([0, 0, 0, 1]))
    assert found[0] == pytest.approx(by_hand)


@given(st.integers(0, 999))
@settings(deadline=None, max_examples=20)
def test_mutual_information_against_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    bins, classes = generator.integers(0, BINS, (60, 5)), generator.integers(0, 4, 60)
    expected = [mutual_info_score(bins[:, i], classes) for i in range(5)]
    np.testing.assert_allclose(mutual_information(bins, classes), expected, atol=1e-12)


@given(st.integers(0, 999))
@settings(deadline=None, max_examples=20)
def test_bins_are_numpys_histogram(seed):
    values = np.random.default_rng(seed).normal(size=(50, 3))
    found = discretise(values)
    for column in range(3):
        counts, _ = np.histogram(values[:, column], BINS)
        assert np.bincount(found[:, column], minlength=BINS).tolist() == counts.tolist()
    assert (discretise(np.ones((4, 1))) == 0).all()


def test_mig_by_hand():
    """One unit tells the class, the other one nothing: (log 2 - 0) / log 2; half of the images: in between."""
    factor = np.tile([0, 1], 20)
    useless = np.repeat([0.0, 1.0], 20)
    assert mig(np.column_stack([factor, useless]), {"f": factor}) == pytest.approx(1)
    assert mig(np.column_stack([useless, useless]), {"f": factor}) == pytest.approx(0)


def test_sap_of_continuous_factors_is_the_gap_of_squared_correlations():
    codes = np.column_stack([TRUE[:, 0] + 0.5 * NOISE[:, 0], TRUE[:, 0] + 2 * NOISE[:, 1], NOISE[:, 2]])
    squared = sorted(np.corrcoef(codes[:, i], TRUE[:, 0])[0, 1] ** 2 for i in range(3))
    assert sap(codes, {"a": TRUE[:, 0]}) == pytest.approx(squared[2] - squared[1])


def test_sap_of_categories_counts_above_chance():
    """Two classes whose unit tells them apart three times in four: accuracy 0.75, chance 0.5, so 0.5."""
    truth = GENERATOR.integers(0, 2, 8000)
    seen = np.where(GENERATOR.random(8000) < 0.25, 1 - truth, truth)
    codes = np.column_stack([seen + 0.01 * GENERATOR.normal(size=8000), np.zeros(8000)])
    assert sap(codes, {"f": truth}) == pytest.approx(0.5, abs=0.05)


def test_rare_classes_do_not_break_anything():
    rare = np.zeros(N, dtype=int)
    rare[7] = 1
    assert all(0 <= score <= 1 for score in measure(TRUE, {**FACTORS, "rare": rare, "constant": np.ones(N)}).values())


def test_importances_by_hand():
    assert disentanglement(np.eye(3)) == completeness(np.eye(3)) == 1
    assert disentanglement(np.ones((4, 3))) == pytest.approx(0)
    assert completeness(np.ones((4, 3))) == pytest.approx(0)
    assert disentanglement(np.zeros((4, 3))) == completeness(np.zeros((4, 3))) == 0
    # Unit 0 serves both factors alike (0), unit 1 one alone (1); their weights are 2 and 1.
    shared = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert disentanglement(shared) == pytest.approx(1 / 3)
    # Factor 0 has one unit (1), factor 1 two alike (0); their weights are 1 and 2.
    assert completeness(shared) == pytest.approx(1 / 3)


@pytest.mark.slow
@given(st.integers(0, 999), st.integers(2, 6), st.integers(2, 5))
@settings(deadline=None)
def test_concentrations_know_no_order_and_no_scale(seed, units, factors):
    generator = np.random.default_rng(seed)
    importances = generator.exponential(size=(units, factors)) * (generator.random((units, factors)) < 0.7)
    shuffled = 3.7 * importances[generator.permutation(units)][:, generator.permutation(factors)]
    for concentration in (disentanglement, completeness):
        assert 0 <= concentration(importances) <= 1
        assert concentration(shuffled) == pytest.approx(concentration(importances), abs=1e-9)


@given(st.integers(0, 999), st.integers(-3, 6))
@settings(deadline=None, max_examples=25)
def test_units_may_be_permuted_scaled_and_shifted(seed, power):
    generator = np.random.default_rng(seed)
    codes = TRUE[:200] @ generator.normal(size=(4, 5))
    factors = {name: values[:200] for name, values in FACTORS.items()}
    scales = 2.0 ** generator.integers(-3, power + 1, 5)  # powers of two: no rounding, no other bin
    changed = (codes * scales)[:, generator.permutation(5)]
    assert mig(changed, factors) == pytest.approx(mig(codes, factors))
    assert sap(changed, factors) == pytest.approx(sap(codes, factors))
    assert sap(changed + 4, factors) == pytest.approx(sap(codes, factors), abs=1e-6)
    renamed = {name[::-1]: factors[name] for name in reversed(factors)}
    assert mig(codes, renamed) == pytest.approx(mig(codes, factors))


def test_images_may_be_permuted_for_mig():
    order = GENERATOR.permutation(N)
    codes = rotated(TRUE)
    shuffled = {name: values[order] for name, values in FACTORS.items()}
    assert mig(codes[order], shuffled) == pytest.approx(mig(codes, FACTORS))


def test_dci_hardly_depends_on_order_and_scale():
    codes = np.hstack([TRUE, NOISE[:, :3]])
    changed = (codes * [1, 8, 0.5, 2, 4, 1, 0.25])[:, ::-1]
    np.testing.assert_allclose(dci(changed, FACTORS), dci(codes, FACTORS), atol=0.03)


def test_same_seed_same_numbers():
    assert measure(TRUE, FACTORS, seed=3) == measure(TRUE, FACTORS, seed=3)


def test_rotation_is_one():
    turned = rotated(TRUE, seed=2)
    np.testing.assert_allclose(turned @ turned.T, TRUE @ TRUE.T, atol=1e-9)
    assert not np.allclose(turned, TRUE)


def test_factors_of_normal_joints_are_independent():
    """As the measures assume: no pair shares more information than counting 600 images in bins makes up."""
    factors = normal_factors(drawn_factors(600))
    assert tuple(factors) == NORMAL_FACTORS
    binned = {
        name: discretise(values[:, None])[:, 0] // 4
        if values.dtype.kind == "f"
        else np.unique(values, return_inverse=True)[1]
        for name, values in factors.items()
    }
    for name, values in binned.items():
        others = [other for other in binned if other != name]
        shared = mutual_information(np.column_stack([binned[other] for other in others]), values)
        assert shared.max() < 0.05, (name, others[int(shared.argmax())], shared.max())


def test_quarter_turns():
    known = {name: np.zeros(6) for name in NORMAL_FACTORS if name != "quarter_turn"}
    known["view_angle"] = np.array([-5.0, 4.0, 86.0, 181.0, 272.0, 355.0])
    assert normal_factors(known)["quarter_turn"].tolist() == [0, 0, 1, 2, 3, 0]


@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (TRUE[:19], {name: values[:19] for name, values in FACTORS.items()}, "19 images"),
        (TRUE, {"a": UNIFORM[:, 0], "constant": np.ones(N)}, "two factors"),
        (np.where(TRUE > 1.9, np.nan, TRUE), FACTORS, "codes"),
        (TRUE, {**FACTORS, "bad": np.where(TRUE[:, 0] > 1.9, np.inf, 1.0)}, "bad"),
    ],
)
def test_refusals(codes, factors, message):
    with pytest.raises(UserError, match=message):
        measure(codes, factors)


def test_other_data_have_no_factors():
    with pytest.raises(UserError, match="data=synthetic"):
        normal_factors({})
