"""Precision by itself: what is chosen where, and that bfloat16 does not move what matters."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_auroc

from solder_vae import precision
from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.data.transforms import to_tensor
from solder_vae.models import CAE
from solder_vae.precision import bfloat16_is_faster, resolve_precision, step_time


@pytest.fixture(autouse=True)
def _forgetful():
    bfloat16_is_faster.cache_clear()
    yield
    bfloat16_is_faster.cache_clear()


@pytest.mark.parametrize("chosen", ["32-true", "bf16-mixed", "64-true", 32])
def test_what_the_user_chose_stays(chosen):
    assert resolve_precision(chosen) == chosen


@pytest.mark.parametrize(
    ("tiles", "bfloat16", "expected"),
    [(False, 0.1, "32-true"), (True, 0.5, "bf16-mixed"), (True, 0.9, "32-true"), (True, 2.0, "32-true")],
)
def test_auto_is_bfloat16_only_where_it_pays(monkeypatch, tiles, bfloat16, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "step_time", lambda bfloat16: times[bfloat16])
    times = {True: bfloat16, False: 1.0}
    assert resolve_precision("auto") == expected
    assert resolve_precision("auto", "gpu") == "32-true"


def test_measuring_leaves_the_random_state_alone(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    bfloat16_is_faster()
    assert torch.equal(torch.get_rng_state(), before)
    assert step_time(bfloat16=True, batch=2, repetitions=1) > 0


def auroc(images, bfloat16, seed):
    """Of a CAE trained for a few epochs."""
    torch.manual_seed(seed)
    model = CAE(lr=2e-3)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(6):
        for x in DataLoader(to_tensor(images["train"].images), 32, shuffle=True, generator=order):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                terms, _ = model.losses(x, model.noise(x, 0, 0))
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
    scores = model.eval().score(to_tensor(images["test"].images)).scores["recon"]
    return binary_auroc(scores, torch.from_numpy(images["test"].labels)).item()


@pytest.mark.slow
def test_bfloat16_does_not_move_auroc_beyond_the_seeds(tmp_path):
    images = SyntheticSource(
        image_size=32, train=192, val=8, test_normal=60, test_abnormal=60, cache_dir=tmp_path, render_workers=1
    ).tables()
    full, mixed = (np.array([auroc(images, bfloat16, seed) for seed in range(5)]) for bfloat16 in (False, True))
    difference = abs(full.mean() - mixed.mean())
    standard_error = np.sqrt((full.var(ddof=1) + mixed.var(ddof=1)) / 5)
    assert difference < 3 * standard_error, (full, mixed)
    assert full.mean() > 0.5
