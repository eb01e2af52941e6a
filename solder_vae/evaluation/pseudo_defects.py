"""A criterion for choosing hyperparameters without an abnormal image: do scores rise where a joint is tampered with?

Each validation normal gets a copy in which a rectangle of itself is pasted elsewhere (CutPaste: Li et al., "CutPaste:
Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021). The criterion is the AUROC of the primary
score between the normals and these copies. Choosing detectors by artificial anomalies is studied by Fung et al., "Model
Selection of Anomaly Detectors in the Absence of Labeled Validation Data", 2023.

The validation loss cannot serve: it contains beta. The reconstruction error can be driven down by beta = 0, which
reconstructs defects as well. This criterion rewards neither end: a network that copies its input reconstructs the
pasted patch, one that has collapsed reconstructs nothing, and both end near 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu  # type: ignore[import-untyped]

from solder_vae.data.table import Images
from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation.run_model import run_model
from solder_vae.models.detector import Detector

_AREA = (0.02, 0.15)  # of the image, as in CutPaste
_ASPECT = (0.3, 3.3)
_SCORED_AT_ONCE = 64


def cut_paste(images: NDArray[np.uint8], seed: int | np.random.Generator = 0) -> NDArray[np.uint8]:
    """Copies of images in each of which one rectangle is overwritten by another place of the same image.

    Args:
        images: ``(N, S, S, 3)`` uint8.
        seed: of sizes and places; the same seed alters the n-th image in the same way. Or a generator that goes on
            from batch to batch as it would through one array.

    Returns:
        ``(N, S, S, 3)`` uint8.
    """
    generator = np.random.default_rng(seed)
    side = images.shape[1]
    copies = images.copy()
    for image, copy in zip(images, copies, strict=True):
        area = generator.uniform(*_AREA) * side * side
        aspect = np.exp(generator.uniform(*np.log(_ASPECT)))
        height, width = (int(np.clip(round(length), 1, side - 1)) for length in np.sqrt([area * aspect, area / aspect]))
        top, source_top = generator.choice(side - height + 1, 2, replace=False)
        left, source_left = generator.choice(side - width + 1, 2, replace=False)
        patch = image[source_top : source_top + height, source_left : source_left + width]
        copy[top : top + height, left : left + width] = patch
    return copies


def pseudo_defect_auroc(
    model: Detector, images: Images, normal_scores: NDArray[np.float64], types: Sequence[str] | None = None
) -> float:
    """AUROC of the model's primary score between normals and their :func:`cut_paste` copies, 0 to 1.

    Args:
        model: trained, in evaluation mode.
        images: validation normals ``(N, S, S, 3)`` uint8.
        normal_scores: ``(N,)`` the primary score of these.
        types: their N component types; None where they are not known.
    """
    generator = np.random.default_rng(0)
    starts = range(0, len(images), _SCORED_AT_ONCE)
    batches = (to_tensor(cut_paste(images[start : start + _SCORED_AT_ONCE], generator)) for start in starts)
    primary = model.primary_score
    scores = [output.scores[primary] for output in run_model(model, batches, (primary,), types=types)]
    return ranked_above(torch.cat(scores).double().cpu().numpy(), normal_scores)


def ranked_above(abnormal: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """Share of the pairs in which the abnormal score is the higher one, ties counting half (the AUROC)."""
    return float(mannwhitneyu(abnormal, normal).statistic / (len(abnormal) * len(normal)))
