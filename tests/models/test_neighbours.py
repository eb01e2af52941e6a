"""Nearest neighbours and Mahalanobis: against loops, and through fit, state and score."""

import numpy as np
import pytest
import torch
from checkpoints import SIZE, pictures
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation import fit_scores as fitting
from solder_vae.models.autoencoder import Autoencoder
from solder_vae.models.mahalanobis import Mahalanobis
from solder_vae.models.neighbours import Knn, Standard, nearest
from solder_vae.models.networks import channel_statistics
from solder_vae.models.scores import FEATURES, FitData, ModelOutput
from solder_vae.utils.errors import UserError


class Given:
    """Examples of given features."""

    types = thumbnails = None

    def __init__(self, features):
        self.features, self.defects = features, ["normal"] * len(features)


def fitted(score, features):
    score.fit(FitData(Given(features), Given(features[:0])))
    return score


def output_of(features):
    nothing = torch.empty(0)
    return ModelOutput(nothing, (nothing,), nothing, nothing, None, None, {}, features)


def table(images):
    count = len(images)
    return ImageTable(images, [str(row) for row in range(count)], ["normal"] * count, np.full((count, 2), SIZE))


@pytest.mark.parametrize("k", [1, 3])
def test_the_distances_are_those_of_loops(k):
    normals, images = torch.randn(30, 7) * torch.linspace(0.1, 9, 7) + 4, torch.randn(5, 7) + 4
    score = fitted(Knn(k, whiten=False), normals)
    mean, deviation = normals.double().mean(0), normals.double().std(0, correction=0)
    for row, image in enumerate(images.double()):
        distances = sorted(float(((image - normal) / deviation).norm()) for normal in normals.double())
        assert float(score(output_of(images))[row]) == pytest.approx(np.mean(distances[:k]), rel=1e-5)
    assert torch.allclose(score.standard.mean.double(), mean)


def test_whitened_the_distance_is_scipys_with_the_inverse_of_the_covariance_and_its_ridge():
    normals, images = torch.randn(60, 6) @ torch.randn(6, 6) + 2, torch.randn(5, 6) + 2
    score = fitted(Knn(), normals)
    standard = Standard.of(normals)
    points = standard(normals).double().numpy()
    covariance, ridge = points.T @ points / 60, 3 + 10 * 6 / 60
    mean = np.trace(covariance) / 6
    inverse = (1 + ridge) * mean * np.linalg.inv(covariance + ridge * mean * np.eye(6))
    again = Knn()
    again.load_state(score.state())
    for each in (score, again):
        output = output_of(images)
        ours, (origin, weights) = each(output), each.parts(output)
        for row, image in enumerate(standard(images).double().numpy()):
            assert float(ours[row]) == pytest.approx(min(mahalanobis(image, one, inverse) for one in points), rel=1e-4)
        torch.testing.assert_close(((images - origin) * weights).sum(1).sqrt(), ours)
        torch.testing.assert_close(each.standard.undo(each.memory), normals, rtol=1e-4, atol=1e-4)


def test_few_normals_with_many_features_are_hardly_whitened():
    normals = torch.randn(20, 400, generator=torch.Generator().manual_seed(0))
    plain, whitened = fitted(Knn(whiten=False), normals), fitted(Knn(), normals)
    # Otherwise each normal would be nearer to the others than a joint of tomorrow is.
    ratio = whitened.among_themselves() / plain.among_themselves()
    assert 0.95 < float(ratio.min()) <= float(ratio.max()) < 1


def test_a_memory_of_an_earlier_version_is_not_whitened():
    normals, images = torch.randn(40, 5) @ torch.randn(5, 5), torch.randn(3, 5)
    earlier, now = fitted(Knn(whiten=False), normals), Knn()
    assert "whitening" not in earlier.state()
    now.load_state(earlier.state())
    assert torch.equal(now(output_of(images)), earlier(output_of(images)))


