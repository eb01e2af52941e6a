"""How the picture looks whatever it shows: board and metal colours, light and camera.

Drawn from a stream of their own, before anything is known of the joint: the same for good and bad.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solder_vae.data.synthetic.camera import Camera
from solder_vae.data.synthetic.shading import Lamp, Lighting, Lobe

RGB = tuple[float, float, float]

# Linear albedo of solder masks as sold; black and white are in use too.
MASKS: dict[str, RGB] = {
    "green": (0.003, 0.055, 0.025),
    "blue": (0.003, 0.012, 0.04),
    "red": (0.080, 0.006, 0.005),
    "black": (0.012, 0.013, 0.014),
    "white": (0.45, 0.45, 0.42),
}
# Linear F0 of pad finishes (measured indices of the metals at 650, 550 and 450 nm; tin and silver nearly neutral).
FINISHES: dict[str, RGB] = {
    "HASL": (0.70, 0.69, 0.66),
    "ENIG": (1.00, 0.78, 0.40),
    "OSP": (0.95, 0.64, 0.54),
}
BODIES: dict[str, RGB] = {
    "capacitor": (0.32, 0.20, 0.11),
    "resistor": (0.03, 0.03, 0.033),
    "alumina": (0.62, 0.60, 0.55),
    "ferrite": (0.09, 0.09, 0.10),
}
LIGHTS = ("coaxial", "dome", "ring", "side", "office")


@dataclass(frozen=True)
class Conditions:
    """The look of one picture.

    Attributes:
        mask: name of the solder mask colour; ``mask_colour`` is its linear albedo.
        ground: linear albedo of the board at large: mask with the copper, glare and print on it.
        finish: name of the pad finish; ``finish_colour`` is its linear F0.
        body: name of the chip's body; ``body_colour`` is its linear albedo.
        solder_colour: linear F0 of the solder.
        solder_roughness: GGX alpha of the solder.
        film: thickness of the solder at the rounded edge of its film, in pad widths.
        grain: height of the solder's surface texture, in pad widths.
        streaks: height of the ridges along the fillet's fall, as a share of the solder's height.
        facets: height of the solder's coarse facets, in pad widths.
        tin: linear F0 of plated terminals, bright when fresh, grey when oxidised.
        tin_roughness: their GGX alpha.
        pepper: height of the fine pits of plated terminals, in pad widths.
        dents: unevenness of plated terminals, in pad widths.
        clearance: gap between pad and solder mask, in pad widths.
        light: name of the kind of light in ``lighting``.
        camera: how the picture is taken.
    """

    mask: str
    mask_colour: RGB
    ground: RGB
    finish: str
    finish_colour: RGB
    body: str
    body_colour: RGB
    solder_colour: RGB
    solder_roughness: float
    film: float
    grain: float
    streaks: float
    facets: float
    tin: RGB
    tin_roughness: float
    dents: float
    pepper: float
    clearance: float
    light: str
    lighting: Lighting
    camera: Camera


def draw_conditions(rng: np.random.Generator) -> Conditions:
    """Draw the look of one picture."""
    mask = str(rng.choice(list(MASKS), p=[0.72, 0.2, 0.015, 0.055, 0.01]))
    finish = str(rng.choice(list(FINISHES), p=[0.65, 0.25, 0.1]))
    body = str(rng.choice(list(BODIES)))
    light = str(rng.choice(LIGHTS, p=[0.5, 0.15, 0.2, 0.05, 0.1]))
    tint = rng.uniform(0.94, 1.0, 3)
    red, green, blue = _vary(rng, MASKS[mask], 0.15)
    shine = float(rng.uniform(0.25, 0.65))
    haze = float(rng.uniform(0.0, 0.03))
    return Conditions(
        mask=mask,
        mask_colour=(red, green, blue),
        ground=(1.2 * red + haze, 1.2 * green + haze, 1.2 * blue + haze),
        finish=finish,
        finish_colour=FINISHES[finish],
        body=body,
        body_colour=_vary(rng, BODIES[body], 0.15),
        solder_colour=(0.66 * tint[0], 0.65 * tint[1], 0.63 * tint[2]),
        solder_roughness=float(rng.uniform(0.08, 0.25)),
        film=float(rng.uniform(0.0, 0.07)),
        grain=float(np.exp(rng.uniform(np.log(0.0004), np.log(0.003)))),
        streaks=float(0.12 * rng.random() ** 2),
        facets=float(0.008 * rng.random() ** 2),
        tin=(shine, shine * float(rng.uniform(0.95, 1.0)), shine * float(rng.uniform(0.9, 1.0))),
        tin_roughness=float(rng.uniform(0.12, 0.35)),
        dents=float(rng.uniform(0.0, 0.016)),
        pepper=float(rng.uniform(0.0, 0.004)),
        clearance=float(rng.uniform(0.0, 0.05)),
        light=light,
        lighting=_lighting(rng, light),
        camera=_camera(rng),
    )


def _vary(rng: np.random.Generator, colour: RGB, sigma: float) -> RGB:
    """Another batch of the same paint: brightness and hue wander."""
    gain = np.exp(rng.normal(0, sigma) + rng.normal(0, sigma / 3, 3))
    red, green, blue = np.minimum(np.array(colour) * gain, 0.8)
    return float(red), float(green), float(blue)


def _cast(rng: np.random.Generator, sigma: float) -> NDArray[np.float32]:
    """A light's colour with unit mean: along warm-cold mostly, a little green-magenta."""
    warm, tint = rng.normal(0, sigma), rng.normal(0, sigma / 3)
    colour = np.exp(np.array([warm, tint, -warm]))
    return np.asarray(colour / colour.mean(), dtype=np.float32)


