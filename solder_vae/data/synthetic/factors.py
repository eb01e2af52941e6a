"""Which generative factors of the embedded data set a latent space can be asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from solder_vae.utils.errors import UserError

Factor = NDArray[np.generic]

# Factors of the embedded data set (docs/research/synthetic.md) that vary among normal joints, can be seen at 64 x 64,
# and are drawn independently of each other, which MIG, SAP and DCI take for granted. Left out are:
# - `severity`, which is 0 on normal joints;
# - what follows from a listed factor: pad_length and the terminal's size from component, mask_red, mask_green and
#   mask_blue from mask_colour, light_elevation from light, light_blue from light_red, the native size from blur;
# - light_azimuth, which is a circle and shows only under the lamps that stand aside;
# - the body, which lies outside most frames;
# - what hardly shows: grain, contrast, saturation, sharpen, noise, jpeg_quality.
# `quarter_turn` is view_angle's multiple of 90 degrees.
NORMAL_FACTORS = (
    "component",
    "volume",
    "wetting_angle",
    "offset_x",
    "offset_y",
    "rotation",
    "view",
    "quarter_turn",
    "mask_colour",
    "finish",
    "solder_roughness",
    "light",
    "light_red",
    "clipped",
    "gain",
    "blur",
)


def normal_factors(factors: Mapping[str, Factor]) -> dict[str, Factor]:
    """The factors of :data:`NORMAL_FACTORS` from an image table's ``factors``.

    ``view_angle`` is four directions give or take a few degrees: its quarter turn, 0 to 3, is a category, because no
    axis runs through directions.

    Raises:
        UserError: factors are missing: the images are not of the embedded data set.
    """
    known = dict(factors)
    if "view_angle" in known:
        known["quarter_turn"] = np.round(known["view_angle"].astype(np.float64) / 90).astype(np.int64) % 4
    if missing := [name for name in NORMAL_FACTORS if name not in known]:
        raise UserError(
            f"The images' factors are unknown ({', '.join(missing)}), so disentanglement cannot be measured: "
            "use the embedded data set, data=synthetic."
        )
    return {name: known[name] for name in NORMAL_FACTORS}