def test_a_training_normal_is_at_distance_zero_from_itself_and_the_nearest_place_is_its_own():
    normals = torch.randn(500, 64) * 1e-3 + 1e3  # digits that a product of matrices loses
    score = fitted(Knn(), normals)
    distances, places = score.neighbours(normals)
    assert float(distances.max()) == 0
    assert places[:, 0].tolist() == list(range(500))


def test_left_out_each_normal_is_compared_with_all_others():
    normals = torch.randn(40, 5)
    score = fitted(Knn(2, whiten=False), normals)
    standard = ((normals - normals.mean(0)) / normals.std(0, correction=0)).double()
    for row, value in enumerate(score.among_themselves()):
        others = sorted(float((standard[row] - other).norm()) for at, other in enumerate(standard) if at != row)
        assert float(value) == pytest.approx(np.mean(others[:2]), rel=1e-5)


def test_a_feature_that_is_constant_on_normals_does_not_decide_alone():
    normals = torch.randn(50, 10)
    normals[:, 3] = 0.5
    standard = Standard.of(normals)
    images = normals.clone()
    images[:, 3] += 1e-6
    assert float((standard(images) - standard(normals)).abs().max()) < 1e-3
    assert Standard.of(torch.ones(4, 3))(torch.ones(2, 3)).abs().max() == 0


def test_the_neighbours_come_in_ascending_order_of_distance():
    distances, places = nearest(torch.zeros(1, 2), torch.tensor([[3.0, 0], [1, 0], [2, 0]]), 3)
    assert distances.tolist() == [[1, 2, 3]]
    assert places.tolist() == [[1, 2, 0]]


def test_mahalanobis_is_scipys_with_the_shrunk_covariance():
    mixing = torch.randn(6, 6)
    normals, images = torch.randn(40, 6) @ mixing + 2, torch.randn(4, 6) + 2
    score = fitted(Mahalanobis(), normals)
    standard, ours = Standard.of(normals), score(output_of(images))
    inverse = LedoitWolf(assume_centered=True).fit(standard(normals).double().numpy()).precision_
    for row, image in enumerate(standard(images).double().numpy()):
        assert float(ours[row]) == pytest.approx(mahalanobis(image, np.zeros(6), inverse), rel=1e-4)


def test_mahalanobis_is_within_types_of_20_normals_around_their_means():
    shifts = {"R": 0.0, "C": 6.0, "U": 3.0}
    types = ["R"] * 30 + ["C"] * 25 + ["U"] * 10
    normals = torch.randn(65, 4) @ torch.randn(4, 4) + torch.tensor([shifts[kind] for kind in types])[:, None]
    score = Mahalanobis()
    score.remember(normals, types)
    over_all = fitted(Mahalanobis(), normals)
    points = Standard.of(normals)(normals).double().numpy()
    means = {"R": points[:30].mean(0), "C": points[30:55].mean(0)}
    around = np.concatenate([points[:30] - means["R"], points[30:55] - means["C"]])
    inverse = LedoitWolf(assume_centered=True).fit(around).precision_
    images, asked = normals[[0, 40, 60, 1]] + 0.5, ["C", "C", "U", ""]
    again = Mahalanobis()
    again.load_state(score.state())
    for each in (score, again):
        output = output_of(images)._replace(types=asked)
        ours, (origin, weights) = each(output), each.parts(output)
        torch.testing.assert_close(((images - origin) * weights).sum(1).sqrt(), ours)
        for row in (0, 1):
            point = Standard.of(normals)(images)[row].double().numpy()
            assert float(ours[row]) == pytest.approx(mahalanobis(point, means["C"], inverse), rel=1e-4)
        torch.testing.assert_close(ours[2:], over_all(output_of(images))[2:])
        torch.testing.assert_close(each(output_of(images)), over_all(output_of(images)))
    assert score.within_types
    assert not over_all.within_types


