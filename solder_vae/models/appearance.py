"""How unlike the training normals a picture is, pixel by pixel; and scores added to one another.

Where joints are aligned, as in rendered pictures, a comparison of pixels sees what has changed, and reconstruction
error sees what is not learnt: together they find more than each alone. On photographs compare features instead
(:mod:`solder_vae.models.neighbours`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import cast

import torch
from torch import Tensor

from solder_vae.models.combined import Combined
from solder_vae.models.options import BLEND, check_options
from solder_vae.models.scores import FitData, ModelOutput, Score, score_class
from solder_vae.utils.errors import UserError

SIDE = 24
"""Pixels a side that are compared; smaller pictures are compared as they are."""

LUMA = (0.299, 0.587, 0.114)

_CONSTANT = 0.5 / 127.5
"""Standard deviation of a picture in [-1, 1] below which it is constant: the rest is the rounding to 8 bits."""

_AT_ONCE = 64

PAIR = ("recon", "pixels")


@cache
def shrinking(size: int, side: int) -> Tensor:
    """The matrix ``(side, size)`` of means over equal parts of a line of pixels; a pixel on an edge is shared out."""
    length = size / side
    starts = torch.arange(side, dtype=torch.float64)[:, None] * length
    pixels = torch.arange(size, dtype=torch.float64)[None]
    covered = torch.minimum(starts + length, pixels + 1) - torch.maximum(starts, pixels)
    return (covered.clamp_min(0) / length).float()


@cache
def orientations(side: int) -> Tensor:
    """Places ``(8, side * side + 1)`` of pixels where a picture is turned by quarters and mirrored; the last stays."""
    square = torch.arange(side * side).reshape(side, side)
    turned = [torch.rot90(each, quarter) for each in (square, square.flip(1)) for quarter in range(4)]
    return torch.stack([torch.cat([each.reshape(-1), torch.tensor([side * side])]) for each in turned])


def unit_pictures(images: Tensor) -> Tensor:
    """Small grey pictures as vectors whose product is their correlation: those of :mod:`solder_vae.data.similarity`,
    by operations that an exported graph has.

    Each has mean 0 and norm 1; a constant one has a direction of its own instead.

    Args:
        images: ``(B, 3, S, S)`` in [-1, 1].

    Returns:
        ``(B, s * s + 1)``, s the smaller of S and :data:`SIDE`.
    """
    size = images.shape[-1]
    side = min(SIDE, size)
    shrink = shrinking(size, side).to(images.device)
    grey = (images * torch.tensor(LUMA, device=images.device)[:, None, None]).sum(1)
    small = (shrink @ grey @ shrink.T).flatten(1)
    small = small - small.mean(1, keepdim=True)
    norms = small.square().sum(1, keepdim=True).sqrt()
    constant = norms < _CONSTANT * side
    units = torch.where(constant, 0.0, small / norms.clamp_min(1e-12))
    return torch.cat([units, constant.to(units.dtype)], 1)


class Pixels(Score, name="pixels"):
    """One minus the correlation with the most similar training normal, in the best of eight orientations, 0 to 2.

    The trivial baseline "nearest pixels" as a score, which a threshold and :class:`Blend` can use.
    """

    fitted = True
    exportable = True
    leaves_one_out = True

    def __init__(self) -> None:
        self.memory = torch.empty(0, 0)  # (N, D)

    def fit(self, data: FitData) -> None:
        self.memory = torch.cat([unit_pictures(output.images).cpu() for output in data.normals])

    def state(self) -> dict[str, Tensor]:
        return {"memory": self.memory}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.memory = state["memory"]

    def __call__(self, output: ModelOutput) -> Tensor:
        units = unit_pictures(output.images)
        return 1 - self.correlations(units).amax((1, 2))

    def correlations(self, units: Tensor) -> Tensor:
        """Of pictures ``(B, D)`` in each orientation with each normal: ``(B, 8, N)``."""
        places = orientations(round((units.shape[1] - 1) ** 0.5)).to(units.device)
        return units[:, places] @ self.memory.to(units.device).T

    def leave_one_out(self, data: FitData) -> Tensor:
        return self.among_themselves()

    def among_themselves(self) -> Tensor:
        """The score ``(N,)`` of each normal in the memory, compared with all the others."""
        found = []
        for start in range(0, len(self.memory), _AT_ONCE):
            part = self.correlations(self.memory[start : start + _AT_ONCE])
            rows = torch.arange(len(part))
            part[rows, :, start + rows] = -1
            found.append(1 - part.amax((1, 2)))
        return torch.cat(found)


class Blend(Score, name="blend"):
    """The sum of other scores, each in deviations of the validation normals from their median.

    A deviation is the distance from the median to the 0.84 quantile, which of a normal distribution is one.

    Args:
        of: names of the scores.

    Raises:
        UserError: there are not two or more of them, or one reads others itself.
    """

    fitted = True
    exportable = True

    def __init__(self, of: Sequence[str] = PAIR) -> None:
        self.beside = self.beside_of({"of": of})
        self.median = torch.zeros(len(self.beside))
        self.deviation = torch.ones(len(self.beside))

    @classmethod
    def beside_of(cls, given: Mapping[str, object]) -> tuple[str, ...]:
        of = given.get("of", PAIR)
        check_options(BLEND, {"of": of}, "score")
        names = tuple(map(str, cast(Sequence[object], of)))
        for name in names:
            if issubclass(score_class(name), Combined | Blend):
                raise UserError(f"score.of={list(names)} does not fit: {name} is made of other scores itself.")
        return names

    def fit(self, data: FitData) -> None:
        outputs = [output.scores for output in data.validation]
        normals = torch.stack([torch.cat([scores[name].cpu() for scores in outputs]) for name in self.beside]).double()
        self.median = normals.median(1).values.float()
        deviation = (normals.quantile(0.84, 1) - normals.median(1).values).float()
        # Where all normals have one value (a single one), nothing tells its unit.
        self.deviation = torch.where(deviation > 0, deviation, 1.0)

    def state(self) -> dict[str, Tensor]:
        return {"median": self.median, "deviation": self.deviation}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.median, self.deviation = state["median"], state["deviation"]

    def __call__(self, output: ModelOutput) -> Tensor:
        values = torch.stack([output.scores[name] for name in self.beside], 1)
        return ((values - self.median.to(values.device)) / self.deviation.to(values.device)).sum(1)
