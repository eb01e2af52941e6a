"""docs/python.md: its code runs from top to bottom, and its claims about plain Trainers hold."""

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from noise import Noise

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.models import BetaVAE
from solder_vae.models.steps import TrainingModule

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_code_on_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    names = {}
    exec(compile("\n".join(blocks), str(DOCUMENT), "exec"), names)
    assert set(names["results"][0]) == {f"test/{score}/auroc" for score in ("recon", "elbo", "gradcon")}
    for score in ("recon", "elbo"):
        assert names["results"][0][f"test/{score}/auroc"] == pytest.approx(
            names["evaluation"].metrics[score]["auroc"], abs=1e-6
        )
    assert names["reconstructions"].shape == names["pictures"].shape
    assert names["mu"].shape == (4, 10, 4, 4)
    assert (tmp_path / "mine.ckpt").exists()


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {"limit_val_batches": 1}, {"fast_dev_run": True}])
def test_lightnings_own_switches_work(options):
    model = BetaVAE(score="gradcon", alpha=0.03, lr=1e-3)
    before = torch.cat([weight.flatten() for weight in model.parameters()]).clone()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(TrainingModule(model), SolderDataModule(Noise(train=16, size=16), batch_size=8))
    assert not torch.equal(before, torch.cat([weight.flatten() for weight in model.parameters()]))
    trainer.test(TrainingModule(model), SolderDataModule(Noise(train=16, size=16), batch_size=8), verbose=False)
