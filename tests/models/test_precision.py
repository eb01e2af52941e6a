"""Precision by itself: what is chosen where, and that bfloat16 does not move what matters."""

import copy

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_auroc

from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.data.transforms import to_tensor
from solder_vae.models.autoencoder import CAE
from solder_vae.models.layers import forward
from solder_vae.models.precision import resolve_precision
from solder_vae.models.vae import BetaVAE


@pytest.mark.parametrize("chosen", ["32-true", "bf16-mixed", "64-true", 32])
def test_what_the_user_chose_stays(chosen):
    assert resolve_precision(chosen) == chosen


@pytest.mark.parametrize(
    ("tiles", "products", "allowed", "expected"),
    [
        (False, False, True, "32-true"),
        (True, False, True, "bf16-mixed"),
        (False, True, True, "bf16-mixed"),
        (True, True, True, "bf16-mixed"),
        (True, True, False, "32-true"),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_computes_in_it(monkeypatch, tiles, products, allowed, expected):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: allowed)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: products)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_precision("auto") == resolve_precision("auto", "auto") == expected
    assert resolve_precision("auto", "gpu") == "32-true"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_precision("auto", "auto") == "32-true"


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.03])
def test_kernels_in_bfloat16_are_as_true_as_the_layers(alpha, monkeypatch):
    """Cosine of all gradients with those in double precision, the constraint's own among them."""
    torch.manual_seed(0)
    model = BetaVAE(alpha=alpha)
    x = torch.rand(16, 3, 32, 32) * 2 - 1
    noise = model.noise(x, 0, 0)
    model.reference.update([torch.randn_like(mean) for mean in model.reference.means])

    def gradients(model, x, noise, bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            terms, _ = model.loss_terms(x, noise)
            objective = terms["loss"]
            if alpha:
                objective = objective + alpha * model.gradient_constraint(terms["recon"])
        return torch.cat([g.flatten() for g in torch.autograd.grad(objective, list(model.parameters()))]).double()

    exact = gradients(copy.deepcopy(model).double(), x.double(), noise.double(), bfloat16=False)
    by_kernels = torch.cosine_similarity(exact, gradients(model, x, noise, bfloat16=True), dim=0)
    monkeypatch.setattr(forward, "match_conv_block", lambda layer, x: None)
    by_layers = torch.cosine_similarity(exact, gradients(model, x, noise, bfloat16=True), dim=0)
    assert by_kernels > 0.95
    assert 1 - by_kernels < 1.2 * (1 - by_layers)


def aurocs(images, bfloat16, seed):
    """Of recon and GradCon: a CAE of half the width after a few epochs, the constraint in each fourth step."""
    torch.manual_seed(seed)
    model = CAE(lr=2e-3, alpha=0.03, constraint_every=4, width=8)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    order = torch.Generator().manual_seed(seed)
    step = 0
    for _ in range(6):
        for x in DataLoader(to_tensor(images["train"].images), 32, shuffle=True, generator=order):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                terms, _ = model.loss_terms(x, model.noise(x, 0, step))
                objective = terms["loss"]
                if weight := model.alpha_of(step):
                    objective = objective + weight * model.gradient_constraint(terms["recon"])
            optimizer.zero_grad()
            objective.backward()
            model.update_reference()
            optimizer.step()
            step += 1
    scores = model.eval().score(to_tensor(images["test"].images)).scores
    labels = torch.from_numpy(images["test"].labels)
    return [binary_auroc(scores[name], labels).item() for name in ("recon", "gradcon")]


@pytest.mark.slow
def test_bfloat16_does_not_move_auroc_beyond_the_seeds(tmp_path):
    gross = {"severity": (1.0, 1.0), "defects": ["solder_flag", "insufficient_solder", "bridge"]}  # seen after 6 epochs
    images = SyntheticSource(
        image_size=32, train=192, val=8, test_normal=60, test_abnormal=60, cache_dir=tmp_path, render_workers=1, **gross
    ).tables()
    full, mixed = (
        np.array([aurocs(images, bfloat16, seed) for seed in range(5)]) for bfloat16 in (False, True)
    )  # (5, 2)
    difference = abs(full.mean(axis=0) - mixed.mean(axis=0))
    standard_error = np.sqrt((full.var(axis=0, ddof=1) + mixed.var(axis=0, ddof=1)) / 5)
    assert (difference < 3 * standard_error).all(), (full, mixed)
    assert (full.mean(axis=0) > 0.5).all()
