"""The objective against torch.distributions and explicit sums, in float64."""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as distributions_kl

from solder_vae.models.losses import kl_divergence, kl_term, latent_noise, reparameterize, squared_error
from solder_vae.models.scores import Elbo, GradConScore, ModelOutput
from solder_vae.models.vae import BetaVAE


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 10_000), st.floats(0.1, 4))
def test_kl_is_that_of_torch_distributions(seed, spread):
    mu, logvar = spread * draw(seed, 3, 10, 2, 2), spread * draw(seed + 1, 3, 10, 2, 2)
    posterior = Normal(mu, (0.5 * logvar).exp())
    expected = distributions_kl(posterior, Normal(torch.zeros_like(mu), torch.ones_like(mu)))
    torch.testing.assert_close(kl_divergence(mu, logvar), expected, rtol=1e-9, atol=1e-9)


def test_kl_is_zero_at_the_prior_and_positive_elsewhere():
    zeros = torch.zeros(4, 10)
    assert kl_divergence(zeros, zeros).abs().max() == 0
    assert (kl_divergence(zeros + 0.3, zeros) > 0).all()
    assert (kl_divergence(zeros, zeros - 0.3) > 0).all()


@functools.cache
def a_model():
    return BetaVAE().double()


@given(st.integers(0, 10_000), st.floats(0, 10))
def test_elbo_score_is_the_elbo_of_torch_distributions(seed, beta):
    """The true sum: a Gaussian likelihood of variance 1/2 without its constant, and the joint divergence."""
    x, recon = draw(seed, 2, 3, 8, 8), draw(seed + 1, 2, 3, 8, 8)
    mu, logvar = draw(seed + 2, 2, 10, 1, 1), draw(seed + 3, 2, 10, 1, 1)
    pixels = x[0].numel()
    half = torch.tensor(0.5, dtype=torch.float64).sqrt()
    likelihood = Independent(Normal(recon, half), 3)
    log_likelihood = likelihood.log_prob(x) - likelihood.log_prob(recon)  # the constant taken off
    prior = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 3)
    kl = distributions_kl(Independent(Normal(mu, (0.5 * logvar).exp()), 3), prior)
    expected = -(log_likelihood - beta * kl) / pixels
    model = a_model()
    model.beta = beta
    output = ModelOutput(
        x, (mu, logvar), recon, squared_error(x, recon), model.divergence((mu, logvar), pixels), None, {}
    )
    ours = Elbo()(output)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_mean_reduction_weighs_the_divergence_as_the_published_code():
    kl = draw(0, 2, 10, 8, 8).abs()
    torch.testing.assert_close(kl_term(kl, 12288, "mean"), kl_term(kl, 12288, "sum") * 12288 / 640)


def test_squared_error_against_a_loop():
    x, recon = draw(0, 3, 3, 4, 5), draw(1, 3, 3, 4, 5)
    expected = [
        sum((a - b) ** 2 for a, b in zip(image.flatten().tolist(), other.flatten().tolist(), strict=True))
        / image.numel()
        for image, other in zip(x, recon, strict=True)
    ]
    assert squared_error(x, recon).tolist() == pytest.approx(expected)


def test_gradcon_score():
    none, error, grad_loss = torch.empty(0), torch.tensor([0.1, 0.2]), torch.tensor([-1.0, 0.5])
    score = GradConScore(gamma=0.12)(ModelOutput(none, (none,), none, error, None, grad_loss, {}))
    assert score.tolist() == pytest.approx([0.1 - 0.12, 0.2 + 0.06])


def test_reparameterize_has_the_posteriors_moments():
    mu, logvar = torch.tensor([1.5, -2.0]), torch.tensor([0.2, -1.0])
    z = reparameterize(mu, logvar, torch.randn(200_000, 2))
    torch.testing.assert_close(z.mean(0), mu, rtol=0, atol=0.02)
    torch.testing.assert_close(z.var(0).log(), logvar, rtol=0, atol=0.02)


def test_latent_noise_is_the_same_at_every_call():
    first, second = (latent_noise(torch.Size((10, 8, 8)), 3, torch.device("cpu")) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (3, 1, 10, 8, 8)
    assert not torch.equal(first[0], first[1])
