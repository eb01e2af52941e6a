"""What a reproduction trains, and what the paper claims of it."""

import pytest
import yaml

from solder_vae.studies.paper import published as paper
from solder_vae.studies.paper.plan import CLAIMS, FURTHER, ROWS, TABLE_2, TABLE_3, of_head, sweeps
from solder_vae.utils.cli import CONF


def test_the_papers_f1_follow_from_its_precision_and_recall():
    """A guard against slips of copying: F1 of the means is near the mean of F1."""
    for cell in (*paper.TABLE_2.values(), *paper.TABLE_3.values()):
        p, r, f1 = (value.mean for value in cell)
        assert f1 == pytest.approx(2 * p * r / (p + r), abs=0.007)
    assert paper.TABLE_3[1] == paper.TABLE_2["vae", "gradcon"]
    assert paper.TABLE_3[3] == paper.TABLE_2["beta_vae", "gradcon"]


@pytest.mark.parametrize("seeds", [1, 3, 50])
def test_every_training_once_and_every_row_served(seeds):
    trainings = [training for sweep in sweeps(seeds) for training in sweep.trainings]
    assert len(trainings) == len(set(trainings)) == 11 + 9 * (seeds - 1)
    assert {row.training(seed) for row in ROWS for seed in range(seeds)} <= set(trainings)
    assert len({training.folder for training in trainings}) == len(trainings)
    assert len(TABLE_2) == 8
    assert len(TABLE_3) == 5
    assert len(set(TABLE_2) & set(TABLE_3)) == 2


def test_further_models_are_runs_of_their_own():
    plain, more = (
        [training for sweep in sweeps(2, further) for training in sweep.trainings] for further in ((), tuple(FURTHER))
    )
    added = more[len(plain) :]
    assert more[: len(plain)] == plain
    assert [(training.model, training.beta, training.seed) for training in added] == [
        ("beta_tcvae", 6, 0), ("beta_tcvae", 6, 1), ("annealed_vae", 30, 0), ("annealed_vae", 30, 1),
    ]  # fmt: skip
    for name, (_, beta) in FURTHER.items():
        assert yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())["beta"] == beta


def test_the_other_head_is_a_run_of_its_own():
    plain, more = (sweeps(2, heads=heads) for heads in ((), ("block", "conv")))
    assert more[:-1] == plain  # block is what the tables train
    assert more[-1].trainings == tuple(of_head("conv", seed) for seed in (0, 1))
    (own, other) = (of_head(head, 0) for head in ("block", "conv"))
    assert own in {training for sweep in plain for training in sweep.trainings}
    assert other.folder == own.folder + "_head_conv"
    assert set(other.choices) - set(own.choices) == {"model.head=conv"}


def test_claims_are_what_the_paper_reports():
    """Each comparison is true of the paper's own means, so none is turned around."""
    printed = {**TABLE_2, **TABLE_3}
    for claim in CLAIMS:
        for better, worse in claim.comparisons:
            assert printed[better].f1.mean > printed[worse].f1.mean
