"""Near duplicates: pictures of the same thing that differ in size, format, brightness or a little noise.

A perceptual hash (pHash: signs of the lowest frequencies of a discrete cosine transform; Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010) proposes pairs, and the correlation of the pictures decides:
joints look so much alike that a hash alone would call different ones equal. Six lines with OpenCV's transform serve as
well as a library here, since the pictures are decoded and made grey and small already.

Mirrored or rotated copies are not searched for.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.image_files import Image
from solder_vae.data.table import Images
from solder_vae.utils.threads import tracked

BITS = 14
"""Pairs whose hashes differ in at most this many of their 63 bits are compared. They are at least 99 % of the altered
copies (smaller, JPEG, tint, moved by a pixel) whose correlation suffices (docs/use/audit.md)."""

CORRELATION = 0.98
"""Pictures with this correlation or more are near duplicates."""

_AT_ONCE = 1 << 22
"""Pixels of pairs of pictures that are compared at once: bounds the memory to less than a hundred megabytes."""

Rows = NDArray[np.int64]


def perceptual_hash(grey: Image) -> np.uint64:
    """63 bits: which of the lowest 8 x 8 frequencies but the constant are above their median.

    Args:
        grey: ``(S, S)`` uint8.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].reshape(-1)[1:]
    bits = np.packbits(np.append(low > np.median(low), False))
    return np.uint64(int.from_bytes(bits.tobytes(), "big"))


def near_groups(hashes: NDArray[np.uint64], pictures: Images, rows: Rows) -> list[list[int]]:
    """The sets of pictures that near duplicates connect, through any number of steps.

    Every hash is compared with every other: quadratic, at a billion pairs a second. Pictures that are connected
    already are not compared any more, so that many pictures of one thing cost no more than others. Shows a progress
    bar on a terminal.

    Args:
        hashes: ``(N,)``, :func:`perceptual_hash` of each picture to compare.
        pictures: ``(M, S, S, C)`` uint8, of one brightness and contrast; the first channel is looked at.
        rows: ``(N,)``, which of them to compare.

    Returns:
        Places among the N, ascending, of each set of two and more, the largest set first.
    """
    group = np.arange(len(hashes))
    at_once = max(1, _AT_ONCE // pictures.shape[1] ** 2)
    waiting = [np.empty((0, 2), np.int64)]
    count = 0
    for row in tracked(range(len(hashes)), "Comparing images", len(hashes)):
        near = np.flatnonzero(np.bitwise_count(hashes[row] ^ hashes[row + 1 :]) <= BITS) + row + 1
        near = near[group[near] != group[row]]
        waiting.append(np.column_stack([np.full_like(near, row), near]))
        count += len(near)
        if count >= at_once or row == len(hashes) - 1:
            pairs = np.concatenate(waiting)
            for start in range(0, len(pairs), at_once):
                _connect(group, pairs[start : start + at_once], pictures, rows)
            waiting, count = [np.empty((0, 2), np.int64)], 0
    order = np.argsort(group, kind="stable")
    sets = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return sorted((part.tolist() for part in sets if len(part) > 1), key=lambda part: (-len(part), part))


def _connect(group: Rows, pairs: Rows, pictures: Images, rows: Rows) -> None:
    """Give the same number to the pictures of each pair that are near duplicates, and to all connected with them."""
    pairs = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
    for first, second in pairs[_correlations(pictures, rows[pairs]) >= CORRELATION].tolist():
        group[group == group[second]] = group[first]


def _correlations(pictures: Images, pairs: Rows) -> NDArray[np.float64]:
    """The correlation coefficient of each pair's pictures; 0 for a constant one."""
    if not len(pairs):
        return np.empty(0)
    used, place = np.unique(pairs, return_inverse=True)
    flat = pictures[used][..., 0].reshape(len(used), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    first, second = place.reshape(-1, 2).T
    correlations: NDArray[np.float64] = np.einsum("nd,nd->n", flat[first], flat[second])
    return correlations
