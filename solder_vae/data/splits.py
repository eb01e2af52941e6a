"""Who trains, who validates, who tests.

Two images belong together if their decoded pixels are equal or if they share a group (a board, say), and on demand if
they look alike. Images that belong together, through any number of steps, form a *part*, which stays in one split. The
assignment depends on the images' content, the groups and the seed, but not on the order of the files or their names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from hashlib import blake2b

import numpy as np
import scipy  # type: ignore[import-untyped] # its parts are imported as they are used
from numpy.typing import NDArray

from solder_vae.utils.errors import UserError

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")
KNOWN = "known"
"""Of defects that may be learnt from, see :mod:`solder_vae.data.known`."""

PAPER_FRACTIONS = (2513.0, 567.0, 84.0)
"""The paper's normal images in training, validation and test."""


def connect(*keys: Sequence[Hashable]) -> list[list[int]]:
    """Connected parts of the images, where two images are linked if they agree in any of the keys.

    Args:
        keys: sequences of N values each, one value for an image; ``None`` links nothing.

    Returns:
        The parts, each a list of ascending indices; together they hold 0 .. N-1 once.
    """
    parts = scipy.cluster.hierarchy.DisjointSet(range(len(keys[0])))
    for values in keys:
        first: dict[Hashable, int] = {}
        for index, value in enumerate(values):
            if value is not None:
                parts.merge(first.setdefault(value, index), index)
    return [sorted(part) for part in parts.subsets()]


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Divide ``total`` into whole numbers in proportion to the weights (largest remainder)."""
    shares = total * np.asarray(weights, dtype=np.float64) / sum(weights)
    counts = np.floor(shares).astype(int)
    most_cut = np.argsort(counts - shares, kind="stable")
    counts[most_cut[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def apportion_evenly(total: int, available: Sequence[int], seed: int) -> list[int]:
    """Divide ``total`` as evenly as what is available allows; the seed says who gets one more where it does not go up.

    Raises:
        ValueError: less is available.
    """
    if total > sum(available):
        raise ValueError(f"{total} of {sum(available)}")
    order = np.random.default_rng(seed).permutation(len(available)).tolist()
    counts = [0] * len(available)
    while total:
        for place in order:
            if total and counts[place] < available[place]:
                counts[place] += 1
                total -= 1
    return counts


def assign(
    digests: Sequence[str],
    abnormal: NDArray[np.bool_],
    groups: Sequence[str | None],
    fractions: Sequence[float] = PAPER_FRACTIONS,
    seed: int = 0,
    alike: Sequence[Hashable] | None = None,
) -> list[str]:
    """Give every image its split.

    A part that holds an abnormal image is for testing, as a whole. The other parts, in an order shuffled by
    the seed, go each to the split that is furthest below its share of the normal images. Training and
    validation get a part each at least; testing too, if there are three and its fraction is not 0.

    With ``alike``, parts that are too large for the smallest split come before the others, the largest first: chains of
    look-alikes can be so long that the others could not make up for them later.

    Args:
        digests: N digests of the decoded pixels.
        abnormal: ``(N,)`` bool.
        groups: N groups, ``None`` for an image of no group.
        fractions: proportions of the *normal* images in training, validation and test.
        seed: any integer.
        alike: N groups of look-alikes, ``None`` for an image of no group.

    Returns:
        N times "train", "val" or "test".

    Raises:
        UserError: fewer than two parts are free of abnormal images: one to train, one to validate.
    """
    splits = [TEST] * len(digests)
    free: list[list[int]] = []
    pinned = 0  # normal images that share a part with an abnormal one
    for part in connect(digests, groups, *([] if alike is None else [alike])):
        if abnormal[part].any():
            pinned += int((~abnormal[part]).sum())
        else:
            free.append(part)
    if len(free) < 2:
        grouped = alike is not None or any(group is not None for group in groups)
        raise UserError(_too_few(len(free), pinned, grouped))

    free.sort(key=lambda part: _shuffle_key(seed, {digests[index] for index in part}))
    missing = _targets(sum(map(len, free)), pinned, fractions)
    if alike is not None:
        smallest = min(count for count in missing.values() if count > 0)
        free.sort(key=lambda part: min(0, smallest - len(part)))
    test_too = fractions[2] > 0 and pinned == 0 and len(free) > 2
    empty = [TRAIN, VAL, TEST] if test_too else [TRAIN, VAL]
    for position, part in enumerate(free):
        choice = empty if len(empty) >= len(free) - position else list(SPLITS)
        split = max(choice, key=lambda name: missing[name])
        missing[split] -= len(part)
        empty = [name for name in empty if name != split]
        for index in part:
            splits[index] = split
    return splits


def _targets(free: int, pinned: int, fractions: Sequence[float]) -> dict[str, int]:
    """How many of the free normal images each split should get, with ``pinned`` more in testing already."""
    train, val, test = apportion(free + pinned, fractions)
    if pinned > test:  # the surplus is then taken from training and validation in proportion
        train, val, test = (*apportion(free, fractions[:2]), pinned)
    return {TRAIN: train, VAL: val, TEST: test - pinned}


def _shuffle_key(seed: int, content: Iterable[str]) -> bytes:
    return blake2b("\n".join([str(seed), *sorted(content)]).encode(), digest_size=16).digest()


def _too_few(free: int, pinned: int, grouped: bool) -> str:
    what = "groups (or single images) without a defect" if grouped else "different normal images"
    why = f" {pinned} normal images are tied to defective ones and serve for testing." if pinned else ""
    return (
        f"Only {free} {what} to train and to validate on, which takes 2 at least (copies count once)."
        f"{why} Add normal images, or give the splits yourself in folders or a manifest (see docs/use/data.md)."
    )


def leaks(digests: Sequence[str], splits: Sequence[str]) -> dict[int, int]:
    """Copies across given splits: which image to leave out, and the copy that is kept.

    The test keeps its images, and validation keeps those that the test lacks: what is measured must not be trained on.

    Returns:
        The index of every training or validation image whose pixels a later split holds too, and the index
        of that copy.
    """
    kept: dict[str, int] = {}
    left_out: dict[int, int] = {}
    for split in reversed(SPLITS):
        for index in (index for index, name in enumerate(splits) if name == split):
            first = kept.setdefault(digests[index], index)
            if splits[first] != split:
                left_out[index] = first
    return left_out


def straddling(groups: Sequence[str | None], splits: Sequence[str]) -> dict[str, list[str]]:
    """The groups that are in more than one of the given splits, and in which."""
    seen: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        if group is not None:
            seen[group].add(split)
    return {group: [name for name in SPLITS if name in found] for group, found in seen.items() if len(found) > 1}


def three_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """``data.fractions`` as three numbers.

    Raises:
        UserError: they are none, or only the test's may be 0.
    """
    try:
        train, val, test = (float(fraction) for fraction in fractions)
    except (TypeError, ValueError):
        train = val = test = np.nan
    if not (train > 0 and val > 0 and test >= 0 and np.isfinite(train + val + test)):
        raise UserError(
            f"data.fractions={fractions} is wrong: give three numbers for training, validation and test, "
            "such as [80,15,5]; only the last may be 0."
        )
    return train, val, test
