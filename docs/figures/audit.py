"""The figures of docs/use/audit.md that no command prints: python docs/figures/audit.py FOLDER [FOLDER ...]

Of each data set: how much of an image's native size still shows in the controlled view, for several resolutions; and
how many altered copies the search for near duplicates finds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import rankdata, spearmanr

from solder_vae.data import view
from solder_vae.data.image_files import Image, read_image
from solder_vae.data.layouts import find_records
from solder_vae.data.table import ImageTable
from solder_vae.evaluation.baselines import trivial_features
from solder_vae.studies.audit import duplicates
from solder_vae.utils.labels import NORMAL

ALTERED: dict[str, Callable[[Image], Image]] = {
    "0.7 times the size": lambda image: cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
    "JPEG, quality 60": lambda image: cv2.imdecode(
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR
    ),
    "brighter, less contrast": lambda image: (0.7 * image + 40).astype(np.uint8),
    "tinted": lambda image: (image * [0.9, 0.7, 1.0]).astype(np.uint8),
    "moved by a pixel": lambda image: image[:, 1:],
}


def resolutions(images: list[Image], abnormal: np.ndarray) -> None:
    sides = np.array([min(image.shape[:2]) for image in images])
    print("| resolution, px | normals below | defects below | sharpness alone | sharpness ~ size, normals |")
    print("|---:|---:|---:|---:|---:|")
    for resolution in (12, 16, 24, 32):
        view.RESOLUTION = resolution
        seen = np.stack([view.apply_view(image, 64, view.CONTROLLED) for image in images])
        names, sizes = [""] * len(seen), np.stack([sides, sides], 1)
        sharpness = trivial_features(ImageTable(seen, names, [NORMAL] * len(seen), sizes))["sharpness"][:, 0]
        below = [100 * (sides[rows] < resolution).mean() for rows in (~abnormal, abnormal)]
        pairs = abnormal.sum() * (~abnormal).sum()
        above = rankdata(sharpness)[abnormal].sum() - abnormal.sum() * (abnormal.sum() + 1) / 2
        tied = spearmanr(sharpness[~abnormal], sides[~abnormal])[0]
        print(f"| {resolution} | {below[0]:.0f} % | {below[1]:.0f} % | {above / pairs:.3f} | {tied:.2f} |")
    view.RESOLUTION = 24


def altered_copies(images: list[Image]) -> None:
    print("| copy | correlation reaches the limit | of these, the hash proposes |")
    print("|---|---:|---:|")
    before = [view.apply_view(image, 64, view.CONTROLLED)[..., 0] for image in images]
    for name, alter in ALTERED.items():
        after = [view.apply_view(np.ascontiguousarray(alter(image)), 64, view.CONTROLLED)[..., 0] for image in images]
        pairs = list(zip(before, after, strict=True))
        like = np.array([np.corrcoef(x.ravel(), y.ravel())[0, 1] >= duplicates.CORRELATION for x, y in pairs])
        bits = [duplicates.perceptual_hash(x) ^ duplicates.perceptual_hash(y) for x, y in pairs]
        proposed = np.bitwise_count(np.array(bits)) <= duplicates.BITS
        print(f"| {name} | {100 * like.mean():.0f} % | {100 * proposed[like].mean():.1f} % |")


for folder in sys.argv[1:]:
    records = find_records(Path(folder))
    photographs = [read_image(record.path) for record in records]
    print(f"\n{folder}")
    resolutions(photographs, np.array([record.defect != NORMAL for record in records]))
    altered_copies(photographs)
