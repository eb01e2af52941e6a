"""Where a defect is in a test image, for layouts that say so as MVTec AD, MVTec AD 2 or VisA do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import read_image
from solder_vae.data.transforms import prepare_mask
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.text import printable

log = logging.getLogger(__name__)


def mask_path(image: Path) -> Path | None:
    """The mask of an image, ``000_mask.png`` or ``000.png`` of ``000.png``; None without.

    MVTec AD has it in ``ground_truth/DEFECT`` for ``test/DEFECT/000.png``, MVTec AD 2 in
    ``test_public/ground_truth/bad`` for ``test_public/bad/000.png``, VisA in ``Data/Masks/Anomaly`` for
    ``Data/Images/Anomaly/000.JPG``.
    """
    if len(image.parents) < 3:
        return None
    defect, split, root = image.parent.name, image.parents[1], image.parents[2]
    folders = [root / "ground_truth" / defect, split / "ground_truth" / defect]
    if split.name == "Images":
        folders.append(split.with_name("Masks") / defect)
    places = (folder / name for folder in folders for name in (f"{image.stem}_mask.png", f"{image.stem}.png"))
    return next((path for path in places if path.is_file()), None)


def read_masks(
    images: Sequence[tuple[Path, str, tuple[int, int]]], image_size: int, crop: str = SQUARE
) -> NDArray[np.bool_] | None:
    """The defects' pixels in prepared images ``(N, S, S)``, or None where not every defective image has its mask.

    Args:
        images: path, defect and size (height, width) of each; the masks of normal ones are empty.
        image_size: side of the prepared images in pixels; a mask is cropped and resized as its image is.
        crop: see :mod:`solder_vae.data.framing`.

    Raises:
        UserError: a mask cannot be read.
    """
    found = [None if defect == NORMAL else mask_path(path) for path, defect, _ in images]
    defective = [place for place, (_, defect, _) in enumerate(images) if defect != NORMAL]
    missing = [images[place][0] for place in defective if found[place] is None]
    if not defective or len(missing) == len(defective):
        return None
    if missing:
        log.warning(
            "%d of %d defective test images have no mask (first: %s): anomaly maps are not measured.",
            len(missing),
            len(defective),
            printable(str(missing[0])),
        )
        return None
    masks = np.zeros((len(images), image_size, image_size), np.bool_)
    for place in defective:
        path, size = found[place], images[place][2]
        assert path is not None
        mask = read_image(path).max(2) > 0
        if fault := _fault(mask, size):
            log.warning("%s: %s; anomaly maps are not measured.", printable(str(path)), fault)
            return None
        masks[place] = prepare_mask(mask, image_size, crop)
    log.info("Read %d masks of defects.", len(defective))
    return masks


def _fault(mask: NDArray[np.bool_], size: tuple[int, int]) -> str:
    """Why a mask can't say where the defect is in an image of this size; empty if it can."""
    if mask.shape != size:
        (height, width), (rows, columns) = size, mask.shape
        return f"the mask has {columns} x {rows} pixels, its image {width} x {height}; make it anew in that size"
    if not mask.any():
        return "the mask of a defective image marks nothing; white is the defect, or move the image to test/good"
    return ""
