"""The camera: exposure, blur, colour fringes, sampling to the native size, white balance, noise, tone, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.synthetic.canvas import Field

_LATITUDE = 0.4  # highlights burn out by no more than 1 / this, or a mostly dark picture would turn pale
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class Camera:
    """How one picture is taken.

    Attributes:
        size: native height and width, pixels.
        clipped: share of the picture that the metering lets burn out, in [0, 1).
        gain: linear exposure against what the metering asks for; 1 trusts it.
        blur: standard deviation of the optical blur, in native pixels.
        fringe: lateral chromatic shift between red and blue, in native pixels, x and y.
        balance: ``(3,)`` white-balance gains.
        contrast: exponent of the tone curve about mid-grey; 1 is plain sRGB.
        saturation: colour gain, 1 keeps the colours.
        noise: standard deviation of read noise in linear full scale; shot noise grows from it.
        sharpen: strength of the camera's unsharp mask.
        quality: JPEG quality, or 100 for none.
    """

    size: tuple[int, int]
    clipped: float
    gain: float
    blur: float
    fringe: tuple[float, float]
    balance: NDArray[np.float32]
    contrast: float
    saturation: float
    noise: float
    sharpen: float
    quality: int


def photograph(radiance: Field, camera: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take the picture: ``(H, W, 3)`` linear radiance in, ``(*camera.size, 3)`` uint8 sRGB out."""
    height, width = radiance.shape[:2]
    scale = height / camera.size[0]  # scene pixels per native pixel
    luma = radiance[::2, ::2] @ _LUMA
    highlights, white = (float(level) for level in np.quantile(luma, [0.97, 1 - camera.clipped]))
    white = max(white, _LATITUDE * highlights)
    picture = np.minimum(radiance * np.float32(camera.gain / max(white, 1e-4)), 4)  # the sensor's wells overflow
    sigma = camera.blur * scale
    picture = cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.3), borderType=cv2.BORDER_REFLECT_101)
    for channel, sign in ((0, 0.5), (2, -0.5)):
        shift = np.array([[1, 0, sign * camera.fringe[0] * scale], [0, 1, sign * camera.fringe[1] * scale]], np.float32)
        picture[..., channel] = cv2.warpAffine(
            picture[..., channel], shift, (width, height), borderMode=cv2.BORDER_REPLICATE
        )
    way = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    picture = cv2.resize(picture, (camera.size[1], camera.size[0]), interpolation=way)
    picture = np.maximum(picture, 0) * camera.balance
    grain = rng.standard_normal(picture.shape, dtype=np.float32)
    picture = picture + grain * np.float32(camera.noise) * np.sqrt(1 + 6 * np.minimum(picture, 1))
    return _develop(_mosaic(np.clip(picture, 0, 1)), camera)


def _mosaic(linear: Field) -> Field:
    """What a sensor under a Bayer filter makes of ``(h, w, 3)`` in [0, 1]: burnt edges get coloured fringes."""
    bayer = linear[..., 1].copy()
    bayer[::2, ::2] = linear[::2, ::2, 0]
    bayer[1::2, 1::2] = linear[1::2, 1::2, 2]
    coded = (np.sqrt(bayer) * 65535).astype(np.uint16)  # interpolated after the gamma, as cheap cameras do
    full: Field = (cv2.demosaicing(coded, cv2.COLOR_BayerRGGB2RGB_EA) / np.float32(65535)).astype(np.float32) ** 2
    return np.asarray(cv2.GaussianBlur(full, (0, 0), 0.5), dtype=np.float32)  # crops are resampled on their way


def _develop(linear: Field, camera: Camera) -> NDArray[np.uint8]:
    """Tone curve, colour, sharpening and compression: ``(h, w, 3)`` linear in [0, 1] to uint8."""
    tone = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, np.float32(1 / 2.4)) - 0.055)
    tone = (tone - np.float32(0.5)) * np.float32(camera.contrast) + np.float32(0.5)
    grey = (tone @ _LUMA)[..., None]
    tone = (grey + (tone - grey) * np.float32(camera.saturation)).astype(np.float32)
    if camera.sharpen:
        soft = cv2.GaussianBlur(tone, (0, 0), 1.0)
        tone = tone + np.float32(camera.sharpen) * (tone - soft)
    image = np.clip(tone * 255 + 0.5, 0, 255).astype(np.uint8)
    if camera.quality < 100:
        done, packed = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, camera.quality])
        if not done:  # pragma: no cover - the encoder takes every 8-bit picture
            raise RuntimeError(f"JPEG encoding failed for an image of shape {image.shape}")
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    return np.ascontiguousarray(image)
