"""The Mahalanobis score: distance from the training normals' mean by their covariance, in a model's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from solder_vae.models.neighbours import OF_A_TYPE, TYPE_MARK, Standard, of_types
from solder_vae.models.scores import FEATURES, FitData, ModelOutput, Score


class Mahalanobis(Score, name="mahalanobis"):
    """Mahalanobis distance from the training normals (Rippel et al. 2020, "Modeling the distribution of normal data in
    pre-trained deep features for anomaly detection"), 0 or greater; the covariance is shrunk (Ledoit and Wolf 2004).

    An image of a type with :data:`OF_A_TYPE` normals or more is at its distance from this type's mean, by the
    covariance of normals around their types' means (Lee et al. 2018, "A simple unified framework for detecting
    out-of-distribution samples"): a type alone has far fewer normals than a covariance has entries.
    """

    needs = frozenset({FEATURES})
    fitted = True
    exportable = True
    has_parts = True
    leaves_one_out = True

    def __init__(self) -> None:
        self.standard = Standard(torch.zeros(0), torch.ones(0))
        self.whitening = torch.empty(0, 0)  # (D, D), W with W W^T the inverse covariance of standardised features
        self.means: dict[str, Tensor] = {}  # standardised, (D,), of each type that has normals enough ...
        self.within = torch.empty(0, 0)  # ... and W around these

    def fit(self, data: FitData) -> None:
        self.remember(data.normals.features[:, : data.neighbour_features], data.normals.types)

    def remember(self, normals: Tensor, types: Sequence[str] | None = None, least: int = OF_A_TYPE) -> None:
        """Take mean and covariance of normals' features ``(N, D)``; within each type that has ``least`` of them."""
        self.standard = Standard.of(normals)
        points = self.standard(normals)
        self.whitening = whitening(points)
        places = of_types(types, least)
        self.means = {kind: points[at].mean(0) for kind, at in places.items()}
        around = [points[at] - self.means[kind] for kind, at in places.items()]
        self.within = whitening(torch.cat(around)) if around else torch.empty(0, 0)

    @property
    def within_types(self) -> bool:
        return bool(self.means)

    def state(self) -> dict[str, Tensor]:
        means = {f"{TYPE_MARK}{kind}": mean for kind, mean in self.means.items()}
        return {
            **self.standard.state(),
            "whitening": self.whitening,
            **means,
            **({"within": self.within} if means else {}),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.standard, self.whitening = Standard(state["mean"], state["deviation"]), state["whitening"]
        self.means = {name.removeprefix(TYPE_MARK): each for name, each in state.items() if name.startswith(TYPE_MARK)}
        self.within = state.get("within", torch.empty(0, 0))

    def __call__(self, output: ModelOutput) -> Tensor:
        assert output.features is not None
        return self.distances(output.features, output.types)

    def distances(self, features: Tensor, types: Sequence[str] | None = None) -> Tensor:
        """The score ``(B,)`` of features ``(B, D)`` of images of B types; None where none is known."""
        points = self.standard(features)
        distances = (points @ self.whitening.to(features.device)).square().sum(1).sqrt()
        for rows, mean, within in self._of_types(types, features.device):
            distances[rows] = ((points[rows] - mean) @ within).square().sum(1).sqrt()
        return distances

    def parts(self, output: ModelOutput) -> tuple[Tensor, Tensor]:
        assert output.features is not None
        device = output.features.device
        points = self.standard(output.features)
        origins, over_all = torch.zeros_like(points), self.whitening.to(device)
        away = points @ over_all @ over_all.T
        for rows, mean, within in self._of_types(output.types, device):
            origins[rows] = mean
            away[rows] = (points[rows] - mean) @ within @ within.T
        return self.standard.undo(origins), away / self.standard.on(device)[1]

    def _of_types(self, types: Sequence[str] | None, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The images of each type that has a mean of its own: their places, the mean, and W around it."""
        places = of_types(types, 1) if self.means else {}
        within = self.within.to(device)
        return [(places[kind].to(device), self.means[kind].to(device), within) for kind in places if kind in self.means]

    def leave_one_out(self, data: FitData) -> Tensor:
        return left_out_distances(data.normals.features[:, : data.neighbour_features], data.normals.types)


FOLDS = 5
"""In which normals are left out where a fit without each single one would take long."""


def left_out_distances(normals: Tensor, types: Sequence[str] | None = None, count: int | None = None) -> Tensor:
    """The Mahalanobis distance of each of the first ``count`` normals from the others but for its own fold.

    Args:
        normals: features ``(N, D)``.
        types: their component types.
        count: how many of them; all by default. The rest is in every fit.

    Returns:
        ``(count,)``.
    """
    count = len(normals) if count is None else count
    folds = torch.arange(len(normals)) % min(FOLDS, len(normals))
    folds[count:] = -1
    # A type is judged within itself as it is with all of its normals.
    enough = of_types(types, OF_A_TYPE)
    types = [kind if kind in enough else "" for kind in types or [""] * len(normals)]
    distances = torch.empty(count)
    for fold in range(min(FOLDS, len(normals))):
        kept, out = (folds != fold).nonzero()[:, 0], (folds[:count] == fold).nonzero()[:, 0]
        score = Mahalanobis()
        score.remember(normals[kept], [types[row] for row in kept.tolist()], least=2)
        distances[out] = score.distances(normals[out], [types[row] for row in out.tolist()])
    return distances


def whitening(points: Tensor) -> Tensor:
    """W ``(D, D)`` with W W^T the inverse of the shrunk covariance of points ``(N, D)`` around 0."""
    from sklearn.covariance import ledoit_wolf  # type: ignore[import-untyped] # slow to import, and only needed here

    covariance, _ = ledoit_wolf(points.double().numpy(), assume_centered=True)
    variances, axes = torch.linalg.eigh(torch.from_numpy(covariance))
    # Few normals leave directions without variance even after shrinking: all of a batch alike, or a single one.
    least = 1e-6 * variances.max().clamp_min(1e-12)
    white: Tensor = (axes / variances.maximum(least).sqrt()).float()
    return white
