"""The more alarming of two scores: distance to normals, which finds the unknown, and a classifier of the known."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from solder_vae.models.classifier import Classifier
from solder_vae.models.neighbours import Knn
from solder_vae.models.scores import FEATURES, FitData, ModelOutput, Score

log = logging.getLogger(__name__)

KNOTS = 16
"""Of a tail function: evenly spaced in surprise, and few, so that it is nowhere steep."""

UPPER = 0.1
"""Share of the normals whose excess gives the exponential tail, at least :data:`LEAST_UPPER` of them."""

LEAST_UPPER = 10

_LEAST_STEP = 0.01


class Surprise:
    """How surprising a value is among normals: -log of the share of normals that reach it.

    Piecewise linear through the normals' quantiles; above the upper ones an exponential tail of their mean excess, so
    that values beyond the largest normal keep their order, and strictly increasing throughout.

    Attributes:
        knots: ``(M, 3)``: value, surprise there, slope from there on.
    """

    def __init__(self, knots: Tensor) -> None:
        self.knots = knots

    @classmethod
    def of(cls, normals: Tensor) -> Surprise:
        """The surprise among normals' values ``(N,)``, N >= 1."""
        values = normals.double().sort().values
        count = len(values)
        upper = min(max(math.ceil(UPPER * count), LEAST_UPPER), max(count // 2, 1))
        start = float(values[-upper - 1]) if count > upper else float(values[0])
        spread = float(values[-1] - values[0]) or max(abs(float(values[0])), 1.0)
        excess = float((values[-upper:] - start).mean())
        excess = max(excess, _LEAST_STEP * spread)
        highest = -math.log(min((upper + 1) / (count + 1), 1.0))
        places: list[float] = []
        levels: list[float] = []
        for surprise in torch.linspace(0, highest, KNOTS).tolist()[:-1]:
            # The value that a share exp(-surprise) of the normals reaches.
            place = float(torch.quantile(values, 1 - math.exp(-surprise)))
            last = places[-1] if places else -math.inf
            if place - last >= _LEAST_STEP * spread and start - place >= _LEAST_STEP * spread:
                places.append(place)
                levels.append(surprise)
        places.append(start)
        levels.append(highest if places[:-1] else 0.0)
        rises = [(levels[at + 1] - levels[at]) / (places[at + 1] - places[at]) for at in range(len(places) - 1)] + [
            1 / excess
        ]
        return cls(torch.tensor([places, levels, rises]).T.contiguous())

    def __call__(self, values: Tensor) -> Tensor:
        """The surprise ``(B,)`` of values ``(B,)``; below the smallest knot the first slope goes on."""
        knots = self.knots.to(values.device, values.dtype)
        place = ((values[:, None] >= knots[:, 0]).sum(1) - 1).clamp_min(0)
        knot = knots[place]
        return knot[:, 1] + knot[:, 2] * (values - knot[:, 0])


class Combined(Score, name="combined"):
    """The larger of two surprises among validation normals: that of the distance to the nearest normals (knn), and
    that of the classifier of known defects. Where there are no known defects, the first alone.

    The threshold comes from this score's own values of the normals, so it promises what any score's does.

    Args:
        k, whiten: see :class:`~solder_vae.models.neighbours.Knn`.
        strength: see :class:`~solder_vae.models.classifier.Classifier`.
        thumbnails: see both.
    """

    needs = frozenset({FEATURES})
    beside = ("knn", "classifier")
    fitted = True
    exportable = True
    leaves_one_out = True

    def __init__(self, k: int = 1, whiten: bool = True, strength: float | None = None, thumbnails: bool = True) -> None:
        self.surprises: dict[str, Surprise] = {}

    @classmethod
    def parameters_beside(cls, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        taken = inspect.signature({"knn": Knn, "classifier": Classifier}[name]).parameters
        return {key: value for key, value in given.items() if key in taken}

    def fit(self, data: FitData) -> None:
        outputs = [output.scores for output in data.validation]
        names = [name for name in self.beside if name in outputs[0]]
        found = {name: torch.cat([scores[name].cpu() for scores in outputs]) for name in names}
        self.calibrate({name: torch.cat([found[name], data.left_out.get(name, found[name][:0])]) for name in names})

    def leave_one_out(self, data: FitData) -> Tensor:
        return self.of(data.left_out)

    def calibrate(self, normals: Mapping[str, Tensor]) -> None:
        """Take the scores ``(N,)`` of normals by name as what others are compared with."""
        self.surprises = {name: Surprise.of(values) for name, values in normals.items()}
        if "classifier" not in normals:
            log.info("combined: no known defects are given, so it decides by knn alone")

    def state(self) -> dict[str, Tensor]:
        return {name: surprise.knots for name, surprise in self.surprises.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.surprises = {name: Surprise(knots) for name, knots in state.items()}

    def __call__(self, output: ModelOutput) -> Tensor:
        return self.of(output.scores)

    def of(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The score ``(B,)`` of images whose scores ``(B,)`` by name are known."""
        return torch.stack([surprise(scores[name]) for name, surprise in self.surprises.items()]).amax(0)
