"""Few validation normals: scores that allow it set their threshold by training normals left out one by one."""

from types import SimpleNamespace

import numpy as np
import torch

from solder_vae.evaluation.evaluate import with_left_out
from solder_vae.models.neighbours import Knn
from solder_vae.models.scores import Recon


def test_the_training_normals_come_to_few_validation_normals_each_without_itself():
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    knn = Knn()
    knn.remember(features)
    model = SimpleNamespace(scores={"knn": knn, "recon": Recon()})
    few = {"knn": np.arange(12.0), "recon": np.arange(12.0)}
    got = with_left_out(model, few)
    scaled = (features - features.mean(0)) / features.std(0, correction=0)
    own = 1e9 * torch.eye(30)
    expected = ((scaled[:, None] - scaled[None]).norm(dim=2) + own).min(1).values
    np.testing.assert_allclose(got["knn"], [*range(12), *expected], rtol=1e-5)
    np.testing.assert_array_equal(got["recon"], few["recon"])
    enough = {"knn": np.arange(20.0), "recon": np.arange(20.0)}
    assert all((with_left_out(model, enough)[name] == values).all() for name, values in enough.items())
