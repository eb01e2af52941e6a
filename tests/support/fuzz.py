"""How many cases each fuzz target has: a share of them in ``make test``, all in ``make fuzz``, of one definition.

Case ``i`` of a seed follows from both alone. ``SOLDER_VAE_FUZZ=1`` asks for all; ``SOLDER_VAE_FUZZ_SEED`` sets the
seed, which pytest prints at its start.
"""

import os

ALL = os.environ.get("SOLDER_VAE_FUZZ") == "1"
SEED = int(os.environ.get("SOLDER_VAE_FUZZ_SEED", "0"))
FIRST = SEED * 1_000_000  # case of this seed

IMAGES = [(FIRST + part * 2500, 2500 if ALL else 500) for part in range(4)]  # first case and number of cases
CHECKPOINTS = [(FIRST + part * 2500, 2500) for part in range(4)] if ALL else [(FIRST, 400)]
EACH = 57  # keys of a training run
OPTIONS = range(0, 1824, EACH) if ALL else [0]  # every key with one value, or with all
