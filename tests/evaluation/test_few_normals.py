"""Few validation normals: scores that allow it set their threshold by training normals, too, which are left out."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoints import SIZE, pictures
from omegaconf import OmegaConf
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.data.table import ImageTable
from solder_vae.evaluation.evaluate import evaluate_model, with_left_out
from solder_vae.evaluation.fit_scores import fit_scores, independent
from solder_vae.metrics.by_type import group
from solder_vae.metrics.threshold import FalseCallRate, Fixed, Quantile, fit_threshold
from solder_vae.models.backbone import Backbone
from solder_vae.models.combined import Surprise
from solder_vae.models.mahalanobis import Mahalanobis, left_out_distances
from solder_vae.models.neighbours import Standard
from solder_vae.training.checks import check_few_normals
from solder_vae.utils import plugins
from solder_vae.utils.errors import UserError


def table(images, defects=None):
    count = len(images)
    return ImageTable(
        images, [str(row) for row in range(count)], defects or ["normal"] * count, np.full((count, 2), SIZE)
    )


@pytest.fixture(scope="module")
def fitted():
    """A model whose scores are fitted to 41 normals and 12 defects, its tables, and what 12 validation normals need."""
    plugins.import_plugins(["small_networks"])
    network = {"_target_": "small_networks.Maps", "pretrained": True}
    model = Backbone(score="combined", scores={"combined": {"strength": 0.1}}, network=network, layers=[0, 1], size=32)
    model.prepare()
    known = table(255 - pictures(12, seed=2), ["short"] * 12)
    tables = {"train": table(pictures(41)), "val": table(pictures(12, seed=1)), "known": known}
    return model.eval(), tables, fit_scores(model, tables, 16, 0)


def described(model, images):
    return model.describe(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)


def test_each_normal_is_scored_by_a_fit_without_its_fold(fitted):
    model, tables, (left_out, types) = fitted
    assert set(left_out) == {"mahalanobis", "knn", "classifier", "combined"}
    assert types == [""] * 41
    normals, known = (described(model, tables[name].images) for name in ("train", "known"))
    places = np.arange(41)
    for row in (0, 7, 40):
        kept = places % 5 != row % 5
        near = normals[:, : model.neighbour_features]
        standard = Standard.of(near[kept])
        inverse = LedoitWolf(assume_centered=True).fit(standard(near[kept]).double().numpy()).precision_
        point = standard(near[row : row + 1])[0].double().numpy()
        expected = mahalanobis(point, np.zeros(len(point)), inverse)
        assert float(left_out["mahalanobis"][row]) == pytest.approx(expected, rel=1e-3)
        standard = Standard.of(normals)
        features = torch.cat([standard(normals)[kept], standard(known)]).double().numpy()
        oracle = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=10_000)
        oracle.fit(features, np.repeat([0, 1], [kept.sum(), 12]))
        expected = oracle.decision_function(standard(normals[row : row + 1]).double().numpy())
        assert float(left_out["classifier"][row]) == pytest.approx(float(expected[0]), abs=0.03)


def test_combined_is_the_larger_surprise_among_all_normals(fitted):
    model, tables, (left_out, _) = fitted
    with torch.no_grad():
        val = model.score(torch.from_numpy(tables["val"].images).permute(0, 3, 1, 2).float() / 127.5 - 1).scores
    names = ("knn", "classifier")
    surprises = {name: Surprise.of(torch.cat([val[name], left_out[name]])) for name in names}
    expected = torch.stack([surprises[name](left_out[name]) for name in names]).amax(0)
    torch.testing.assert_close(left_out["combined"], expected, atol=1e-3, rtol=1e-3)


def test_they_come_to_the_validation_normals_of_the_scores_that_allow_it(caplog):
    caplog.set_level("INFO")
    few = {"knn": np.arange(12.0), "recon": np.arange(12.0)}
    got = with_left_out(few, {"knn": torch.tensor([3.0, 4.0])})
    assert got["knn"].tolist() == [*range(12), 3, 4]
    assert got["recon"].tolist() == [*range(12)]
    assert "Only 12 validation normals: thresholds of knn are set" in caplog.text
    groups = group(got, ["R", "C"] * 6 + ["C", "R"])
    assert groups["C"]["knn"].tolist() == [1, 3, 5, 7, 9, 11, 3]
    assert groups["R"]["recon"].tolist() == [0, 2, 4, 6, 8, 10]


def test_enough_validation_normals_need_no_others(fitted):
    model, tables, _ = fitted
    assert fit_scores(model, {**tables, "val": table(pictures(20, seed=1))}, 16, 0)[0] == {}


def doubled(given, order):
    """The table with each image twice, in an order."""
    rows = np.random.default_rng(order).permutation(np.repeat(np.arange(len(given)), 2))
    _, first = np.unique(rows, return_index=True)
    rows = np.concatenate([rows[np.sort(first)], np.delete(rows, first)])
    paths, digests = [str(place) for place in range(len(rows))], [str(row) for row in rows]
    defects = [given.defects[row] for row in rows]
    return rows, ImageTable(given.images[rows], paths, defects, given.native_size[rows], digests=digests)


def test_copies_are_left_out_together_and_count_once(fitted):
    """Else each would have its copy as its nearest neighbour, at distance 0."""
    model, tables, (expected, _) = fitted
    twice = {"train": doubled(tables["train"], 1), "val": doubled(tables["val"], 2)}
    assert independent(twice["val"][1]) == [*range(12)]
    assert len(independent(doubled(table(pictures(20)), 3)[1])) == 40  # enough without their copies
    again = copy.deepcopy(model)
    found, types = fit_scores(again, {**tables, **{name: each for name, (_, each) in twice.items()}}, 16, 0)
    assert types == [""] * 41
    rows = torch.from_numpy(twice["train"][0][:41])
    torch.testing.assert_close(found["knn"], expected["knn"][rows], rtol=1e-3, atol=1e-3)
    assert found["knn"].min() > 0.1
    assert len(again.scores["knn"].memory) == 41


def test_an_evaluation_counts_few_normals_once(fitted):
    model, tables, _ = fitted
    tables = {**tables, "test": table(pictures(4, seed=5), ["normal", "normal", "short", "short"])}
    twice = {**tables, "train": doubled(tables["train"], 1)[1], "val": doubled(tables["val"], 2)[1]}
    found = [
        evaluate_model(copy.deepcopy(model), SimpleNamespace(tables=each, batch_size=16, seed=0), Quantile(0.9))
        for each in (tables, twice)
    ]
    for evaluation in found:
        assert {name: len(values) for name, values in evaluation.val.items()} == dict.fromkeys(evaluation.val, 53)
        assert {threshold.n for threshold in evaluation.thresholds.values()} == {53}
        assert evaluation.of_normals == "validation normals and left-out training normals"
    # The other scores' folds depend on the order.
    assert found[1].thresholds["knn"].value == pytest.approx(found[0].thresholds["knn"].value, rel=1e-3)
    assert (
        evaluate_model(
            model, SimpleNamespace(tables={**tables, "val": table(pictures(20))}, batch_size=16, seed=0), Quantile(0.9)
        ).of_normals
        == "validation normals"
    )


def test_the_false_call_rate_on_fresh_normals_is_what_the_threshold_promises():
    """Distances of the very normals that the covariance is of would promise far less than comes."""
    rates = []
    for seed in range(30):
        drawn = torch.randn(600, 12, generator=torch.Generator().manual_seed(seed))
        score = Mahalanobis()
        score.remember(drawn[:60])
        fresh = score.distances(drawn[60:])
        limits = [
            fit_threshold(values, FalseCallRate(0.1)).value
            for values in (left_out_distances(drawn[:60]), score.distances(drawn[:60]))
        ]
        rates.append([float((fresh > limit).float().mean()) for limit in limits])
    honest, naive = np.mean(rates, axis=0)
    assert 0.06 < honest < 0.12
    assert naive > 1.5 * honest


class OwnPictures:
    pass


@pytest.mark.parametrize("score", ["knn", "mahalanobis", "combined", "classifier"])
def test_scores_that_leave_out_refuse_nothing(score, caplog):
    check(OwnPictures(), score)
    assert not caplog.text


def check(source, score="recon", rule=None, normals=7, few="refuse"):
    config = OmegaConf.create({"score": {"name": score}, "few_normals": few})
    check_few_normals(SimpleNamespace(source=source), config, rule or Quantile(0.95), normals)


def test_others_refuse_your_own_pictures_and_name_the_number_needed(caplog):
    with pytest.raises(UserError, match=r"score=recon .* there are 7, and 20 are needed: .*few_normals=accept"):
        check(OwnPictures())
    check(OwnPictures(), normals=20)
    check(OwnPictures(), rule=Fixed(1.0))
    assert not caplog.text
    check(OwnPictures(), few="accept")
    check(object.__new__(SyntheticSource))
    assert caplog.text.count("Only 7 validation normals") == 2