def _direction(polar: float, azimuth: float) -> NDArray[np.float32]:
    sin = np.sin(polar)
    return np.array([sin * np.cos(azimuth), sin * np.sin(azimuth), np.cos(polar)], np.float32)


def _lighting(rng: np.random.Generator, kind: str) -> Lighting:
    cast = _cast(rng, 0.03)
    azimuth = float(rng.uniform(-np.pi, np.pi))
    tilt = abs(float(rng.normal(0, 0.12)))  # no lamp hangs exactly above the joint

    def lobe(cosine: float, width: float, radiance: float, lean: float = 0.0) -> Lobe:
        return Lobe(_direction(tilt, azimuth), cosine, width, cast * np.float32(radiance), lean, azimuth)

    def lamp(polar: float, turn: float, irradiance: float) -> Lamp:
        colour = cast * _cast(rng, 0.05) * np.float32(irradiance)
        return Lamp(_direction(polar, turn), colour, radius=float(rng.uniform(0.05, 0.2)))

    lamps: list[Lamp] = []
    if kind == "coaxial":
        lobes = [lobe(1.0, rng.uniform(0.08, 0.35), 1.0), lobe(0.2, 0.3, rng.uniform(0, 0.3), lean=0.8)]
        ambient = rng.uniform(0.02, 0.08)
    elif kind == "dome":
        lobes = [lobe(0.9, rng.uniform(0.2, 0.5), 1.0, lean=rng.uniform(0, 0.5))]
        ambient = rng.uniform(0.04, 0.15)
    elif kind == "ring":
        polar = rng.uniform(0.35, 0.9)
        lobes = [lobe(float(np.cos(polar)), rng.uniform(0.08, 0.2), 1.0, lean=rng.uniform(0, 0.3))]
        count = int(rng.integers(6, 11))
        lamps = [lamp(polar, azimuth + 2 * np.pi * i / count, 1.2 / count) for i in range(count)]
        ambient = rng.uniform(0.04, 0.15)
    elif kind == "side":
        lobes = [lobe(0.7, 0.35, 0.7, lean=0.9)]
        lamps = [lamp(rng.uniform(0.6, 1.1), azimuth + turn, 0.8) for turn in (0.0, rng.normal(0, 0.6))]
        ambient = rng.uniform(0.15, 0.3)
    else:
        lobes = [
            lobe(1.0, rng.uniform(0.1, 0.4), rng.uniform(0.5, 1.0)),
            lobe(0.3, 0.25, rng.uniform(0.1, 0.5), 0.7),
        ]
        lamps = [lamp(rng.uniform(0.1, 0.8), rng.uniform(-np.pi, np.pi), rng.uniform(0.3, 1.0)) for _ in range(2)]
        ambient = rng.uniform(0.08, 0.25)
    return Lighting(tuple(lobes), tuple(lamps), cast * np.float32(ambient), float(rng.uniform(-0.1, 0.35)))


def _camera(rng: np.random.Generator) -> Camera:
    short = int(np.clip(round(float(np.exp(rng.normal(np.log(36), 0.22)))), 20, 200))
    aspect = 1.0 if rng.random() < 0.6 else float(rng.uniform(1.0, 1.45))
    long = min(round(short * aspect), 200)
    size = (short, long) if rng.random() < 0.5 else (long, short)
    return Camera(
        size=size,
        clipped=float(rng.uniform(0.1, 0.38)),
        gain=float(np.exp(rng.normal(0.0, 0.25))),
        blur=float(rng.uniform(0.3, 0.8)) * max(short / 36, 0.8),
        fringe=(float(rng.normal(0, 0.25)), float(rng.normal(0, 0.25))),
        balance=_cast(rng, 0.03),
        contrast=float(rng.uniform(1.0, 1.15)),
        saturation=float(rng.uniform(0.9, 1.5)),
        noise=float(np.exp(rng.uniform(np.log(0.002), np.log(0.008)))),
        sharpen=float(rng.uniform(0.3, 1.1)),
        quality=100 if rng.random() < 0.5 else int(rng.integers(80, 98)),
    )
