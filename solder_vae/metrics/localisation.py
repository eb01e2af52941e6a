"""Is the anomaly map bright where the defect is: pixel AUROC and AUPRO against known masks.

AUPRO follows Bergmann et al., "The MVTec Anomaly Detection Dataset" (IJCV 2021), section 5: the per-region overlap, the
share of a connected defect region that lies above a threshold, is averaged over all regions, so that a small region
counts as much as a large one. It is integrated over the false-positive rate of the defect-free pixels from 0 to 0.3,
where segmentations are still of use, and divided by 0.3. A random map has 0.15, a perfect one 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from solder_vae.metrics.classification import Metrics
from solder_vae.metrics.intervals import rank_statistics
from solder_vae.utils.labels import NORMAL

FPR_LIMIT = 0.3
CHANCE_AUPRO = FPR_LIMIT / 2  # a random map's overlap equals its false-positive rate

Maps = NDArray[np.floating]
Masks = NDArray[np.bool_]


def evaluate_localisation(maps: Maps, masks: Masks, defects: Sequence[str]) -> Metrics:
    """All numbers that are reported for the anomaly maps of a test set.

    The keys: ``pixel_auroc``, ``aupro`` and ``regions`` over all images, and for each defect type
    ``defect/<type>/pixel_auroc``, ``/aupro``, ``/regions`` (connected defect regions) and ``/n`` (images), over
    the images of that type and all normals, as if the set held no other defect. None = undefined, since
    there are no defect pixels or no others.

    Args:
        maps: ``(N, S, S)``, higher = more anomalous, comparable between images.
        masks: ``(N, S, S)``, True on the defect.
        defects: N defect types.

    Raises:
        ValueError: columns of different length or shape.
    """
    if maps.shape != masks.shape or len(maps) != len(defects):
        raise ValueError(f"{maps.shape} maps, {masks.shape} masks and {len(defects)} defect types")
    types = np.array(defects)
    metrics = _measure(maps, masks)
    for defect in sorted(set(defects) - {NORMAL}):
        rows = (types == defect) | (types == NORMAL)
        metrics[f"defect/{defect}/n"] = int((types == defect).sum())
        metrics |= {f"defect/{defect}/{key}": value for key, value in _measure(maps[rows], masks[rows]).items()}
    return metrics


def _measure(maps: Maps, masks: Masks) -> Metrics:
    defined = bool(masks.any() and not masks.all())
    return {
        "pixel_auroc": pixel_auroc(maps, masks) if defined else None,
        "aupro": aupro(maps, masks) if defined else None,
        "regions": int(regions(masks).max(initial=0)),
    }


def pixel_auroc(maps: Maps, masks: Masks) -> float:
    """AUROC of the pixels of all images together; both kinds of pixels must be there."""
    _, level = np.unique(maps, return_inverse=True)
    levels = int(level.max()) + 1
    level = level.reshape(maps.shape)
    auroc, _ = rank_statistics(
        np.bincount(level[masks], minlength=levels), np.bincount(level[~masks], minlength=levels)
    )
    return float(auroc)


def aupro(maps: Maps, masks: Masks, fpr_limit: float = FPR_LIMIT) -> float:
    """Normalised area under the per-region overlap against the false-positive rate, in [0, 1].

    Both defect and defect-free pixels must be there. The curve is exact: it has a point at every distinct value
    of the maps, straight lines between them, and is cut at the limit.

    Args:
        maps: ``(N, S, S)``, higher = more anomalous.
        masks: ``(N, S, S)``, True on the defect.
        fpr_limit: where integration ends, in (0, 1].
    """
    region = regions(masks).reshape(-1)
    sizes = np.bincount(region)
    # Lowering the threshold past a pixel of a region adds 1 / its size to that region's overlap.
    weight = np.where(region > 0, 1.0 / sizes[region] / (len(sizes) - 1), 0.0)
    order = np.argsort(-maps.reshape(-1), kind="stable")
    values = maps.reshape(-1)[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    fpr = np.append(0.0, np.cumsum(region[order] == 0)[last_of_ties] / sizes[0])
    pro = np.append(0.0, np.cumsum(weight[order])[last_of_ties])
    end = int(np.searchsorted(fpr, fpr_limit))  # the curve's first point at the limit or beyond
    share = (fpr_limit - fpr[end - 1]) / (fpr[end] - fpr[end - 1])
    at_limit = pro[end - 1] + share * (pro[end] - pro[end - 1])
    area = np.trapezoid(np.append(pro[:end], at_limit), np.append(fpr[:end], fpr_limit))
    return float(min(area / fpr_limit, 1.0))


def regions(masks: Masks) -> NDArray[np.int64]:
    """Number the connected regions (8 neighbours) of all masks ``(N, S, S)`` from 1; 0 is defect-free."""
    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True  # within an image, never from one image to the next
    labels, _ = ndimage.label(masks, structure=touching)
    return np.asarray(labels, dtype=np.int64)
