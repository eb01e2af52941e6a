"""Shared by all tests: a small thread pool, no network, no writing outside the test's own folder."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import hypothesis
import pytest
import torch

# How long an example takes says more of what else the machine does than of the code.
hypothesis.settings.register_profile("new_examples", deadline=None)
# CI tries the same examples each time, so that a change is not refused for what another one did.
hypothesis.settings.register_profile("same_examples", deadline=None, derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "new_examples"))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
