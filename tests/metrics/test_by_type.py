"""Thresholds within component types: against thresholds fitted by hand, and through a checkpoint's containers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae.metrics.by_type import OfType, fit_by_type, group, limits, own_thresholds, types_sentence
from solder_vae.metrics.classification import evaluate
from solder_vae.metrics.threshold import FEW_NORMALS, FalseCallRate, Quantile, fit_threshold


def fit_with(rule):
    return lambda kind, scores: {name: fit_threshold(values, rule) for name, values in scores.items()}


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(["", "R", "C", "U"]), st.integers(1, 45), min_size=1), st.integers(0, 99))
def test_each_type_with_normals_enough_has_the_threshold_of_its_own_scores(counts, seed):
    rng = np.random.default_rng(seed)
    types = rng.permutation([kind for kind, count in counts.items() for _ in range(count)]).tolist()
    scores = {"recon": rng.normal(size=len(types)), "elbo": rng.normal(size=len(types))}
    fitted = fit_by_type(group(scores, types), fit_with(Quantile(0.9)))
    assert set(fitted) == set(counts) - {""}
    for kind, each in fitted.items():
        mine = np.array(types) == kind
        assert np.array_equal(each.scores["recon"], scores["recon"][mine])
        if counts[kind] >= FEW_NORMALS:
            assert each.thresholds["elbo"] == fit_threshold(scores["elbo"][mine], Quantile(0.9))
        else:
            assert not each.thresholds
    overall = fit_threshold(scores["recon"], Quantile(0.9))
    own = own_thresholds(fitted, "recon")
    by_hand = [own[kind].value if counts[kind] >= FEW_NORMALS and kind else overall.value for kind in types]
    assert limits(overall, own, types, len(types)).tolist() == by_hand
    for each in fitted.values():
        again = OfType.from_dict(each.to_dict())
        assert again.thresholds == each.thresholds
        assert all(np.array_equal(again.scores[name], np.sort(each.scores[name])) for name in scores)


def test_a_rule_that_needs_more_normals_than_a_type_has_leaves_it_to_all():
    scores = {"recon": np.arange(130.0)}
    fitted = fit_by_type(group(scores, ["R"] * 100 + ["C"] * 30), fit_with(FalseCallRate(0.01)))
    assert set(own_thresholds(fitted, "recon")) == {"R"}
    assert types_sentence(fitted, "recon") == (
        "Within their type: R 99 (100 normals, 0.0 % false calls). By the threshold over all: joints of other types "
        "(1 with too few normals)."
    )


def test_no_types_mean_no_groups_and_no_words():
    assert group({"recon": np.arange(3.0)}, None) == {}
    assert types_sentence({}, "recon") == ""
    few = fit_by_type(group({"recon": np.arange(3.0)}, ["R"] * 3), fit_with(Quantile()))
    assert "No type has a threshold of its own" in types_sentence(few, "recon")


def test_metrics_count_by_each_joints_own_threshold():
    metrics = evaluate([1, 2, 3, 4], [0, 1, 0, 1], ["normal", "a", "normal", "a"], 2.5, limits=[0, 9, 9, 0])
    assert [metrics[key] for key in ("tp", "fp", "fn", "tn", "threshold")] == [1, 1, 1, 1, 2.5]


@pytest.mark.parametrize("spoil", [lambda d: d.pop("thresholds"), lambda d: d["validation_scores"].update(x=["a"])])
def test_damaged_containers_are_refused(spoil):
    fitted = fit_by_type(group({"recon": np.arange(30.0)}, ["R"] * 30), fit_with(Quantile()))
    content = fitted["R"].to_dict()
    spoil(content)
    with pytest.raises((KeyError, ValueError, TypeError)):
        OfType.from_dict(content)
