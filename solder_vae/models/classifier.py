"""Scores that learn from known defects: a linear classifier on the features, and which type a defect looks like.

It learns known types as types; a kind of defect that is not among them needs a score of normals beside it, see
:mod:`solder_vae.models.combined`. scikit-learn fits; what is fitted is a few tensors.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solder_vae.models.neighbours import NO_PICTURES, Near, Standard, nearest
from solder_vae.models.options import CLASSIFIER, check_options
from solder_vae.models.scores import FEATURES, FitData, ModelOutput, Score

log = logging.getLogger(__name__)

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of which cross-validation chooses: the inverse of the penalty's weight, scikit-learn's C."""

FIXED_STRENGTH = 1e-2
"""Where there are too few defects to choose."""

LEAST_TO_CHOOSE, FOLDS = 10, 5

NORMALS = 5_000
"""Normals that a fit sees at most, evenly spaced: a linear classifier of a few defects learns nothing from more."""

LEAST_OF_TYPE = 5
"""Known defects that a type needs to be told from another."""


LIKENESS_COLUMNS = ("type", "type_probability")
"""Of tables: what a joint looks like, if it is defective."""


class Likeness(NamedTuple):
    """What a joint looks like, if it is defective.

    Attributes:
        type: the most likely type of defect ...
        probability: ... and its probability among the types that are known, in [0, 1].
    """

    type: str
    probability: float


class Classifier(Score, name="classifier"):
    """The logit of a linear classifier, normals against known defects; 0 where it deems both equally likely.

    Logistic regression, both classes weighing the same, on features standardised by the normals. Its strength is the
    one of :data:`STRENGTHS` with the highest AUROC in a cross-validation on known defects and training normals.

    Args:
        strength: scikit-learn's C; None to choose it.
        thumbnails: whether small pictures of the known defects are kept, to be shown beside what is near them.
    """

    needs = frozenset({FEATURES})
    needs_known = True
    fitted = True
    exportable = True
    leaves_one_out = True

    def __init__(self, strength: float | None = None, thumbnails: bool = True) -> None:
        check_options(CLASSIFIER, {"strength": strength, "thumbnails": thumbnails}, "score")
        self.strength, self.thumbnails = strength, thumbnails
        self.chosen: float | None = None  # strength of the fit
        self.pictures = NO_PICTURES  # (K, s, s, 3), or none
        self.standard = Standard(torch.zeros(0), torch.ones(0))
        self.weights, self.bias = torch.empty(0), torch.zeros(())  # (D,), ()
        self.known, self.known_types = torch.empty(0, 0), torch.empty(0, dtype=torch.int64)  # (K, D), (K,)
        self.type_weights, self.type_bias = torch.empty(0, 0), torch.empty(0)  # (T, D), (T,)
        self.defects: list[str] = []  # of the known defects; the first T are told apart

    @property
    def usable(self) -> bool:
        return len(self.weights) > 0

    def fit(self, data: FitData) -> None:
        if data.known is None or not len(data.known.defects):
            return
        pictures = data.known.thumbnails if self.thumbnails else None
        self.pictures = NO_PICTURES if pictures is None else pictures
        normals = data.normals.features
        self.standard = Standard.of(normals)
        self.learn(self.standard(normals), self.standard(data.known.features), data.known.defects)

    def learn(self, normals: Tensor, known: Tensor, defects: Sequence[str]) -> None:
        """Learn from standardised features ``(N, D)`` and ``(K, D)``, and the type of each known defect."""
        self.weights, self.bias, self.chosen, how = told_from_normals(normals, known, self.strength)
        log.info("classifier: %d known defects, %d normals, C=%g (%s)", len(known), len(normals), self.chosen, how)
        self.known = known.float()
        self._learn_types(defects)

    def _learn_types(self, defects: Sequence[str]) -> None:
        counts = Counter(defects)
        told = sorted(kind for kind, count in counts.items() if count >= LEAST_OF_TYPE)
        told = told if len(told) > 1 else []
        self.defects = told + sorted(counts.keys() - set(told))
        place = {kind: number for number, kind in enumerate(self.defects)}
        self.known_types = torch.tensor([place[kind] for kind in defects])
        width = self.known.shape[1]
        self.type_weights, self.type_bias = torch.zeros(len(told), width), torch.zeros(len(told))
        if not told:
            return
        rows = self.known_types < len(told)
        labels = self.known_types[rows].numpy()
        fit, strength, how = fit_logistic(self.known[rows].double().numpy(), labels, None, "neg_log_loss")
        log.info("types told apart: %s, C=%g (%s)", ", ".join(told), strength, how)
        # Of two classes scikit-learn gives the second one's weights alone.
        at = slice(None) if len(told) > 2 else slice(1, None)
        self.type_weights[at] = torch.from_numpy(fit.coef_).float()
        self.type_bias[at] = torch.from_numpy(fit.intercept_).float()

    def leave_one_out(self, data: FitData) -> Tensor:
        """By folds: a fit without each single normal would take long."""
        normals = self.standard(data.normals.features)
        folds = torch.arange(len(normals)) % FOLDS
        logits = torch.empty(len(normals))
        for fold in range(FOLDS):
            weights, bias, _, _ = told_from_normals(normals[folds != fold], self.known, self.chosen)
            logits[folds == fold] = normals[folds == fold] @ weights + bias
        return logits

    def state(self) -> dict[str, Tensor]:
        if not self.usable:
            return {}
        names = torch.tensor(list(json.dumps(self.defects).encode()), dtype=torch.uint8)
        parts = ("weights", "bias", "known", "known_types", "type_weights", "type_bias")
        pictures = {"thumbnails": self.pictures} if len(self.pictures) else {}
        return {**self.standard.state(), **{part: getattr(self, part) for part in parts}, "types": names, **pictures}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.standard = Standard(state["mean"], state["deviation"])
        for part in ("weights", "bias", "known", "known_types", "type_weights", "type_bias"):
            setattr(self, part, state[part])
        self.pictures = state.get("thumbnails", NO_PICTURES)
        self.defects = json.loads(bytes(state["types"].tolist()))

    def __call__(self, output: ModelOutput) -> Tensor:
        assert output.features is not None
        return self.logits(self.standard(output.features))

    def logits(self, standardised: Tensor) -> Tensor:
        """The score ``(B,)`` of standardised features ``(B, D)``."""
        return standardised @ self.weights.to(standardised.device) + self.bias.to(standardised.device)

    @property
    def tells_types(self) -> bool:
        """Whether there are two types of :data:`LEAST_OF_TYPE` known defects or more."""
        return len(self.type_bias) > 1

    def likeness(self, features: Tensor) -> list[Likeness]:
        """Which type each of ``(B, D)`` features looks like, where :attr:`tells_types`."""
        device = features.device
        logits = self.standard(features) @ self.type_weights.to(device).T + self.type_bias.to(device)
        probabilities, places = logits.softmax(1).max(1)
        found = zip(places.tolist(), probabilities.tolist(), strict=True)
        return [Likeness(self.defects[place], probability) for place, probability in found]

    def nearest_known(self, features: Tensor) -> list[int]:
        """The place of the known defect that is nearest to each of ``(B, D)`` features."""
        places: list[int] = nearest(self.standard(features), self.known.to(features.device), 1)[1][:, 0].tolist()
        return places

    def near(self, features: Tensor) -> list[Near]:
        """The known defect that is nearest to each of ``(B, D)`` features, where there are pictures of them."""
        return [
            Near(f"nearest known defect: {self.defects[int(self.known_types[place])]}", self.pictures[place])
            for place in self.nearest_known(features)
        ]


