"""How well labels separate in a latent space: silhouette, k-NN purity and its chance level."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist  # type: ignore[import-untyped]
from sklearn.metrics import silhouette_score  # type: ignore[import-untyped]

from solder_vae.utils.errors import UserError


def silhouette(codes: ArrayLike, labels: ArrayLike) -> float:
    """Silhouette coefficient (Rousseeuw 1987) of the classes in the latent space, Euclidean distances.

    Args:
        codes: ``(N, D)``.
        labels: ``(N,)``.

    Returns:
        Mean over all points, -1 to 1; 0 where classes overlap. NaN if it is undefined: fewer than two classes, or no
        class of two.
    """
    classes = len(np.unique(np.asarray(labels)))
    if not 2 <= classes < len(np.asarray(labels)):
        return float("nan")
    return float(silhouette_score(np.asarray(codes, dtype=np.float64), np.asarray(labels)))


def knn_purity(codes: ArrayLike, labels: ArrayLike, k: int = 5) -> float:
    """Mean share of a point's k nearest neighbours in the latent space that are of its class, itself left out.

    Neighbours at the same distance as the k-th count in part, as if some of them were chosen at random. So codes that
    are all the same, as after a posterior collapse, have exactly the chance level.

    Args:
        codes: ``(N, D)``, N >= 2; Euclidean distances.
        labels: ``(N,)``.
        k: 1 or more; N - 1 where that is less.

    Returns:
        0 to 1; to be read beside :func:`chance_purity`.
    """
    points, classes = np.asarray(codes, dtype=np.float64), np.asarray(labels)
    _check_purity(classes)
    if k < 1:
        raise UserError(f"The purity of {k} neighbours is undefined: give k=1 or more.")
    k = min(k, len(classes) - 1)
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    farthest = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    nearer, tied = distances < farthest, distances == farthest
    places = k - nearer.sum(1)  # those that the tied ones share
    same = classes[:, None] == classes[None, :]
    hits = (nearer & same).sum(1) + places * (tied & same).sum(1) / tied.sum(1)
    return float(np.mean(hits / k))


def chance_purity(labels: ArrayLike) -> float:
    """Expected :func:`knn_purity` of codes that are independent of the labels ``(N,)``, N >= 2.

    For class sizes n_c it is the sum over c of n_c (n_c - 1) / (N (N - 1)).
    """
    classes = np.asarray(labels)
    _check_purity(classes)
    _, counts = np.unique(classes, return_counts=True)
    return float((counts * (counts - 1)).sum() / (len(classes) * (len(classes) - 1)))


def _check_purity(labels: NDArray[np.generic]) -> None:
    if len(labels) < 2:
        raise UserError(f"The purity of neighbours of {len(labels)} image(s) is undefined: give 2 or more.")
