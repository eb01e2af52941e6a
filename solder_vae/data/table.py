"""The one form in which every data source hands over its images."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from solder_vae.utils.labels import NORMAL


class Images(Protocol):
    """Images ``(N, S, S, 3)`` uint8 that need not all be in memory: an array, or an object indexed like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NDArray[np.uint8]]: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Decoded, cropped and resized images of one split with what is known of each of them.

    Attributes:
        images: ``(N, S, S, 3)`` uint8, RGB: an array, or an object indexed like one.
        paths: N names that identify the images: a file's path, or ``synthetic/<split>/<index>``.
        defects: N defect types; :data:`NORMAL` for a good joint.
        native_size: ``(N, 2)`` int, height and width in pixels before cropping and resizing.
        masks: ``(N, S, S)`` bool, the defect's pixels, where the source knows them.
        factors: generative factors by name, each ``(N,)``, where the source knows them.
        types: N component types, "" for an image of no known type; None where the source knows none.
        digests: N digests of all pixels, equal for copies; None of a source that makes no copies.
    """

    images: Images
    paths: list[str]
    defects: list[str]
    native_size: NDArray[np.int64]
    masks: NDArray[np.bool_] | None = None
    factors: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    types: list[str] | None = None
    digests: list[str] | None = None

    def __post_init__(self) -> None:
        counts = {len(self.images), len(self.paths), len(self.defects), len(self.native_size)}
        counts |= {len(column) for column in (self.types, self.digests) if column is not None}
        if len(counts) != 1:
            raise ValueError(f"columns of different length: {sorted(counts)}")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def different(self) -> list[int]:
        """The rows of the images that are no copies of earlier ones, in ascending order."""
        return list(range(len(self))) if self.digests is None else once(self.digests)[0]

    @property
    def labels(self) -> NDArray[np.int64]:
        """``(N,)`` int64: 1 = abnormal (the positive class), 0 = normal."""
        return np.array([defect != NORMAL for defect in self.defects], dtype=np.int64)


def once(digests: Sequence[str]) -> tuple[list[int], list[int]]:
    """The rows of N digests that occur for the first time, in ascending order, and of each of the N its place there."""
    first: dict[str, int] = {}
    for row, digest in enumerate(digests):
        first.setdefault(digest, row)
    places = {digest: place for place, digest in enumerate(first)}
    return list(first.values()), [places[digest] for digest in digests]


def describe(tables: dict[str, ImageTable]) -> str:
    """How many images of which class are in which split, one line for each split, longer ones broken at 80 columns."""
    lines = []
    for split, table in tables.items():
        counts = ", ".join(f"{count} {defect}" for defect, count in Counter(table.defects).items())
        line = f"{split:5} {len(table):6} images" + (f": {counts}" if counts else "")
        lines.append(textwrap.fill(line, 80, subsequent_indent=" " * 13, break_long_words=False))
    return "\n".join(lines)


def drawn_rows(count: int, most: int, seed: int = 0) -> list[int]:
    """The rows of a table of ``count``; of more than ``most`` a choice of so many, drawn by seed; ascending."""
    if count <= most:
        return list(range(count))
    return sorted(np.random.default_rng(seed).choice(count, most, replace=False).tolist())
