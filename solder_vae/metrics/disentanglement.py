"""Does each latent unit stand for one generative factor? MIG, SAP and DCI, which the paper claims but never measures.

Definitions follow Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of Disentangled
Representations" (ICML 2019), appendix C, and their code, disentanglement_lib. Departures, each because the latent has
640 units here, many of them dead, and factors are both continuous and categorical:

* Dead units are left out first (:func:`active`). They would raise completeness, whose entropy is relative to the
  number of units; scaled up, a dead unit's last digits could win the gaps.
* Continuous and categorical factors are measured together. Floating-point factors are continuous, all others (names,
  integers, booleans) categorical. MIG counts continuous ones in 20 bins of equal width, as it does the codes.
* SAP scores a unit for a continuous factor by R^2, the squared correlation, as disentanglement_lib does; for a
  categorical factor by the accuracy of a nearest-class-mean classifier on the unit on held-out images. Their linear
  SVM, one class against the rest, cannot single out the middle one of three classes on a line.
* Accuracies are balanced over the classes and chance-corrected, (a - 1/K) / (1 - 1/K), so that 0 is guessing and 1
  perfect for any number K of classes, as it is for R^2. disentanglement_lib takes the plain accuracy: there SAP of a
  factor of two equal classes cannot exceed 0.5, and informativeness of noise is not 0.
* DCI's importances come from extremely randomised trees that see every unit at every split. Gradient boosting, as in
  disentanglement_lib, is more than ten times slower with 640 units; forests that see a random part of the units give
  importance to useless ones; the lasso of Eastwood and Williams (2018) sees linear relations only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import entropy, special_ortho_group  # type: ignore[import-untyped]
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor  # type: ignore[import-untyped]

from solder_vae.utils.errors import UserError

Floats = NDArray[np.float64]
Factor = NDArray[np.generic]
Factors = dict[str, Factor]

BINS = 20  # as in disentanglement_lib
TREES = 20
LEAF = 5  # images at least in a leaf: smaller ones fit noise, and spread importance over useless units
_CONSTANT = 1e-12  # variance below which a unit carries no information, as in disentanglement_lib's SAP


def measure(codes: ArrayLike, factors: Mapping[str, ArrayLike], seed: int = 0) -> dict[str, float]:
    """MIG, SAP and DCI of the active latent units.

    Args:
        codes: posterior means ``(N, D)``, in units of the prior's standard deviation; some hundred images at least
            for numbers that mean something. 2000 images of 640 units and 16 factors take about 16 s on one core.
        factors: by name, each ``(N,)``. Those without variation are left out.
        seed: of the halves into which SAP and DCI part the images, and of the trees.

    Returns:
        ``mig``, ``sap``, ``dci_disentanglement``, ``dci_completeness``, ``dci_informativeness``, each 0 to 1, higher
        is better. All are 0 if no unit is active.

    Raises:
        UserError: fewer than 20 images, fewer than two factors that vary, or values that are not finite.
    """
    units = np.asarray(codes, dtype=np.float64)
    kept = {name: values for name, values in _arrays(factors).items() if len(np.unique(values)) > 1}
    _check(units, kept)
    units = active(units)
    names = ("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness")
    if units.shape[1] == 0:
        return dict.fromkeys(names, 0.0)
    return dict(zip(names, (mig(units, kept), sap(units, kept, seed), *dci(units, kept, seed)), strict=True))


def chance(codes: ArrayLike, factors: Mapping[str, ArrayLike], seed: int = 0) -> dict[str, float]:
    """:func:`measure` of the same codes dealt out to the images at random: the chance level of the measures.

    With few images or many units it is not 0: trees find random splits, others for each factor.
    """
    units = np.asarray(codes, dtype=np.float64)
    return measure(units[np.random.default_rng(seed).permutation(len(units))], factors, seed)


def rotated(codes: ArrayLike, seed: int = 0) -> Floats:
    """The active units' space ``(N, active)`` turned by a random rotation: the same information along other axes.

    Units that each stand for a factor score far higher than this; units that score no higher are not disentangled,
    whatever the number.
    """
    units = active(np.asarray(codes, dtype=np.float64))
    width = units.shape[1]
    return units @ special_ortho_group.rvs(width, random_state=seed) if width > 1 else units


def active(codes: Floats, variance: float = 0.01) -> Floats:
    """The columns of codes ``(N, D)`` whose variance exceeds 0.01 (Burda et al. 2016, section 5.2), in their order.

    With a posterior as wide as the prior such a unit passes at most ln(1 + 0.01) / 2 = 0.005 nats to the decoder.
    """
    return codes[:, codes.var(0) > variance]


def mig(codes: ArrayLike, factors: Mapping[str, ArrayLike]) -> float:
    """Mutual information gap (Chen et al., "Isolating Sources of Disentanglement in VAEs", 2018).

    Mean over factors of (I1 - I2) / H: the largest and second largest mutual information of the factor with a unit,
    over the factor's entropy. Counts in 20 bins overestimate the information by up to 19^2 / 2N nats, in both terms.

    Args:
        codes: ``(N, D)``.
        factors: by name, each ``(N,)``.

    Returns:
        0 to 1. A unit alone has 0 as runner-up.
    """
    bins = discretise(np.asarray(codes, dtype=np.float64))
    gaps = []
    for values in _arrays(factors).values():
        classes = _classes(discretise(values.astype(np.float64)[:, None])[:, 0] if _continuous(values) else values)
        information = mutual_information(bins, classes)
        gaps.append(_gap(information) / entropy(np.bincount(classes)))
    return float(np.mean(gaps))


def discretise(values: Floats) -> NDArray[np.int64]:
    """Each column of ``(N, D)`` in 20 bins of equal width between its extremes, 0 to 19; a constant one in bin 0."""
    low, high = values.min(0), values.max(0)
    extent = np.where(high > low, high - low, 1.0)
    return np.asarray(np.minimum((values - low) / extent * BINS, BINS - 1), dtype=np.int64)


def mutual_information(bins: NDArray[np.int64], classes: NDArray[np.int64]) -> Floats:
    """Mutual information in nats of each column of ``(N, D)`` bins with classes ``(N,)``, from counts: ``(D,)``."""
    n, units = bins.shape
    rows, columns = int(bins.max()) + 1, int(classes.max()) + 1
    cells = (np.arange(units) * rows + bins) * columns + classes[:, None]
    joint = np.bincount(cells.ravel(), minlength=units * rows * columns).reshape(units, rows, columns) / n
    # I = H(bin) + H(class) - H(bin, class)
    information = (
        entropy(joint.sum(2), axis=1) + entropy(joint.sum(1), axis=1) - entropy(joint.reshape(units, -1), axis=1)
    )
    return np.asarray(np.maximum(information, 0.0), dtype=np.float64)


def sap(codes: ArrayLike, factors: Mapping[str, ArrayLike], seed: int = 0) -> float:
    """Separated attribute predictability (Kumar et al., "Variational Inference of Disentangled Latent Concepts", 2018).

    Mean over factors of the gap between the two units that predict the factor best, each alone: R^2 of a line for a
    continuous factor, chance-corrected balanced accuracy of the nearest class mean for a categorical one, learned on
    one half of the images and tested on the other.

    Args:
        codes: ``(N, D)``.
        factors: by name, each ``(N,)``.
        seed: of the halves.

    Returns:
        0 to 1. A unit alone has 0 as runner-up.
    """
    units = np.asarray(codes, dtype=np.float64)
    train, test = _halves(len(units), seed)
    gaps = []
    for values in _arrays(factors).values():
        if _continuous(values):
            predictability = _squared_correlation(units, values.astype(np.float64))
        else:
            classes = _classes(values)
            predictability = _class_mean_accuracy(units[train], classes[train], units[test], classes[test])
        gaps.append(_gap(predictability))
    return float(np.mean(gaps))


def dci(codes: ArrayLike, factors: Mapping[str, ArrayLike], seed: int = 0) -> tuple[float, float, float]:
    """Disentanglement, completeness, informativeness (Eastwood and Williams 2018).

    For each factor trees learn to predict it from all units on one half of the images. From the trees' importances
    :func:`disentanglement` and :func:`completeness`; informativeness is the mean over factors of what they get right
    of the other half: R^2, or chance-corrected balanced accuracy, 0 where worse than guessing.

    Args:
        codes: ``(N, D)``.
        factors: by name, two or more, each ``(N,)``.
        seed: of the halves and the trees.

    Returns:
        The three, each 0 to 1.
    """
    units = np.asarray(codes, dtype=np.float64)
    train, test = _halves(len(units), seed)
    options = {"n_estimators": TREES, "min_samples_leaf": LEAF, "max_features": None, "random_state": seed}
    importances, scores = [], []
    for values in _arrays(factors).values():
        if _continuous(values):
            target = values.astype(np.float64)
            model = ExtraTreesRegressor(**options).fit(units[train], target[train])
            error = np.mean((model.predict(units[test]) - target[test]) ** 2)
            score = 1 - error / max(float(np.var(target[test])), _CONSTANT)
        else:
            classes = _classes(values)
            model = ExtraTreesClassifier(class_weight="balanced", **options).fit(units[train], classes[train])
            score = float(_balanced_accuracy(model.predict(units[test])[:, None], classes[test], classes)[0])
        importances.append(model.feature_importances_)
        scores.append(max(0.0, float(score)))
    matrix = np.stack(importances, axis=1)
    return disentanglement(matrix), completeness(matrix), float(np.mean(scores))


def disentanglement(importances: Floats) -> float:
    """1 where each unit is important for one factor alone, 0 where for all alike; mean over units by importance.

    Args:
        importances: ``(D, F)``, 0 or greater, F >= 2.
    """
    return _concentration(importances)


def completeness(importances: Floats) -> float:
    """1 where one unit alone is important for each factor, 0 where all are alike; mean over factors by importance.

    Args:
        importances: ``(D, F)``, 0 or greater. With a single unit there is nothing to be complete among: 0.
    """
    return _concentration(importances.T) if len(importances) > 1 else 0.0


def _concentration(shares: Floats) -> float:
    """Mean over rows, weighted by their sums, of 1 - entropy / log(columns)."""
    weights = shares.sum(1)
    used = weights > 0
    if not used.any():
        return 0.0
    per_row = 1 - entropy(shares[used], axis=1, base=shares.shape[1])
    return float(np.clip(np.average(per_row, weights=weights[used]), 0.0, 1.0))


def _squared_correlation(units: Floats, target: Floats) -> Floats:
    """R^2 of the line from each column of ``(N, D)`` to the target ``(N,)``; 0 for constant ones."""
    centred, deviation = units - units.mean(0), target - target.mean()
    variances, variance = (centred**2).mean(0), (deviation**2).mean()
    informative = (variances > _CONSTANT) & (variance > _CONSTANT)
    scale = np.where(informative, variances * variance, 1.0)
    squared = (centred * deviation[:, None]).mean(0) ** 2 / scale
    return np.where(informative, squared, 0.0)


def _class_mean_accuracy(
    train: Floats, train_classes: NDArray[np.int64], test: Floats, test_classes: NDArray[np.int64]
) -> Floats:
    """Of each unit alone ``(D,)``: how well the class whose mean in ``train`` is nearest is the class in ``test``."""
    known = np.unique(train_classes)
    means = np.stack([train[train_classes == label].mean(0) for label in known])
    predicted = known[np.abs(test[:, None, :] - means).argmin(1)]
    accuracy = _balanced_accuracy(predicted, test_classes, np.concatenate([train_classes, test_classes]))
    return np.where(train.var(0) > _CONSTANT, np.maximum(accuracy, 0.0), 0.0)


def _balanced_accuracy(predicted: NDArray[np.int64], truth: NDArray[np.int64], everything: NDArray[np.int64]) -> Floats:
    """Chance-corrected mean recall of each column of predictions ``(n, D)``; K is the number of classes of all."""
    recalls = [(predicted[truth == label] == label).mean(0) for label in np.unique(truth)]
    chance = 1 / max(2, len(np.unique(everything)))
    return np.asarray((np.mean(recalls, axis=0) - chance) / (1 - chance), dtype=np.float64)


def _gap(values: Floats) -> float:
    """Between the largest and the second largest value; a single one's runner-up is 0."""
    second, first = np.sort(np.append(values, 0.0))[-2:]
    return float(first - second)


def _halves(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def _continuous(values: Factor) -> bool:
    return np.issubdtype(values.dtype, np.floating)


def _classes(values: Factor) -> NDArray[np.int64]:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _arrays(factors: Mapping[str, ArrayLike]) -> Factors:
    return {name: np.asarray(values) for name, values in factors.items()}


def _check(codes: Floats, factors: Factors) -> None:
    if len(codes) < 20:
        raise UserError(f"Disentanglement of {len(codes)} images means nothing: give 20 or more, better 1000.")
    if len(factors) < 2:
        raise UserError(f"Disentanglement needs two factors that vary, here are {len(factors)}: give more.")
    infinite = [name for name, values in factors.items() if _continuous(values) and not np.isfinite(values).all()]
    if not np.isfinite(codes).all():
        infinite.append("codes")
    if infinite:
        raise UserError(f"Values that are not finite in {', '.join(infinite)}: disentanglement cannot be measured.")
