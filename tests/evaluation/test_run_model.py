"""One way through the network: each validation and test image passes it once after training."""

import numpy as np
import pytest
import torch
from noise import Noise

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation import evaluate
from solder_vae.evaluation.anomaly_map import anomaly_map
from solder_vae.evaluation.run_model import batches_of, run_model
from solder_vae.metrics.threshold import Quantile
from solder_vae.models.vae import BetaVAE
from solder_vae.utils.errors import UserError


@pytest.fixture
def trained():
    """A model with reference gradients, its running statistics moved, and data."""
    torch.manual_seed(0)
    model = BetaVAE(score="gradcon")
    model.train()(torch.rand(8, 3, 16, 16))
    model.reference.update([torch.randn_like(mean) for mean in model.reference.means])
    data = SolderDataModule(Noise(train=20, size=16), batch_size=8)
    data.setup()
    return model.eval(), data


def test_each_image_passes_the_network_once(trained, monkeypatch):
    model, data = trained
    seen = {"encoder": 0, "decoder": 0}
    for name, part in (("encoder", model.encoder), ("decoder", model.decoder)):
        part.register_forward_hook(lambda _, inputs, __, name=name: seen.__setitem__(name, seen[name] + len(inputs[0])))
    images = len(data.tables["val"]) + len(data.tables["test"])
    evaluation = evaluate.evaluate_model(model, data, Quantile(0.9))
    assert seen["encoder"] == images
    # The validation loss is of a drawn latent, the scores of the mean one: two decodings of one encoding.
    assert seen["decoder"] == images + len(data.tables["val"])
    assert evaluation.recons.shape == data.tables["test"].images.shape


def test_what_is_read_from_the_pass_is_what_each_way_alone_gives(trained):
    model, data = trained
    evaluation = evaluate.evaluate_model(model, data, Quantile(0.9))
    for split, scores in (("val", evaluation.val), ("test", evaluation.test)):
        alone = [model.score(to_tensor(image[None])).scores for image in data.tables[split].images]
        for name, values in scores.items():
            np.testing.assert_allclose(values, [float(one[name]) for one in alone], rtol=1e-4, atol=1e-6)
    x = to_tensor(data.tables["val"].images[:])
    maps = anomaly_map(x, model.score(x).recon).numpy()
    assert evaluation.map_scale == pytest.approx(float(np.quantile(maps, 0.99)), rel=1e-5)
    with torch.no_grad():
        terms = [
            (len(x), model.validation_terms(x, model.encode(x), number))
            for number, x in enumerate(batches_of(data.tables["val"].images, 8))
        ]
    for name in ("loss", "recon", "kl"):
        mean = sum(size * float(term[name]) for size, term in terms) / len(x)
        assert evaluation.validation[f"val/{name}"] == pytest.approx(mean, rel=1e-5)


def test_gradients_are_there_where_the_caller_has_switched_them_off(trained):
    model, _ = trained
    with torch.inference_mode():
        (output,) = run_model(model, [torch.rand(2, 3, 16, 16)])
        assert torch.is_inference_mode_enabled()
    assert set(output.scores) == {"recon", "elbo", "gradcon"}


@pytest.mark.parametrize(
    ("wrong", "shape"),
    [
        (lambda output: output.error[:, None], r"\(2, 1\)"),
        (lambda output: output.error[:1], r"\(1,\)"),
        (lambda output: output.recon, r"\(2, 3, 16, 16\)"),
    ],
)
def test_a_score_that_is_not_one_number_for_each_image_is_refused(trained, monkeypatch, wrong, shape):
    model, _ = trained
    monkeypatch.setattr(type(model.scores["recon"]), "__call__", lambda _, output: wrong(output))
    with pytest.raises(UserError, match=rf"^score=recon gives {shape} for 2 images: it must give one number for each"):
        next(run_model(model, [torch.rand(2, 3, 16, 16)], names=["recon"]))
