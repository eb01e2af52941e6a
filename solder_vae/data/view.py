"""Views: what of a photograph the network gets to see.

``plain`` is the photograph, cropped and resized. ``controlled`` takes away what often differs between the photographs
of good and bad joints but is not solder: colour, brightness, contrast, resolution. A result that survives it does not
rest on those. It is made in this order:

1. crop the central square, or fit the whole picture in (:mod:`solder_vae.data.framing`); grey by ITU-R BT.601's luma;
2. resize to ``RESOLUTION`` pixels a side: means over areas, or bilinear where the photograph has fewer;
3. resize to the network's image size, bilinear;
4. shift and scale each image to mean ``MEAN`` and standard deviation ``DEVIATION`` grey levels, clip to 1 .. 255, and
   again, since clipped highlights (a bright ring on black) move both; round, and repeat over the three channels.

The arithmetic and these numbers are in :mod:`solder_vae.data.controlled`.
"""

from __future__ import annotations

import numpy as np

from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import Image
from solder_vae.data.transforms import prepare

PLAIN, CONTROLLED = VIEWS = ("plain", "controlled")


def apply_view(image: Image, image_size: int, view: str, crop: str = SQUARE) -> Image:
    """A photograph in a view.

    Args:
        image: ``(H, W, 3)`` uint8 of any size.
        image_size: side of the result in pixels.
        view: one of :data:`VIEWS`.
        crop: "square" or "letterbox".

    Returns:
        ``(image_size, image_size, 3)`` uint8.
    """
    if view == PLAIN:
        return prepare(image, image_size, crop)
    import torch  # here, so that nobody waits for it who has a mistyped option or the plain view

    from solder_vae.data.controlled import controlled_batch

    grey = controlled_batch(torch.from_numpy(np.ascontiguousarray(image))[None], image_size, crop)[0]
    return np.repeat(grey.to(torch.uint8).numpy()[..., None], 3, axis=-1)
