"""The score that compares an image's features with those of single training normals: nearest neighbours.

What the reconstruction error overlooks (a missing part is smooth, so it is easy to reconstruct) is often plain in the
features of the very same network. The features are the model's: :meth:`solder_vae.models.detector.Detector.describe`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from solder_vae.models.options import KNN, check_options
from solder_vae.models.scores import FEATURES, FitData, ModelOutput, Score
from solder_vae.utils.errors import UserError

LEAST_DEVIATION = 1e-2
"""Of a feature, as a share of the features' median deviation: a channel that is dead on the normals would otherwise
decide alone."""

OF_A_TYPE = 20
"""So many training normals of a component type are enough to compare an image of that type with these alone."""

RIDGE, FOR_FEW = 3.0, 10.0
"""What is added to each variance before features are whitened, in mean variances: the first, and D / N times the second
for N normals with D features, since few normals' covariance says little about other normals."""

TYPE_MARK = "type:"  # marks a type in the state

_AT_ONCE = 1024


class Near(NamedTuple):
    """What a joint is shown beside: a small picture ``(s, s, 3)`` uint8 of something known, and what it is."""

    caption: str
    picture: Tensor


NO_PICTURES = torch.empty(0, dtype=torch.uint8)
"""Of a memory that keeps none."""


class Standard:
    """Each feature by its mean and deviation over the normals.

    Attributes:
        mean, deviation: ``(D,)``.
    """

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        self.mean, self.deviation = mean, deviation

    @classmethod
    def of(cls, normals: Tensor) -> Standard:
        """The standard of normals' features ``(N, D)``."""
        deviation = normals.std(0, correction=0)
        deviation = deviation.maximum(LEAST_DEVIATION * deviation.median())
        # Where most features do not vary at all (a single normal), nothing tells their unit.
        return cls(normals.mean(0), torch.where(deviation > 0, deviation, 1.0))

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation on a device."""
        return self.mean.to(device), self.deviation.to(device)

    def __call__(self, features: Tensor) -> Tensor:
        """Features ``(B, D)`` in the normals' deviations from their mean; further ones are left out."""
        mean, deviation = self.on(features.device)
        return (features[:, : len(mean)] - mean) / deviation

    def undo(self, standardised: Tensor) -> Tensor:
        """The features ``(B, D)`` that standardised ones were made of, to rounding."""
        mean, deviation = self.on(standardised.device)
        return standardised * deviation + mean

    def weigh(self, away: Tensor) -> Tensor:
        """What differences of standardised features ``(B, D)`` weigh: times those of the features themselves, they
        add up to the squared distance."""
        return away / self.on(away.device)[1]

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "deviation": self.deviation}


class Whitened(Standard):
    """Features standardised by the normals, then whitened in part: what many features say alike counts for less.

    Along each axis of the standardised normals' covariance, of variance v, features are scaled by
    sqrt((1 + r) m / (v + r m)), m being the mean variance and r the ridge, :data:`RIDGE` + :data:`FOR_FEW` D / N.

    Attributes:
        whitening: ``(D, D)``, its columns at right angles.
    """

    def __init__(self, mean: Tensor, deviation: Tensor, whitening: Tensor) -> None:
        super().__init__(mean, deviation)
        self.whitening = whitening

    @classmethod
    def of(cls, normals: Tensor) -> Whitened:
        standard = Standard.of(normals)
        points = standard(normals).double()
        count, features = points.shape
        variances, axes = torch.linalg.eigh(points.T @ points / count)
        least = variances.mean().clamp_min(1e-12) * (RIDGE + FOR_FEW * features / count)
        scales = ((variances.mean() + least) / (variances.clamp_min(0) + least)).sqrt()
        return cls(standard.mean, standard.deviation, (axes * scales).float())

    def __call__(self, features: Tensor) -> Tensor:
        return super().__call__(features) @ self.whitening.to(features.device)

    def undo(self, standardised: Tensor) -> Tensor:
        whitening = self.whitening.to(standardised.device)
        return super().undo(standardised @ (whitening / whitening.square().sum(0)).T)

    def weigh(self, away: Tensor) -> Tensor:
        return super().weigh(away @ self.whitening.to(away.device).T)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "whitening": self.whitening}