@pytest.mark.filterwarnings("ignore:Only one sample available")
@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_normals_give_finite_distances(count):
    normals = torch.randn(count, 12)
    for score in (fitted(Knn(), normals), fitted(Mahalanobis(), normals)):
        assert torch.isfinite(score(output_of(torch.randn(3, 12)))).all()


def test_more_neighbours_than_normals_are_refused():
    with pytest.raises(UserError, match=r"score\.k=5 does not fit 3 training normals"):
        fitted(Knn(5), torch.randn(3, 4))


@pytest.mark.parametrize("model", ["cae", "beta_vae"])
@pytest.mark.parametrize("features", ["blocks", "log_blocks", "code"])
def test_the_features_are_the_encoders_own(model, features):
    network = Autoencoder.registry[model](
        score="knn", scores={"knn": {}}, features=features, flips=False, fast=False
    ).eval()
    x = to_tensor(pictures(3))
    output = network.score(x, names=(), needs={FEATURES})
    code = network.encode(x)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(output.code, code, strict=True))
    if features == "code":
        assert torch.equal(output.features, code[0].flatten(1))
        return
    blocks, hidden = [], x
    for layer in network.encoder.features:
        hidden = layer(hidden)
        blocks += [] if isinstance(layer, torch.nn.MaxPool2d) else [hidden]
    columns = []
    for maps in blocks[1:]:
        columns += [maps.mean((2, 3)), maps.flatten(2).std(2, correction=0)]
    assert output.features.shape == (3, 2 * (32 + 64 + 128 + 256))
    expected = torch.cat(columns, 1)
    if features == "log_blocks":
        expected = torch.from_numpy(np.arcsinh(100 * expected.detach().numpy()))
    torch.testing.assert_close(output.features, expected, atol=1e-4 if features == "log_blocks" else 1e-6, rtol=1e-5)


def test_the_fast_layers_give_the_same_features_and_the_same_code():
    network = Autoencoder.registry["beta_vae"](score="knn", scores={"knn": {}}).eval()
    x = to_tensor(pictures(4))
    with torch.no_grad():
        fast, code = network.describe(x), network.encode(x)
        with_features = network.encode_with_features(x)[0]
        network.encoder.fast = False
        torch.testing.assert_close(fast, network.describe(x), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(one, other) for one, other in zip(code, with_features, strict=True))


def test_mirror_images_have_the_same_features_the_mean_of_all_four():
    network = Autoencoder.registry["cae"](score="knn", scores={"knn": {}}, features="blocks").eval()
    x = to_tensor(pictures(3))
    features = network.describe(x)
    for axes in ((3,), (2,), (2, 3)):
        torch.testing.assert_close(network.describe(x.flip(axes)), features, atol=1e-5, rtol=1e-4)
    network.flips = False
    four = [
        network.describe(x),
        network.describe(x.flip(3)),
        network.describe(x.flip(2)),
        network.describe(x.flip(2, 3)),
    ]
    torch.testing.assert_close(features, sum(four) / 4)
    assert not torch.allclose(four[0], features, atol=1e-4)


def test_an_outside_networks_features_are_statistics_of_its_code():
    maps = torch.rand(2, 3, 4, 4)
    expected = [[*image.mean((1, 2)), *image.flatten(1).std(1, correction=0)] for image in maps]
    torch.testing.assert_close(channel_statistics([maps]), torch.tensor(expected))


@pytest.mark.slow
def test_the_memory_is_bounded_by_a_seeded_choice(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(fitting, "MEMORY", 10)
    network = Autoencoder.registry["cae"](score="knn", scores={"knn": {}}).eval()
    tables = {"train": table(pictures(25)), "val": table(pictures(4, seed=1))}
    memories = []
    for seed in (0, 0, 1):
        fitting.fit_scores(network, tables, 8, seed)
        memories.append(network.scores["knn"].memory)
    assert torch.equal(memories[0], memories[1])
    assert not torch.equal(memories[0], memories[2])
    assert len(memories[0]) == 10
    assert "learn from 10 of the 25 training normals" in caplog.text
