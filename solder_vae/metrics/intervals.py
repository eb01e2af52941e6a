"""Intervals of rates and rankings, and the checks that numbers are finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv  # type: ignore[import-untyped]

from solder_vae.utils.errors import UserError

Floats = NDArray[np.float64]

_RESAMPLES_AT_ONCE = 100
_COUNTS_AT_ONCE = 1_000_000  # distinct scores times resamples in one block: bounds the memory to about 50 MB


def finite_number(value: Any) -> float:
    """``value`` as a float.

    Raises:
        ValueError: it is not a number, or NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def clopper_pearson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided binomial interval (Clopper and Pearson, 1934) of a rate seen ``count`` times in ``n``.

    Returns:
        ``(low, high)`` in [0, 1]; ``(0, 1)`` for ``n = 0``, when nothing is known.
    """
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, tail))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - tail))
    return low, high


def finite(scores: ArrayLike, of: str) -> Floats:
    """The scores as a flat float64 array.

    Args:
        scores: ``(N,)``.
        of: whose scores they are, for the message.

    Raises:
        UserError: some are NaN or infinite.
    """
    array = np.asarray(scores, dtype=np.float64).reshape(-1)
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise UserError(
            f"{bad.size} of {array.size} anomaly scores of the {of} are not finite (first: row {bad[0]}): "
            "the model has diverged (train again with a smaller model.lr), or the score gives no number for them."
        )
    return array


def bootstrap_intervals(
    values: Floats, truth: NDArray[np.int64], resamples: int, seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % percentile intervals of AUROC and average precision, normals and abnormals resampled apart.

    Resampling with replacement draws multinomial counts over the distinct scores, so a whole block of
    resamples is one array and no score is sorted twice.
    """
    _, level = np.unique(values, return_inverse=True)
    levels = int(level.max()) + 1
    positive, negative = (np.bincount(level[truth == label], minlength=levels) for label in (1, 0))
    generator = np.random.default_rng(seed)
    parts = []
    at_once = min(_RESAMPLES_AT_ONCE, max(1, _COUNTS_AT_ONCE // levels))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        parts.append(rank_statistics(_resample(positive, size, generator), _resample(negative, size, generator)))
    (auroc_low, ap_low), (auroc_high, ap_high) = np.quantile(np.hstack(parts), [0.025, 0.975], axis=1).tolist()
    return (auroc_low, auroc_high), (ap_low, ap_high)


def rank_statistics(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """AUROC and average precision from counts of abnormals and normals at each distinct score.

    AUROC is the share of (abnormal, normal) pairs in the right order, ties counting half (Mann-Whitney).
    Average precision is the mean over abnormals of the precision when all from their score upwards is called.

    Args:
        positive, negative: ``(..., levels)`` counts, scores ascending; each row holds at least one of both.

    Returns:
        AUROC and average precision, ``(...)`` each.
    """
    n_positive, n_negative = positive.sum(-1), negative.sum(-1)
    below = np.cumsum(negative, -1) - negative
    auroc = (positive * (below + 0.5 * negative)).sum(-1) / (n_positive * n_negative)
    called_positive = np.cumsum(positive[..., ::-1], -1)[..., ::-1]
    called_negative = np.cumsum(negative[..., ::-1], -1)[..., ::-1]
    precision = called_positive / np.maximum(called_positive + called_negative, 1)
    return auroc, (positive * precision).sum(-1) / n_positive


def _resample(histogram: NDArray[np.int64], size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """``(size, levels)`` counts of resamples, with replacement, of the scores counted in ``histogram``."""
    counts = np.zeros((size, len(histogram)), dtype=np.int64)
    present = histogram > 0
    n = int(histogram.sum())
    counts[:, present] = generator.multinomial(n, histogram[present] / n, size=size)
    return counts