class Knn(Score, name="knn"):
    """Distance to the nearest training normals, each feature standardised by the normals (Bergman et al. 2020, "Deep
    nearest neighbor anomaly detection"): the mean of the ``k`` least Euclidean distances, 0 or greater.

    Args:
        k: number of neighbours.
        whiten: whether the features are whitened in part, see :class:`Whitened`; otherwise only standardised.
        thumbnails: whether small pictures of the normals are kept, to be shown beside what is near them.
    """

    needs = frozenset({FEATURES})
    beside = ("mahalanobis",)
    fitted = True
    exportable = True
    has_parts = True
    leaves_one_out = True

    def __init__(self, k: int = 1, whiten: bool = True, thumbnails: bool = True) -> None:
        check_options(KNN, {"k": k, "whiten": whiten, "thumbnails": thumbnails}, "score")
        self.k, self.whiten, self.thumbnails = k, whiten, thumbnails
        self.pictures = NO_PICTURES  # (N, s, s, 3), or none
        self.standard = Standard(torch.zeros(0), torch.ones(0))
        self.memory = torch.empty(0, 0)  # (N, D), standardised
        self.kinds: dict[str, Tensor] = {}  # places in the memory of each type that has normals enough

    def fit(self, data: FitData) -> None:
        features = data.normals.features[:, : data.neighbour_features]
        self.remember(features, data.normals.types, data.normals.thumbnails if self.thumbnails else None)

    def check_normals(self, count: int) -> None:
        if count < self.k:
            raise UserError(f"score.k={self.k} does not fit {count} training normals: use {count} or less.")

    def remember(
        self,
        normals: Tensor,
        types: Sequence[str] | None = None,
        pictures: Tensor | None = None,
        standard: Standard | None = None,
    ) -> None:
        """Take the features ``(N, D)`` of normals as the memory; with their component types, where these are known,
        and their small pictures ``(N, s, s, 3)``, if any.

        An image of a type with :data:`OF_A_TYPE` normals or more is then compared with these alone. Features are
        standardised by these normals, unless a standard is given.
        """
        self.check_normals(len(normals))
        self.standard = standard or (Whitened if self.whiten else Standard).of(normals)
        self.memory = self.standard(normals)
        self.pictures = NO_PICTURES if pictures is None else pictures
        self.kinds = of_types(types, max(OF_A_TYPE, self.k + 1))

    @property
    def within_types(self) -> bool:
        return bool(self.kinds)

    def state(self) -> dict[str, Tensor]:
        places = {f"{TYPE_MARK}{kind}": of_kind for kind, of_kind in self.kinds.items()}
        pictures = {"thumbnails": self.pictures} if len(self.pictures) else {}
        return {**self.standard.state(), "memory": self.memory, **places, **pictures}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        by = state["mean"], state["deviation"]
        # Memories of earlier versions are not whitened.
        self.standard = Whitened(*by, state["whitening"]) if "whitening" in state else Standard(*by)
        self.memory = state["memory"]
        self.pictures = state.get("thumbnails", NO_PICTURES)
        self.kinds = {name.removeprefix(TYPE_MARK): each for name, each in state.items() if name.startswith(TYPE_MARK)}

    def neighbours(self, features: Tensor, types: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
        """Distances to the nearest normals and their places in the memory, each ``(B, k)``, the nearest first.

        Args:
            features: ``(B, D)``.
            types: the B component types, within which normals are sought; None where none is known.
        """
        points, memory = self.standard(features), self.memory.to(features.device)
        if not self.kinds or types is None:
            return nearest(points, memory, self.k)
        distances = points.new_empty(len(points), self.k)
        places = torch.empty(len(points), self.k, dtype=torch.long, device=points.device)
        # Each image is compared with the normals of its type, or with all where these are too few.
        among = [kind if kind in self.kinds else "" for kind in types]
        for kind in sorted(set(among)):
            rows = torch.tensor([row for row, each in enumerate(among) if each == kind], device=points.device)
            of_kind = self.kinds[kind].to(points.device) if kind else torch.arange(len(memory), device=points.device)
            distances[rows], found = nearest(points[rows], memory[of_kind], self.k)
            places[rows] = of_kind[found]
        return distances, places

    def near(self, features: Tensor, types: Sequence[str] | None = None) -> list[Near]:
        """The normal that is nearest to each of ``(B, D)`` features (of its type), where there are pictures of them."""
        places = self.neighbours(features, types)[1][:, 0].tolist()
        return [Near("nearest good joint", self.pictures[place]) for place in places]

    def __call__(self, output: ModelOutput) -> Tensor:
        assert output.features is not None
        return self.neighbours(output.features, output.types)[0].mean(1)

    def parts(self, output: ModelOutput) -> tuple[Tensor, Tensor]:
        """Of the distance from the nearest normal alone, whatever ``k`` is."""
        assert output.features is not None
        device = output.features.device
        normal = self.memory.to(device)[self.neighbours(output.features, output.types)[1][:, 0]]
        return self.standard.undo(normal), self.standard.weigh(self.standard(output.features) - normal)

    def leave_one_out(self, data: FitData) -> Tensor:
        if len(self.memory) <= self.k:
            raise UserError(
                f"score.k={self.k} does not fit {len(self.memory)} different training normals, each compared with the "
                "others: use a smaller one, or add good joints."
            )
        return self.among_themselves()

    def among_themselves(self) -> Tensor:
        """The score ``(N,)`` of each normal in the memory, compared with all the others (of its type).

        Mean, deviation and whitening are those of all.
        """
        scores = self._among(self.memory)
        for places in self.kinds.values():
            scores[places] = self._among(self.memory[places])
        return scores

    def _among(self, memory: Tensor) -> Tensor:
        parts = [memory[start : start + _AT_ONCE] for start in range(0, len(memory), _AT_ONCE)]
        return torch.cat([nearest(part, memory, self.k + 1)[0][:, 1:].mean(1) for part in parts])


def nearest(points: Tensor, memory: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Euclidean distances to the ``k`` nearest rows of a memory, and their places.

    A matrix product finds them. It loses digits where two points are close, so the distances themselves are computed
    from differences.

    Args:
        points: ``(B, D)``.
        memory: ``(N, D)``, N >= k.
        k: how many.

    Returns:
        Distances ``(B, k)`` in ascending order, and places ``(B, k)`` int64.
    """
    # Squared distances but for the point's own norm, which does not change which rows are nearest.
    by_product = memory.square().sum(1) - 2 * points @ memory.T
    places = by_product.topk(k, dim=1, largest=False).indices
    distances = (points[:, None] - memory[places]).square().sum(2).sqrt()
    distances, order = distances.sort(dim=1)
    return distances, places.gather(1, order)


def of_types(types: Sequence[str] | None, least: int) -> dict[str, Tensor]:
    """The places of the images of each type that has ``least`` or more; "" is no type."""
    counts = Counter(filter(None, types or ()))
    return {
        kind: torch.tensor([place for place, each in enumerate(types or ()) if each == kind])
        for kind, count in sorted(counts.items())
        if count >= least
    }
