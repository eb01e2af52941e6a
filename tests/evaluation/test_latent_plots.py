"""Pictures of the latent space: right colours and places, every unit moved as said, no crash on odd input."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from checkpoints import pictures
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from solder_vae.data.transforms import to_images, to_tensor
from solder_vae.evaluation.latent_plots import embedding_figure, moved, numbers_text, traversal_figure
from solder_vae.evaluation.style import BLUE, VERMILION, save
from solder_vae.evaluation.tsne import Embedding
from solder_vae.models.autoencoder import CAE
from solder_vae.models.vae import VAE
from solder_vae.utils.errors import UserError

POINTS = np.random.default_rng(0).random((9, 2))
LABELS = np.array([0, 1, 0, 0, 1, 1, 0, 0, 0])
EMBEDDING = Embedding(POINTS, 0.5, np.array([0.5]))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_panel_for_each_embedding(count, tmp_path):
    panels = [(f"beta = {i}", EMBEDDING, LABELS, numbers_text(0.1, 0.6, 0.5)) for i in range(count)]
    figure = embedding_figure(panels)
    assert [axes.get_title() for axes in figure.axes] == [f"beta = {i}" for i in range(count)]
    assert all("chance 0.50" in axes.get_xlabel() for axes in figure.axes)
    assert all(axes.get_xlim()[0] <= 0 and axes.get_xlim()[1] >= 1 for axes in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["normal", "abnormal"]
    save(figure, tmp_path / "embedding.png")
    assert (tmp_path / "embedding.png").read_bytes().startswith(b"\x89PNG")
    assert plt.get_fignums() == []


def test_every_point_has_its_classs_colour():
    (dots,) = embedding_figure([("$one$", EMBEDDING, LABELS, "")]).axes[0].collections
    colours = {
        tuple(place): to_hex(colour) for place, colour in zip(dots.get_offsets(), dots.get_facecolors(), strict=True)
    }
    for place, label in zip(POINTS, LABELS, strict=True):
        assert colours[tuple(place)] == (VERMILION if label else BLUE).lower()


def test_numbers_below_a_panel():
    assert numbers_text(0.123, 0.5, 0.449, k=7) == "silhouette 0.12\n7-NN purity 0.50  (chance 0.45)"
    assert numbers_text(float("nan"), 1, 1).startswith("silhouette undefined")


def test_a_unit_is_set_and_a_channel_shifted():
    mean = torch.randn(1, 3, 2, 2)
    values = np.array([-1.0, 0.0, 2.0])
    unit = moved(mean, (1, 0, 1), values)
    assert unit[:, 1, 0, 1].tolist() == values.tolist()
    unit[:, 1, 0, 1] = mean[0, 1, 0, 1]
    assert (unit == mean).all()
    channel = moved(mean, (2,), values)
    torch.testing.assert_close(channel[:, 2] - mean[:, 2], torch.tensor(values).float()[:, None, None].expand(3, 2, 2))
    assert (channel[:, :2] == mean[:, :2]).all()


@pytest.mark.slow
def test_traversal_shows_what_the_decoder_makes(tmp_path):
    model, image = VAE().eval(), pictures(1)[0]
    figure = traversal_figure(model, image, [(4, 1, 0), (7,)], span=(-2, 2), steps=3)
    *grid, bar = figure.axes
    rows = np.array(grid).reshape(2, 5)
    assert bar.get_ylabel()
    assert all((row[0].images[0].get_array() == image).all() for row in rows)
    assert [axes.get_title() for axes in rows[0, 1:4]] == ["-2", "0", "2"]
    assert [axes.get_title() for axes in rows[1, 1:4]] == ["-2", "0", "+2"]
    with torch.no_grad():
        z = model.encoder(to_tensor(image[None]))[0]
        shifted = z.clone()
        shifted[0, 7] += 2
        last, plain = to_images(model.decoder(shifted))[0], to_images(model.decoder(z))[0]
    assert (rows[1, 3].images[0].get_array() == last).all()
    assert (rows[1, 2].images[0].get_array() == plain).all()
    first = np.asarray(rows[1, 1].images[0].get_array()).astype(int)
    assert (rows[1, 4].images[0].get_array() == np.abs(last - first).max(axis=2)).all()
    (frame,) = [patch for patch in rows[0, 0].patches if isinstance(patch, Rectangle)]
    assert frame.get_xy() == (-0.5, 7.5)  # row 1, column 0 of the latent map
    assert "unit (4, 1, 0)" in rows[0, 0].get_ylabel()
    assert "nats" in rows[1, 0].get_ylabel()
    save(figure, tmp_path / "traversal.png")
    assert plt.get_fignums() == []


def test_a_code_without_prior_is_refused():
    with pytest.raises(UserError, match="model=cae"):
        traversal_figure(CAE().eval(), pictures(1)[0], [(0,)])
