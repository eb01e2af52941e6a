"""Is one way better than another? Paired tests over seeds, corrected for their number, and bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy  # type: ignore[import-untyped] # its parts are imported as they are used; statistics take half a second
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

Verdict = Literal["holds", "does not hold", "not shown"]

LEVEL = 0.05
FEWEST_SEEDS = 3  # with fewer seeds the spread cannot be estimated


class PairedTest(NamedTuple):
    """A mean difference with its 95 % t interval and the two-sided p-value; NaN where n < 2 leaves it undefined."""

    n: int
    mean: float
    low: float
    high: float
    p: float


def paired_test(differences: ArrayLike) -> PairedTest:
    """Student's paired t-test.

    Args:
        differences: ``(n,)``, one for each seed.

    Returns:
        If all differences are the same, there is no spread, so the p-value is that of the sign test:
        2 / 2^n, or 1 if all are 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n < 2:
        return PairedTest(n, mean, math.nan, math.nan, math.nan)
    if values.std(ddof=1) <= 1e-12 * math.sqrt(n):
        return PairedTest(n, mean, mean, mean, 1.0 if abs(mean) <= 1e-12 else 2.0 ** (1 - n))
    test = scipy.stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval(1 - LEVEL)
    return PairedTest(n, mean, float(low), float(high), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: the chance of any false claim stays below the level.

    A NaN, a test that could not be made, counts as one of the tests and stays NaN.
    """
    order = sorted(range(len(p_values)), key=lambda index: (math.isnan(p_values[index]), p_values[index]))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        if not math.isnan(p_values[index]):
            largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
            adjusted[index] = largest
    return adjusted


def verdict(test: PairedTest, adjusted: float) -> Verdict:
    """What a test says of the claim that the difference is positive."""
    if test.n < FEWEST_SEEDS or not adjusted < LEVEL:
        return "not shown"
    return "holds" if test.mean > 0 else "does not hold"


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """A claim of several parts holds if every part does, and does not if one does not."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if verdicts and set(verdicts) == {"holds"} else "not shown"


def auroc_difference(first: Floats, second: Floats, labels: NDArray[np.int64]) -> tuple[float, float, float]:
    """How much higher the AUROC of one score is than another's on the same images, with its 95 % interval.

    DeLong, DeLong and Clarke-Pearson (1988): an image that both scores find hard counts as one, not as two. Without
    any scatter (both scores perfect) the interval has no width.

    Args:
        first, second: ``(N,)`` scores of the same images.
        labels: ``(N,)``, 1 = abnormal; both classes must be there.

    Returns:
        The difference, its low and its high.
    """
    abnormal = np.asarray(labels) == 1
    of_abnormal, of_normal = [], []
    for scores in (np.asarray(first, np.float64), np.asarray(second, np.float64)):
        ranks = scipy.stats.rankdata(scores)
        # Share of the other class that each image lies above, an equal score counting half.
        above = (ranks[abnormal] - scipy.stats.rankdata(scores[abnormal])) / (~abnormal).sum()
        below = (ranks[~abnormal] - scipy.stats.rankdata(scores[~abnormal])) / abnormal.sum()
        of_abnormal.append(above)
        of_normal.append(1 - below)
    parts = [of_abnormal[0] - of_abnormal[1], of_normal[0] - of_normal[1]]
    difference = float(parts[0].mean())
    variance = sum(float(part.var(ddof=1)) / len(part) for part in parts if len(part) > 1)
    width = float(scipy.stats.norm.ppf(1 - LEVEL / 2)) * math.sqrt(variance)
    return difference, difference - width, difference + width


class TestImages(NamedTuple):
    """One seed's test: scores ``(N,)``, labels ``(N,)`` (1 = abnormal), the threshold, and what names each image.

    An image that seeds have in common has the same name in all of them. ``mix``: F1 is that of so many abnormal and
    normal images; None for as many as there are.
    """

    scores: Floats
    labels: NDArray[np.int64]
    threshold: float
    names: Sequence[str]
    mix: tuple[int, int] | None = None


def bootstrap_intervals(
    tests: Sequence[TestImages], resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of F1's and AUROC's means over seeds, both seeds and test images resampled.

    Two levels: seeds are drawn with replacement, as in the ordinary bootstrap; images get the random weights of the
    Bayesian bootstrap (Rubin 1981), normals and abnormals apart, since whole draws can leave a small set without a
    class. An image that several seeds share has one weight in all of them, since it is no new evidence. If each seed
    has images of its own, drawing the seed draws them, too, so the intervals are up to sqrt(2) times too wide. Drawing
    from few seeds makes them too narrow, by about sqrt((n - 1) / n). The intervals are percentiles.

    Args:
        tests: one a seed, each with normals and abnormals.
        resamples: number of resamples.
        seed: the same input gives the same bits.

    Returns:
        Low and high of ``f1`` and ``auroc``.
    """
    rng = np.random.default_rng(seed)
    names = {name: index for index, name in enumerate(dict.fromkeys(name for test in tests for name in test.names))}
    weights = rng.exponential(size=(resamples, len(names))).astype(np.float32)
    drawn = rng.multinomial(len(tests), np.full(len(tests), 1 / len(tests)), size=resamples) / len(tests)
    means = {"f1": np.zeros(resamples), "auroc": np.zeros(resamples)}
    for share, test in zip(drawn.T, tests, strict=True):
        of_images = weights[:, [names[name] for name in test.names]]
        values = weighted_metrics(test, of_images)
        for key, value in values.items():
            means[key] += share * value
    return {
        key: (float(np.quantile(value, LEVEL / 2)), float(np.quantile(value, 1 - LEVEL / 2)))
        for key, value in means.items()
    }


def weighted_metrics(test: TestImages, weights: NDArray[np.float32]) -> dict[str, Floats]:
    """F1 and AUROC of a test set under each row of image weights ``(R, N)``, ``(R,)`` each.

    Weights say how the images of a class share their class's part; how many of each class there are stays.
    """
    abnormal = test.labels == 1
    shares = {}
    for positive in (True, False):
        of_class = weights[:, abnormal == positive]
        shares[positive] = of_class / of_class.sum(1, keepdims=True)
    called = test.scores > test.threshold
    positives, negatives = test.mix or (int(abnormal.sum()), int((~abnormal).sum()))
    tp = positives * (shares[True] @ called[abnormal])
    fp = negatives * (shares[False] @ called[~abnormal])
    a, b = test.scores[abnormal][:, None], test.scores[~abnormal][None, :]
    above = ((a > b) + 0.5 * (a == b)).astype(np.float32)
    return {
        "f1": np.asarray(2 * tp / (tp + fp + positives), dtype=np.float64),
        "auroc": np.asarray(((shares[True] @ above) * shares[False]).sum(1), dtype=np.float64),
    }
