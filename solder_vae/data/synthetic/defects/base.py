"""What a defect may change on the way from scene to surfaces."""

from __future__ import annotations

import numpy as np

from solder_vae.data.synthetic.canvas import Canvas, Field
from solder_vae.data.synthetic.scene import Scene
from solder_vae.data.synthetic.shading import Surfaces


class Defect:
    """A change to a good joint. The base class changes nothing.

    Attributes:
        name: the defect type in tables and on the command line.
        severity: in [0, 1].
        rng: the stream for the defect's own shape.
    """

    name = ""

    def __init__(self, severity: float, rng: np.random.Generator) -> None:
        self.severity = severity
        self.rng = rng

    def on_scene(self, scene: Scene) -> Scene:
        """Change what lies on the board: component and solder volume."""
        return scene

    def on_wetting(self, canvas: Canvas, scene: Scene, distance: Field) -> Field:
        """Change where solder wets: ``(H, W)`` signed distance to the wetted area, before the surface is solved."""
        return distance

    def on_height(self, canvas: Canvas, scene: Scene, height: Field, wetted: Field) -> tuple[Field, Field]:
        """Change the solved surface: ``(H, W)`` height over the pad and ``(H, W)`` wetted share of each pixel."""
        return height, wetted

    def on_surfaces(self, canvas: Canvas, scene: Scene, surfaces: Surfaces, wetted: Field) -> None:
        """Lay something over the finished scene, in place."""
