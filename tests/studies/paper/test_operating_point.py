"""The paper's operating point: what its figures imply, by counting and scipy; our scores there, by sklearn."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import f1_score, precision_score, recall_score

from solder_vae.models.autoencoder import CAE
from solder_vae.models.vae import VAE
from solder_vae.studies.paper import published as paper
from solder_vae.studies.paper.operating_point import (
    MEAN_RULE,
    PAPER_RATE,
    POINTS,
    PRINTED,
    ability,
    at_point,
    f1_at,
    implied,
    origin,
    threshold,
)
from solder_vae.studies.paper.plan import CLAIMS, of_beta, table_2_row
from solder_vae.studies.paper.point_tables import order_sentences, spread_with_count
from solder_vae.studies.paper.sampled import drawn_scores

ROW = of_beta(3.0, "gradcon")


def test_the_implied_rates_are_those_that_counting_gives():
    """By hand: 66 R (1 / P - 1) / 84, rounded to three digits."""
    rates = {key: round(implied(cell).false_call_rate, 3) for key, cell in paper.TABLE_2.items()}
    assert list(rates.values()) == [0.168, 0.253, 0.179, 0.147, 0.207, 0.180, 0.130, 0.156]
    table_3 = [round(implied(cell).false_call_rate, 3) for cell in paper.TABLE_3.values()]
    assert table_3 == [0.260, 0.235, 0.207, 0.156, 0.230]


@pytest.mark.parametrize("cell", PRINTED.values(), ids=map(str, PRINTED))
def test_implied_auroc_is_that_of_two_normals_that_give_recall_and_rate(cell):
    rate, auroc = implied(cell)
    shift = stats.norm.isf(rate) - stats.norm.isf(cell.recall.mean)
    assert stats.norm(shift).sf(stats.norm.isf(rate)) == pytest.approx(cell.recall.mean)
    draws = np.random.default_rng(0).standard_normal((2, 400_000))
    assert auroc == pytest.approx((draws[0] + shift > draws[1]).mean(), abs=0.003)
    assert f1_at(cell, rate) == pytest.approx(cell.f1.mean, abs=0.007)


def test_what_is_ability_in_the_paper_and_what_operating_point():
    """ELBO's lower F1 comes with a lower rate; beta 3 against 10 is ability."""
    kinds = {comparison: origin(comparison) for claim in CLAIMS for comparison in claim.comparisons}
    elbo = [c for c in kinds if (c.better.score, c.worse.score) == ("recon", "elbo")]
    assert [kinds[c] for c in elbo] == ["operating point"] * 2
    assert all(ability(c) < 0 for c in elbo)
    assert kinds[next(c for c in kinds if c.worse == of_beta(10.0, "gradcon"))] == "ability"
    assert kinds[next(c for c in kinds if c.worse == table_2_row("vae", "recon"))] == "too close to tell"
    (sentence,) = (text for text in order_sentences() if text.startswith("ELBO is worse"))
    assert "Operating point: VAE Recon > VAE ELBO (F1 +0.002, implied AUROC -0.004)" in sentence


@pytest.mark.parametrize("point", POINTS)
def test_numbers_at_a_point_are_sklearns_on_a_test_set_of_the_papers_mix(point):
    rng = np.random.default_rng(1)
    normals = rng.normal(size=200)
    labels = np.repeat([1, 0], (paper.ABNORMAL, paper.NORMAL))
    scores = rng.normal(1.2 * labels)
    found = at_point(scores, labels, normals, ROW, point)
    limit = {
        PAPER_RATE: np.quantile(normals, 1 - implied(PRINTED[ROW]).false_call_rate),
        MEAN_RULE: normals.mean(),
    }[point]
    assert threshold(normals, ROW, point) == limit
    called = scores > limit
    assert found["recall"] == pytest.approx(recall_score(labels, called))
    assert found["precision"] == pytest.approx(precision_score(labels, called))
    assert found["f1"] == found["f1_here"] == pytest.approx(f1_score(labels, called))
    assert found["false_call_rate"] == called[labels == 0].mean()
    doubled = np.concatenate([scores, scores[labels == 0]]), np.concatenate([labels, labels[labels == 0]])
    more = at_point(*doubled, normals, ROW, point)
    assert more["f1"] == found["f1"] > more["f1_here"]
    assert set(at_point(scores[labels == 0], labels[labels == 0], normals, ROW, point).values()) == {None}


def test_sampled_tests_are_the_draws_whose_mean_is_the_score():
    images = np.random.default_rng(2).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    model = VAE(latent="sample", draws=4, noise="per_image").eval()
    drawn = drawn_scores(model, images, ["recon", "elbo"])
    assert drawn["recon"].shape == (4, 3)
    assert len(np.unique(drawn["recon"])) == 12
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(drawn["elbo"].mean(0), model.score(x).scores["elbo"], rtol=1e-5)
    fixed = drawn_scores(CAE(latent="sample", draws=4, noise="per_image").eval(), images, ["recon"])["recon"]
    assert fixed.shape == (4, 3)
    assert (fixed == fixed[0]).all()
    assert spread_with_count([0.5, 0.7]) == "0.600 ± 0.141 (2)"
