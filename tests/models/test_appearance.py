"""Scores by pixels and sums of scores, against the trivial baseline and plain loops."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from checkpoints import pictures

from solder_vae.data.similarity import nearest_correlations, unit_pictures
from solder_vae.models import appearance
from solder_vae.models.appearance import Blend, Pixels
from solder_vae.models.scores import ModelOutput
from solder_vae.utils.errors import UserError


def output(images, **scores):
    x = torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return ModelOutput(x, None, None, None, None, None, scores)


@pytest.mark.parametrize(("size", "side"), [(64, 24), (24, 24), (56, 24), (25, 24), (16, 16)])
def test_shrinking_is_opencvs_by_area(size, side):
    image = np.random.default_rng(0).random((size, size), np.float32)
    matrix = appearance.shrinking(size, side)
    expected = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose((matrix @ torch.from_numpy(image) @ matrix.T).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("size", [64, 40, 16])
def test_pixels_are_the_baseline(size):
    rng = np.random.default_rng(1)
    train, test = (rng.integers(0, 256, (count, size, size, 3), np.uint8) for count in (30, 12))
    test[0], test[1], train[2] = np.rot90(train[5], 3), train[7][:, ::-1], 90  # turned, mirrored, constant
    test[2], test[3] = 30, np.clip(train[9] // 2 + 20, 0, 255)  # constant, darker
    score = Pixels()
    score.fit(SimpleNamespace(normals=[output(train[:20]), output(train[20:])]))
    again = Pixels()
    again.load_state(score.state())
    expected = 1 - nearest_correlations(unit_pictures(test), unit_pictures(train))
    np.testing.assert_allclose(again(output(test)).numpy(), expected, atol=2e-5)
    assert again(output(test))[:4].abs().max() < 1e-3


def test_a_normal_left_out_is_compared_with_the_others():
    images = np.stack([*pictures(80, size=24)])
    score = Pixels()
    score.fit(SimpleNamespace(normals=[output(images)]))
    found = score.among_themselves()
    for place in (0, 63, 64, 79):
        others = Pixels()
        others.fit(SimpleNamespace(normals=[output(np.delete(images, place, axis=0))]))
        assert torch.allclose(found[place], others(output(images[place : place + 1]))[0], atol=1e-6)


def test_blend_adds_deviations():
    rng = np.random.default_rng(2)
    normals = {
        name: torch.from_numpy(rng.gamma(2, scale, 500).astype(np.float32))
        for name, scale in (("recon", 9), ("pixels", 0.1))
    }
    blend = Blend()
    blend.fit(
        SimpleNamespace(
            validation=[
                SimpleNamespace(scores={n: v[:200] for n, v in normals.items()}),
                SimpleNamespace(scores={n: v[200:] for n, v in normals.items()}),
            ]
        )
    )
    again = Blend()
    again.load_state(blend.state())
    given = {"recon": torch.tensor([1.0, 30.0]), "pixels": torch.tensor([0.1, 0.5])}
    expected = 0.0
    for name, values in normals.items():
        middle = np.sort(values.numpy())[249]  # the lower of two
        expected += (given[name].numpy() - middle) / (np.quantile(values.numpy().astype(float), 0.84) - middle)
    np.testing.assert_allclose(again(output(np.zeros((2, 8, 8, 3), np.uint8), **given)).numpy(), expected, rtol=1e-4)


def test_normals_of_one_value_have_no_deviation():
    blend = Blend()
    blend.fit(SimpleNamespace(validation=[SimpleNamespace(scores={"recon": torch.ones(3), "pixels": torch.ones(3)})]))
    assert blend.deviation.tolist() == [1, 1]


@pytest.mark.parametrize(
    "of", [["recon"], ["recon", "recon"], "recon", 3, ["recon", "combined"], ["recon", "blend"], ["recon", "nobody"]]
)
def test_what_cannot_be_added_is_refused(of):
    with pytest.raises(UserError, match=r"score\.of|is unknown"):
        Blend(of=of)