def told_from_normals(normals: Tensor, known: Tensor, strength: float | None) -> tuple[Tensor, Tensor, float, str]:
    """Weights ``(D,)`` and bias that tell known defects ``(K, D)`` from normals ``(N, D)``, C, and how that was found.

    At most :data:`NORMALS` of the normals are seen.
    """
    few = normals[:: -(-len(normals) // NORMALS)]
    labels = np.repeat([0, 1], [len(few), len(known)])
    fit, strength, how = fit_logistic(torch.cat([few, known]).double().numpy(), labels, strength, "roc_auc")
    return torch.from_numpy(fit.coef_[0]).float(), torch.tensor(float(fit.intercept_[0])), strength, how


def fit_logistic(
    features: NDArray[np.float64], labels: NDArray[Any], strength: float | None, scoring: str
) -> tuple[Any, float, str]:
    """A logistic regression, its classes weighing the same.

    Args:
        features: ``(N, D)``, standardised.
        labels: ``(N,)`` classes.
        strength: its C; None to choose the one of :data:`STRENGTHS` that is best in a stratified cross-validation, if
            the smallest class allows it.
        scoring: scikit-learn's name of what is best.

    Returns:
        The fitted regression, its C, and how that was found.
    """
    # Slow to import, and only needed here.
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.model_selection import GridSearchCV, StratifiedKFold  # type: ignore[import-untyped]

    least = int(np.unique(labels, return_counts=True)[1].min())
    # Between types no fewer than five each are needed in any case.
    enough = least >= (LEAST_TO_CHOOSE if scoring == "roc_auc" else LEAST_OF_TYPE)
    model = LogisticRegression(C=strength or FIXED_STRENGTH, class_weight="balanced", max_iter=1000, tol=1e-4)
    if strength is not None or not enough:
        how = "given" if strength is not None else f"fixed, as fewer than {LEAST_TO_CHOOSE} of a class are too few"
        return model.fit(features, labels), model.C, how
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    search = GridSearchCV(model, {"C": STRENGTHS}, scoring=scoring, cv=folds).fit(features, labels)
    return search.best_estimator_, float(search.best_params_["C"]), f"chosen by {FOLDS}-fold cross-validation"
