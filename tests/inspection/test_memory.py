"""Other normals in the memory, without training: against loops, what it promises, and the command from end to end."""

from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from checkpoints import SIZE, pictures, write_checkpoint, write_images
from pages import Page

from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation.fit_scores import thumbnails
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.memory import check_types, remembered, renew
from solder_vae.metrics.threshold import Quantile, fit_threshold
from solder_vae.models import neighbours
from solder_vae.models.classifier import Classifier
from solder_vae.models.combined import Combined
from solder_vae.models.mahalanobis import Mahalanobis
from solder_vae.models.neighbours import Knn
from solder_vae.models.scores import FitData, ModelOutput, score_with
from solder_vae.predict import run as predict
from solder_vae.threshold import run
from solder_vae.utils.errors import UserError

WIDTH = 12


def features(count, seed, place=0.0):
    """Of normals of a kind, which has its place."""
    drawn = torch.randn((count, WIDTH), generator=torch.Generator().manual_seed(seed))
    return drawn * torch.linspace(0.5, 3, WIDTH) + 2 + place


def output_of(given):
    nothing = torch.empty(0)
    return ModelOutput(nothing, (nothing,), nothing, nothing, None, None, {}, given)


def model_of(known=True):
    """A model's scores, fitted to 300 normals of the first kind and 30 defects."""
    scores = {"mahalanobis": Mahalanobis(), "knn": Knn(), "classifier": Classifier(strength=0.01)}
    bad = features(30, 9)
    bad[:, 0] += 2
    normals = SimpleNamespace(features=features(300, 0), defects=["normal"] * 300, types=None, thumbnails=None)
    defects = SimpleNamespace(features=bad, defects=["short"] * 30, thumbnails=None)
    for score in scores.values():
        score.fit(FitData(normals, normals, defects if known else None))
    scores = {name: score for name, score in scores.items() if score.usable}
    combined = Combined()
    validation = score_with(output_of(features(200, 1)), scores).scores
    combined.calibrate({name: validation[name] for name in ("knn", "classifier") if name in validation})
    scores["combined"] = combined
    return SimpleNamespace(scores=scores, admitted_scores=tuple(scores))


def scored(model, given):
    return {name: each.double().numpy() for name, each in score_with(output_of(given), model.scores).scores.items()}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["add", "replace"])
@pytest.mark.parametrize("known", [True, False])
def test_the_false_call_rate_is_what_the_threshold_promises_on_fresh_normals_of_the_kind(how, known):
    """And nearly all of them were called before."""
    rates, called = [], []
    for seed in range(20):
        model = model_of(known)
        given, fresh = features(400, 1000 + seed, 4.0), features(1000, 2000 + seed, 4.0)
        before = fit_threshold(scored(model, features(300, 5))["knn"], Quantile(0.95)).value
        called.append(np.mean(scored(model, fresh)["knn"] > before))
        found = renew(model, scored(model, given), given, [""] * 400, how)
        limits = {name: fit_threshold(values, Quantile(0.95)).value for name, values in found.items()}
        rates.append([np.mean(values > limits[name]) for name, values in scored(model, fresh).items()])
    assert min(called) > 0.95
    np.testing.assert_allclose(np.mean(rates, axis=0), 0.05, atol=0.015)


def test_scores_and_memory_are_those_of_loops():
    model, given = model_of(), features(40, 3, 1.0)
    found = renew(model, scored(model, given), given, [""] * 40, "add")
    normals = torch.cat([given, features(300, 0)]).double()
    standard = ((normals - normals.mean(0)) / normals.std(0, correction=0)).numpy()
    covariance, ridge = standard.T @ standard / 340, 3 + 10 * WIDTH / 340
    root = np.linalg.cholesky(np.linalg.inv((covariance + ridge * np.eye(WIDTH)) / (1 + ridge)))
    standard = standard @ root  # distances by the inverse of the covariance with its ridge
    for row, value in enumerate(found["knn"]):
        others = np.delete(standard, row, axis=0)
        assert value == pytest.approx(np.linalg.norm(others - standard[row], axis=1).min(), rel=1e-4)
    again = Knn()
    again.load_state(model.scores["knn"].state())
    torch.testing.assert_close(remembered(again)[0], normals.float(), rtol=1e-5, atol=1e-5)
    fresh = Mahalanobis()
    fresh.remember(normals.float())
    torch.testing.assert_close(fresh.distances(given), model.scores["mahalanobis"].distances(given), rtol=1e-3, atol=0)
    assert (found["mahalanobis"] > fresh.distances(given).numpy()).mean() > 0.8  # held out, so further away


def test_normals_that_are_remembered_already_are_not_added_twice():
    model, given = model_of(), features(300, 0)[:50]
    found = renew(model, scored(model, given), given, [""] * 50, "add")
    assert len(model.scores["knn"].memory) == 300
    assert found["knn"].min() > 0.1


