"""From a decoded image to the network's input: crop, resize, augment, scale.

    read_image -> prepare -> (table in memory) -> augment -> to_tensor

Everything before the arrow to the table happens once per image; the rest happens once per batch.

Views say what of a photograph the network gets to see. ``plain`` is the photograph, cropped and resized. ``controlled``
takes away what often differs between the photographs of good and bad joints but is not solder: colour, brightness,
contrast, resolution. A result that survives it does not rest on those. It is made in this order:

1. crop the central square, or fit the whole picture in (:mod:`solder_vae.data.framing`); grey by ITU-R BT.601's luma;
2. resize to ``RESOLUTION`` pixels a side: means over areas, or bilinear where the photograph has fewer;
3. resize to the network's image size, bilinear;
4. shift and scale each image to mean ``MEAN`` and standard deviation ``DEVIATION`` grey levels, clip to 1 .. 255, and
   again, since clipped highlights (a bright ring on black) move both; round, and repeat over the three channels.

The arithmetic and these numbers are in :mod:`solder_vae.data.controlled`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.batches import check_transforms
from solder_vae.data.framing import ROUND_UP, SQUARE, edge_colour, fitted
from solder_vae.data.image_files import Image
from solder_vae.utils.errors import UserError

if TYPE_CHECKING:
    import albumentations as A  # type: ignore[import-untyped]
    from torch import Tensor


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


def centre_square(image: NDArray[Any]) -> NDArray[Any]:
    """The central square of ``(H, W, ...)``: the paper's "cropped from the short side".

    Of an odd surplus the extra row or column is cut off at the end.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def _resize(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """The image at another size, of about the same ratio of sides."""
    # Averaging over areas when shrinking, as anything else would alias; bilinear when enlarging, as cubic
    # would overshoot and draw bright rims around the highlights of a joint.
    interpolation = cv2.INTER_AREA if max(height, width) < max(image.shape[:2]) else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=interpolation)


def prepare(image: Image, image_size: int = 64, crop: str = SQUARE) -> Image:
    """Make a picture a square of the size that is asked for.

    Args:
        image: ``(H, W, 3)`` uint8 of any size.
        image_size: side of the result in pixels.
        crop: "square" takes the central square, "letterbox" the whole picture, see :mod:`solder_vae.data.framing`.

    Returns:
        ``(image_size, image_size, 3)`` uint8.
    """
    return _square(image, image_size, crop, 0 if crop == SQUARE else edge_colour(image))


def prepare_mask(mask: NDArray[np.bool_], image_size: int = 64, crop: str = SQUARE) -> NDArray[np.bool_]:
    """Crop and resize a mask exactly as :func:`prepare` does the image.

    Args:
        mask: ``(H, W)`` bool.
        image_size: side of the result in pixels.
        crop: as the image's; nothing is set in the bars of a letterbox.

    Returns:
        ``(image_size, image_size)`` bool: a pixel is set if more than half of its area was.
    """
    return _square(mask.astype(np.uint8) * 255, image_size, crop, 0) > 127


def _square(image: NDArray[np.uint8], size: int, crop: str, fill: Any) -> Image:
    if crop == SQUARE:
        return np.asarray(_resize(np.ascontiguousarray(centre_square(image)), size, size))
    height, width = fitted(image.shape[0], image.shape[1], size)
    top, left = (size - height) // 2, (size - width) // 2
    square = np.empty((size, size, *image.shape[2:]), np.uint8)
    square[:] = fill
    inside = square[top : top + height, left : left + width]
    if size >= max(image.shape[:2]):
        inside[:] = _resize(np.ascontiguousarray(image), height, width)
        return square
    for channel in np.ndindex(image.shape[2:]):  # one by one, since they take four times the memory
        means = _resize(image[(..., *channel)].astype(np.float32), height, width)
        inside[(..., *channel)] = np.clip(np.floor(means + ROUND_UP), 0, 255)
    return square


def to_tensor(images: Image) -> Tensor:
    """Scale 0 .. 255 to -1 .. 1 and move the channels forward.

    Args:
        images: ``(N, S, S, 3)`` uint8.

    Returns:
        ``(N, 3, S, S)`` float32 in [-1, 1], channels_last in memory.
    """
    import torch  # here, since rendering and cropping need none of it, and it takes seconds

    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_images(tensor: Tensor) -> Image:
    """The inverse of :func:`to_tensor`, for pictures of inputs and reconstructions.

    Args:
        tensor: ``(N, 3, S, S)`` float; values outside [-1, 1] are clipped.

    Returns:
        ``(N, S, S, 3)`` uint8.
    """
    scaled = tensor.detach().float().cpu().add(1.0).mul(127.5).round_().clamp_(0, 255)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).byte().numpy())


def augmentation(transforms: Sequence[Any] | None = None) -> A.Compose:
    """What is done to training images, by default the paper's: a horizontal flip with probability 1/2.

    Args:
        transforms: albumentations that keep an image's shape and dtype; an empty list for none.

    Raises:
        UserError: they are no transforms, or one changes shape or dtype.
    """
    import albumentations as A  # here, for it takes as long to import as torch, and an inspection has no use for it

    transforms = [A.HorizontalFlip(p=0.5)] if transforms is None else transforms
    kinds = (A.BasicTransform, A.BaseCompose)
    check_transforms(transforms, kinds)
    compose = A.Compose(list(transforms))
    before = np.zeros((97, 97, 3), np.uint8)  # a size that no transform asks for
    after = compose(image=before)["image"]
    if after.shape != before.shape or after.dtype != before.dtype:
        raise UserError(
            f"data.transforms turn {before.dtype} {before.shape} into {after.dtype} {after.shape}; use "
            "such as keep size and type (cropping, resizing and scaling to [-1, 1] are done without them)."
        )
    return compose


def augment(images: Image, compose: A.Compose, keys: Iterable[tuple[int, ...]]) -> Image:
    """Augment each image of a batch by itself, from a random state that only its key determines.

    albumentations ignores the global seeds, and its forked workers would share one random state; so the
    state is set anew for every image. ``set_random_seed`` would start every transform of the list from the
    same seed and so tie their decisions together; here they share one pair of generators.

    Args:
        images: ``(N, S, S, 3)`` uint8.
        compose: see :func:`augmentation`.
        keys: integers for each image.

    Returns:
        ``(N, S, S, 3)`` uint8.
    """
    python, bits = random.Random(), np.random.PCG64(0)
    compose.set_random_state(np.random.Generator(bits), python)
    state = bits.state  # of the two numbers in it, "inc" names the sequence and "state" the place in it
    augmented = []
    for image, key in zip(images, keys, strict=True):
        python.seed(repr(key))  # by a hash of all its bytes
        state["state"]["state"] = python.getrandbits(128)
        bits.state = state
        augmented.append(compose(image=image)["image"])
    return np.stack(augmented)
