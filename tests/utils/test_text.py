"""Durations in words; names are tested where they are printed."""

import pytest

from solder_vae.utils.text import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (570, "10 min"), (5340, "89 min"), (7500, "2 h 5 min")],
)
def test_a_duration_is_as_exact_as_one_needs_it(seconds, words):
    assert duration(seconds) == words
