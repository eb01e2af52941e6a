"""Near duplicates: pictures of the same thing that differ in size, format, brightness or a little noise.

A perceptual hash (pHash: signs of the lowest frequencies of a discrete cosine transform; Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010) proposes pairs, and the correlation of the pictures decides:
joints look so much alike that a hash alone would call different ones equal. Six lines with OpenCV's transform serve as
well as a library here, since the pictures are decoded and made grey and small already.

Mirrored or turned copies are not looked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

from solder_vae.data.transforms import Image

BITS = 14
"""Pairs whose hashes differ in at most so many of their 63 bits are compared: 99 % and more of the altered copies
(smaller, JPEG, tint, moved by a pixel) whose correlation suffices (docs/audit.md)."""

CORRELATION = 0.98
"""From here on two pictures are near duplicates."""

_COMPARED_AT_ONCE = 1 << 22  # pairs of hashes, and ...
_GATHERED_AT_ONCE = 1 << 10  # ... pairs of pictures: both bound the memory to some ten megabytes

Pairs = NDArray[np.int64]


def perceptual_hash(grey: Image) -> np.uint64:
    """63 bits: which of the lowest 8 x 8 frequencies but the constant are above their median.

    Args:
        grey: ``(S, S)`` uint8.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].reshape(-1)[1:]
    bits = np.packbits(np.append(low > np.median(low), False))
    return np.uint64(int.from_bytes(bits.tobytes(), "big"))


def near_pairs(pictures: Sequence[Image]) -> Pairs:
    """All pairs of near duplicates.

    Hashes are compared in blocks of a matrix: quadratic, but at some hundred million pairs a second.

    Args:
        pictures: N grey pictures ``(S, S)`` uint8, of one size, brightness and contrast.

    Returns:
        ``(P, 2)`` row numbers, the first lower than the second, ascending.
    """
    hashes = np.array([perceptual_hash(picture) for picture in pictures], np.uint64)
    rows = max(1, _COMPARED_AT_ONCE // max(len(hashes), 1))
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(hashes), rows):
        differing = np.bitwise_count(hashes[start : start + rows, None] ^ hashes[None, start:])
        candidates = np.argwhere(np.triu(differing <= BITS, 1)) + start
        found.append(candidates[_correlations(pictures, candidates) >= CORRELATION])
    return np.concatenate(found)


def _correlations(pictures: Sequence[Image], pairs: Pairs) -> NDArray[np.float64]:
    """The correlation coefficient of each pair's pictures; 0 for a constant one."""
    if not len(pairs):
        return np.empty(0)
    used, place = np.unique(pairs, return_inverse=True)
    flat = np.array([pictures[row].reshape(-1) for row in used], np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    place = place.reshape(pairs.shape)
    chunks = [place[start : start + _GATHERED_AT_ONCE] for start in range(0, len(place), _GATHERED_AT_ONCE)]
    return np.concatenate([np.einsum("nd,nd->n", flat[chunk[:, 0]], flat[chunk[:, 1]]) for chunk in chunks])


def groups_of(pairs: Pairs, count: int) -> list[list[int]]:
    """The sets of rows that pairs connect, through any number of steps; each ascending, the largest first.

    Args:
        pairs: ``(P, 2)``.
        count: number of rows.
    """
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    _, labels = connected_components(links, directed=False)
    members: dict[int, list[int]] = {}
    for row in np.unique(pairs).tolist():
        members.setdefault(int(labels[row]), []).append(row)
    return sorted(members.values(), key=lambda group: (-len(group), group))