def test_a_memory_that_is_full_keeps_earlier_normals_evenly_spaced(monkeypatch):
    monkeypatch.setattr("solder_vae.inspection.memory.MEMORY", 100)
    model, given = model_of(), features(60, 3)
    renew(model, scored(model, given), given, [""] * 60, "add")
    kept, _ = remembered(model.scores["knn"])
    expected = torch.cat([given, features(300, 0)[np.linspace(0, 299, 40).round().astype(int)]])
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-4)


def test_types_go_on():
    model = model_of()
    model.scores["knn"].remember(features(300, 0), ["R"] * 200 + [""] * 100)
    given = features(neighbours.OF_A_TYPE, 3)
    renew(model, scored(model, given), given, ["C"] * len(given), "add")
    assert {kind: len(places) for kind, places in model.scores["knn"].kinds.items()} == {"C": len(given), "R": 200}
    assert model.scores["knn"].kinds["C"].tolist() == list(range(len(given)))


def typed(types):
    """A model whose memory holds 300 normals of these types."""
    model = model_of()
    model.scores["knn"].remember(features(300, 0), types)
    return model


@pytest.mark.parametrize("extend", [False, True])
def test_normals_of_known_type_do_not_shrink_what_an_untyped_memory_compares_with(extend):
    """Among the earlier normals there may be some of the type: no joint may be further away than before."""
    model, given, fresh = typed(None), features(40, 3), features(200, 4)
    standard = model.scores["knn"].standard
    renew(model, scored(model, given), given, ["R"] * 40, "add", extend=extend)
    assert not model.scores["knn"].kinds
    assert not model.scores["mahalanobis"].within_types
    both = torch.cat([given, features(300, 0)])
    expected = Knn()
    expected.remember(both, standard=standard if extend else None)
    found = model.scores["knn"].neighbours(fresh, ["R"] * 200)[0]
    torch.testing.assert_close(found, expected.neighbours(fresh)[0], rtol=1e-4, atol=1e-4)


def test_normals_of_no_type_are_not_added_to_a_memory_by_type():
    model = typed(["R"] * 200 + ["C"] * 100)
    with pytest.raises(
        UserError, match=r"types \(C, R\), and no type is known of the 2 normals: .*columns path and type\."
    ):
        check_types(model, ["", ""], "normals", None)
    with pytest.raises(UserError, match=r"or paths in which the checkpoint's data\.type_regex=\(R\) finds one\."):
        check_types(model, ["", ""], "normals", "(R)")
    check_types(model, ["", "R"], "normals", None)
    check_types(typed(None), ["", ""], "normals", None)


def test_too_few_normals():
    model = model_of()
    with pytest.raises(UserError, match="needs 2 normals or more"):
        renew(model, scored(model, features(1, 3)), features(1, 3), [""], "replace")


def table(images, defect="normal"):
    count = len(images)
    return ImageTable(images, [str(row) for row in range(count)], [defect] * count, np.full((count, 2), SIZE))


@pytest.fixture
def trained(tmp_path):
    tables = {"train": table(pictures(60, seed=1)), "val": table(pictures(30, seed=2))}
    return write_checkpoint(tmp_path / "best.ckpt", score="combined", tables=tables, scores={"combined": {}})[0]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A checkpoint with thumbnails; its good joints and known defects, and three abnormal joints."""
    good, bad = pictures(60, seed=1), 255 - pictures(12, seed=4)
    known = ImageTable(bad, [*"abcdefghijkl"], ["short"] * 6 + ["void"] * 6, np.full((12, 2), SIZE))
    tables = {"train": table(good), "val": table(pictures(30, seed=2)), "known": known}
    path = tmp_path_factory.mktemp("shown") / "best.ckpt"
    write_checkpoint(path, score="combined", tables=tables, scores={"combined": {"strength": 0.01}})
    return path, good, bad, [bad[3], bad[8], bad[0]]


def nearest_by_hand(model, joints, images, whitened=False):
    """The picture among images that is nearest to each joint by the features' deviations over the good joints."""
    seen, joints = (model.describe(to_tensor(each)).double().numpy() for each in (images, np.stack(joints)))
    standard = model.scores["knn"].standard
    unit = standard.deviation.double().numpy()
    axes = standard.whitening.double().numpy() if whitened else np.eye(len(unit))
    away = [(seen[:, : len(unit)] - joint[: len(unit)]) / unit @ axes for joint in joints]
    return [images[np.square(each).sum(1).argmin()] for each in away]


@pytest.mark.slow
def test_an_abnormal_joint_is_shown_beside_what_it_is_nearest_to(shown):
    path, good, bad, joints = shown
    inspector = Inspector.load(path)
    near = [verdict.near for verdict in inspector.score(joints)]
    assert [each[0].caption for each in near] == ["nearest good joint"] * 3
    assert [each[1].caption.rpartition(": ")[2] for each in near] == ["short", "void", "short"]
    for column, images in enumerate((good, bad)):
        pictures_by_hand = nearest_by_hand(inspector.model, joints, images, whitened=column == 0)
        for each, picture in zip(near, pictures_by_hand, strict=True):
            assert torch.equal(each[column].picture, thumbnails([picture])[0])
    assert inspector.score(good[7])[0].near == ()  # a normal joint is not compared


