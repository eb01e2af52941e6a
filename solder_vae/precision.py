"""``trainer.precision=auto``: bfloat16 where training gains from it, single precision where it does not.

On CPUs the tile unit (AMX) makes bfloat16 fast. Without it bfloat16 is a detour: AVX-512's dot product is no faster
than single precision and :mod:`solder_vae.kernels` does not serve it. So a CPU without the unit is not even tried; one
with it is measured. Scores are always computed in single precision: test and predict with ``32-true``.
"""

from __future__ import annotations

import logging
import time
from functools import cache
from typing import Any

import torch

from solder_vae.networks import LATENT_CHANNELS, Decoder

log = logging.getLogger(__name__)

FULL, MIXED = "32-true", "bf16-mixed"
WORTHWHILE = 0.8  # of the time in single precision: far enough from 1 that the noise of one measurement hardly decides


def resolve_precision(precision: Any, accelerator: str = "cpu") -> Any:
    """What to give to ``Trainer(precision=...)`` for training.

    Args:
        precision: the config's value; everything but "auto" is returned as it is.
        accelerator: Lightning's name of where the training runs. Only CPUs are measured, elsewhere "auto" is 32-true.
    """
    if precision != "auto":
        return precision
    faster = accelerator in ("auto", "cpu") and not torch.cuda.is_available() and bfloat16_is_faster()
    log.debug("precision: %s", MIXED if faster else FULL)
    return MIXED if faster else FULL


@cache
def bfloat16_is_faster() -> bool:
    """Whether a decoder's training step takes clearly less time in bfloat16 on this CPU; at most 0.3 s, once."""
    if not torch.cpu._is_amx_tile_supported():
        return False
    with torch.random.fork_rng(devices=[]):
        return step_time(bfloat16=True) < WORTHWHILE * step_time(bfloat16=False)


def step_time(bfloat16: bool, batch: int = 16, repetitions: int = 3) -> float:
    """Seconds of a forward and backward pass of a decoder, the quickest of a few."""
    decoder = Decoder()
    decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    z = torch.randn(batch, LATENT_CHANNELS, 8, 8)
    times = []
    for _ in range(repetitions + 1):  # the first one warms up
        start = time.perf_counter()
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            decoder(z).float().square().mean().backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])
