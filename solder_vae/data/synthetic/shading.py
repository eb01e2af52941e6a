r"""Light on the scene: a microfacet metal under an environment, an optional ring or side lights, and its own board.

Each surface point reflects :math:`L = L_{diffuse} + \sum_i \frac{D\,G\,F}{4\,(n\cdot l)(n\cdot v)} L_i (n\cdot l)`:
Cook and Torrance (1982) with the GGX distribution and the Smith masking of Walter et al. (2007) and the Fresnel term
of Schlick (1994). What is not a lamp (dome, ceiling, coaxial light, and the board, which steep fillets mirror) is an
environment looked up along the mirror direction and widened by the roughness, as in image-based lighting
(Karis 2013, "split sum").
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.data.synthetic.canvas import Field


@dataclass
class Surfaces:
    """What the camera looks at, pixel by pixel. Colours are kept by :func:`planes`.

    Attributes:
        height: ``(H, W)`` above the board, in pad widths.
        diffuse: ``(H, W, 3)`` linear RGB albedo in [0, 1].
        f0: ``(H, W, 3)`` linear RGB reflectance at normal incidence in [0, 1].
        roughness: ``(H, W)`` GGX alpha in (0, 1].
    """

    height: Field
    diffuse: Field
    f0: Field
    roughness: Field

    def paint(self, cover: Field, diffuse: Colour, f0: Colour, roughness: Field | float) -> None:
        """Lay a material over what is there, where ``cover`` (``(H, W)`` in [0, 1]) says, in place."""
        rows = np.flatnonzero(cover.any(axis=1))
        if not len(rows):  # much of a scene lies beyond the frame
            return
        # Only the rectangle about it: a thing on a board covers a hundredth of the picture.
        columns = np.flatnonzero(cover.any(axis=0))
        where = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        cover = cover[where]
        for field, colour in ((self.diffuse[where], diffuse), (self.f0[where], f0)):
            field += cover[..., None] * (np.asarray(colour, np.float32) - field)
        field = self.roughness[where]
        field += cover * (np.broadcast_to(np.asarray(roughness, np.float32), self.roughness.shape)[where] - field)


Colour = NDArray[np.float32] | tuple[float, float, float]


@dataclass(frozen=True)
class Lobe:
    """A disc or band of light in the environment, a Gaussian in the cosine of the angle to its axis.

    Attributes:
        axis: ``(3,)`` unit vector towards its centre.
        cosine: cosine of the angle between axis and band: 1 for a disc about the axis.
        width: its standard deviation, in cosine.
        colour: ``(3,)`` radiance.
        lean: how much stronger a band is on one side, in [0, 1].
        azimuth: that side's direction, radians.
    """

    axis: NDArray[np.float32]
    cosine: float
    width: float
    colour: NDArray[np.float32]
    lean: float
    azimuth: float


@dataclass(frozen=True)
class Lamp:
    """A small distant light: ``(3,)`` unit direction towards it, ``(3,)`` irradiance, angular radius in radians."""

    direction: NDArray[np.float32]
    colour: NDArray[np.float32]
    radius: float


@dataclass(frozen=True)
class Lighting:
    """All the light of one picture: environment bands, lamps, and the even ambient light, ``(3,)`` radiance.

    ``horizon`` is the cosine of the polar angle below which a mirror shows the board and its parts instead of the sky.
    """

    lobes: tuple[Lobe, ...]
    lamps: tuple[Lamp, ...]
    ambient: NDArray[np.float32]
    horizon: float = 0.0


def planes(shape: tuple[int, ...]) -> Field:
    """An empty ``(H, W, 3)`` field that has a whole plane for each channel in memory.

    NumPy goes through it by whole rows; through three values at a pixel it goes at a fifth of the speed.
    """
    return np.empty((3, *shape[:2]), np.float32).transpose(1, 2, 0)


def normals(height: Field, pixel: float) -> NDArray[np.float32]:
    """Unit normals of a height field, ``(3, H, W)``; x to the right, y down the rows, z to the camera."""
    scale = 1 / (8 * pixel)
    gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=scale, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=scale, borderType=cv2.BORDER_REPLICATE)
    nz = 1 / np.sqrt(gx * gx + gy * gy + np.float32(1))
    return np.stack([-gx * nz, -gy * nz, nz])


def occlusion(height: Field, pixel: float, reach: float = 0.25) -> Field:
    """Share of the sky that a point sees, in (0, 1]: less beside something tall. ``reach`` is in pad widths."""
    sigma = reach / pixel
    small = cv2.resize(height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    around = cv2.GaussianBlur(small, (0, 0), sigma / 2, borderType=cv2.BORDER_REPLICATE)
    around = cv2.resize(around, (height.shape[1], height.shape[0]), interpolation=cv2.INTER_LINEAR)
    wall = np.maximum(around - height, 0) / np.float32(reach)
    share: Field = 1 / (1 + np.float32(2.5) * wall)
    return share


def shadow(height: Field, pixel: float, direction: NDArray[np.float32], steps: int = 8, reach: float = 0.8) -> Field:
    """Share of a lamp that reaches each point of a height field, ``(H, W)`` in [0, 1], by marching towards it."""
    flat = float(np.hypot(direction[0], direction[1]))
    if flat < 1e-3:
        return np.ones_like(height)
    slope = float(direction[2]) / flat
    lit = np.ones_like(height)
    for step in range(1, steps + 1):
        far = reach * step / steps
        dx, dy = far * float(direction[0]) / flat / pixel, far * float(direction[1]) / flat / pixel
        shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        ahead = cv2.warpAffine(
            height,
            shift,
            height.shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        blocked = (ahead - height - np.float32(far * slope)) * np.float32(12)
        np.minimum(lit, 1 - np.clip(blocked, 0, 1), out=lit)
    return lit


def shade(surfaces: Surfaces, lighting: Lighting, ground: Colour, pixel: float) -> Field:
    """Linear radiance towards a camera straight above.

    Args:
        surfaces: what is seen.
        lighting: the light on it.
        ground: ``(3,)`` albedo of the board beyond the frame, which steep metal mirrors.
        pixel: width of a pixel in pad widths.

    Returns:
        ``(H, W, 3)``, at least 0, no upper bound.
    """
    normal = normals(surfaces.height, pixel)
    nx, ny, nz = normal
    alpha = surfaces.roughness
    open_sky = occlusion(surfaces.height, pixel)
    # A plane for each channel, (3, H, W): see planes.
    f0, albedo = surfaces.f0.transpose(2, 0, 1), surfaces.diffuse.transpose(2, 0, 1)
    earth, ambient = _channels(ground), _channels(lighting.ambient)

    # Environment along the mirror direction r = 2 (n.v) n - v.
    rz = 2 * nz * nz - 1
    rx, ry = 2 * nz * nx, 2 * nz * ny
    spread = (np.float32(0.5) * alpha) ** 2
    environment = np.broadcast_to(ambient, f0.shape).copy()
    irradiance = ambient * np.float32(np.pi)
    for lobe in lighting.lobes:
        width = np.float32(lobe.width**2) + spread
        cosine = rx * lobe.axis[0] + ry * lobe.axis[1] + rz * lobe.axis[2]
        band = np.exp((cosine - np.float32(lobe.cosine)) ** 2 / (-2 * width)) * np.sqrt(lobe.width**2 / width)
        side = rx * np.float32(np.cos(lobe.azimuth)) + ry * np.float32(np.sin(lobe.azimuth))
        environment += (band * (1 + np.float32(lobe.lean) * side)) * _channels(lobe.colour)
        irradiance = irradiance + _channels(lobe.colour) * np.float32(5 * lobe.width * max(lobe.cosine, 0.1))
    # Below the horizon the mirror shows the board itself: dark far off, the lit ground close by.
    near = np.clip(np.float32(0.25 + lighting.horizon) - rz, 0.1, 1)
    board = near * earth * irradiance * np.float32(1 / np.pi)
    horizon = np.clip((rz + np.float32(0.1 - lighting.horizon)) / (np.float32(0.2) + alpha), 0, 1)
    environment = (board + horizon * (environment - board)) * open_sky
    grazing = (1 - nz) ** 5 * (1 - alpha)
    specular = environment * (f0 + (1 - f0) * grazing)
    diffuse = irradiance * (open_sky * (0.5 + 0.5 * nz))

    # Lamps, one microfacet highlight each. F = F0 (1 - k) + k lets both parts be summed before F0 is applied.
    metal, edge = np.zeros_like(environment), np.zeros_like(environment)
    for index, lamp in enumerate(lighting.lamps):
        lx, ly, lz = (float(c) for c in lamp.direction)
        n_l = np.maximum(nx * np.float32(lx) + ny * np.float32(ly) + nz * np.float32(lz), 0)
        if index < 2:  # the lamps that cast a visible shadow; the shadows of the others wash each other out
            n_l = n_l * shadow(surfaces.height, pixel, lamp.direction)
        norm = float(np.sqrt(2 + 2 * lz))
        n_h = (nx * np.float32(lx) + ny * np.float32(ly) + nz * np.float32(lz + 1)) / np.float32(norm)
        # An extended lamp widens the lobe (Karis 2013).
        a2 = (alpha + np.float32(lamp.radius / 2)) ** 2
        root = n_h * n_h * (a2 - 1) + 1
        distribution = a2 / (np.float32(np.pi) * root * root)
        # Smith-GGX visibility G / (4 n.l n.v), Hammon's approximation.
        visibility = np.float32(0.5) / (2 * n_l * nz * (1 - alpha) + (n_l + nz) * alpha + np.float32(1e-3))
        schlick = np.float32((1 - norm / 2) ** 5)  # v.h = |l + v| / 2
        glint = distribution * visibility * n_l
        colour = _channels(lamp.colour)
        metal += glint * (1 - schlick) * colour
        edge += glint * schlick * colour
        diffuse = diffuse + n_l * colour
    radiance: Field = diffuse * albedo * np.float32(1 / np.pi) + specular + metal * f0 + edge
    return np.ascontiguousarray(radiance.transpose(1, 2, 0))


def _channels(colour: Colour) -> Field:
    """``(3,)`` as ``(3, 1, 1)``, for fields of ``(3, H, W)``."""
    return np.asarray(colour, np.float32)[:, None, None]