def test_the_report_names_what_is_beside_a_joint(shown, tmp_path):
    path, good, _, joints = shown
    write_images(tmp_path / "joints", [joints[0], good[7]])
    predict([f"checkpoint={path}", f"images={tmp_path / 'joints'}", f"out={tmp_path / 'out'}"])
    found = {Path(each["path"]).stem: each for each in Page((tmp_path / "out/report.html").read_text()).data["joints"]}
    assert found["000"]["near"] == ["nearest good joint", "nearest known defect: short"]
    assert "near" not in found["001"]
    for name, panels in {"000": 5, "001": 3}.items():
        drawn = cv2.imdecode(np.frombuffer(b64decode(found[name]["picture"]), np.uint8), cv2.IMREAD_COLOR)
        assert drawn.shape == (SIZE, panels * SIZE, 3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["add", "replace"])
def test_new_normals_bring_their_pictures(shown, tmp_path, how):
    path, good, _, joints = shown
    write_images(tmp_path / "good", new := pictures(20, seed=7))
    options = [f"normals={tmp_path / 'good'}", f"memory={how}", f"out={tmp_path / 'out'}"]
    run([f"checkpoint={path}", "rule=sigma", *options])
    inspector = Inspector.load(tmp_path / "out/calibrated.ckpt")
    among = np.concatenate([new, good]) if how == "add" else new
    assert torch.equal(inspector.model.scores["knn"].pictures, thumbnails(among))
    joints = [*joints, *(255 - new[:2])]
    near = [inspector.model.near(torch.from_numpy(each.features)[None])[0] for each in inspector.score(joints)]
    for each, picture in zip(near, nearest_by_hand(inspector.model, joints, among, whitened=True), strict=True):
        assert torch.equal(each[0].picture, thumbnails([picture])[0])


@pytest.mark.slow
def test_checkpoints_without_pictures_decide_all_the_same(shown, tmp_path):
    """Of earlier versions; and normals that are added to one have none, as the others would be missing."""
    path, _, _, joints = shown
    content = torch.load(path, weights_only=True)
    for state in content["scores"].values():
        state.pop("thumbnails", None)
    torch.save(content, tmp_path / "old.ckpt")
    old, new = (Inspector.load(each).score(joints) for each in (tmp_path / "old.ckpt", path))
    assert [each.near for each in old] == [()] * 3
    assert [each.row for each in old] == [each.row for each in new]
    write_images(tmp_path / "good", pictures(20, seed=7))
    options = [f"normals={tmp_path / 'good'}", "memory=add", f"out={tmp_path / 'out'}"]
    run([f"checkpoint={tmp_path / 'old.ckpt'}", "rule=sigma", *options])
    assert not len(Inspector.load(tmp_path / "out/calibrated.ckpt").model.scores["knn"].pictures)


def like(images, seed):
    """The same joints with other noise of the camera."""
    noise = np.random.default_rng(seed).normal(0, 3, images.shape)
    return (images * 0.4 + 5 + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.slow
def test_false_calls_that_are_added_are_not_called_again(trained, tmp_path):
    scenes = pictures(40, seed=7)
    write_images(tmp_path / "good", like(scenes, 1))
    before = trained.read_bytes()
    assert all(verdict.abnormal for verdict in Inspector.load(trained).score(like(scenes, 2)))
    run([f"checkpoint={trained}", "rule=quantile", "q=0.95", f"normals={tmp_path / 'good'}", "memory=add"])
    assert trained.read_bytes() == before
    inspector = Inspector.load(tmp_path / "best_quantile_0.95_add/calibrated.ckpt")
    assert len(inspector.model.scores["knn"].memory) == 100
    assert not any(verdict.abnormal for verdict in inspector.score(like(scenes, 2)))
    assert np.mean([verdict.abnormal for verdict in inspector.score(like(pictures(200, seed=8), 3))]) < 0.15
    # Compared with itself, each would be at distance 0.
    assert inspector.validation_scores["knn"][0] > 10 * max(
        verdict.scores["knn"] for verdict in inspector.score(like(scenes, 1))
    )


@pytest.mark.slow
@pytest.mark.measured
def test_what_does_not_fit_is_told_in_a_sentence(trained, tmp_path):
    other = write_checkpoint(tmp_path / "recon.ckpt", score="recon")[0]
    write_images(tmp_path / "good", pictures(30))
    arguments = ["rule=sigma", f"normals={tmp_path / 'good'}"]
    with pytest.raises(UserError, match=r"recon, elbo, gradcon.* no memory to change.*score=knn or score=combined"):
        run([f"checkpoint={other}", *arguments, "memory=replace"])
    with pytest.raises(UserError, match="memory=more is unknown: use keep, add, replace"):
        run([f"checkpoint={trained}", *arguments, "memory=more"])
    with pytest.raises(UserError, match="memory=add needs normals=PATH"):
        run([f"checkpoint={trained}", "rule=sigma", "memory=add"])
