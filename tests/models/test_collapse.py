"""The warning of a collapsed posterior: early it is the training's length, later beta."""

import logging

import pytest
import torch

from solder_vae.models.vae import BetaVAE


@pytest.fixture
def model():
    return BetaVAE(beta=3)


def validate(model, step, collapsed):
    """One validation whose units respond to the images or not."""
    mu = torch.zeros(8, 10, 2, 2) if collapsed else torch.randn(8, 10, 2, 2)
    model.step = step
    model.posterior.update(mu, torch.zeros_like(mu))
    return model.validation_summary()


def test_beta_is_named_only_after_enough_steps(model, caplog):
    caplog.set_level(logging.WARNING)
    validate(model, 40, True)
    validate(model, 80, True)
    (early,) = caplog.messages
    assert "80 steps" not in early
    assert "40 steps are few: train for 600 or more" in early
    assert "beta" not in early
    validate(model, 600, True)
    validate(model, 840, True)
    assert len(caplog.messages) == 2
    assert "Lower beta (now 3)" in caplog.messages[1]


def test_a_collapse_that_goes_and_comes_again_is_told_again(model, caplog):
    caplog.set_level(logging.WARNING)
    for step, collapsed in ((0, True), (40, True), (80, False), (1300, True), (1340, True)):
        validate(model, step, collapsed)
    assert ["beta" in message for message in caplog.messages] == [False, True]
