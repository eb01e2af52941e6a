"""Where board coordinates (millimetres) lie in a picture (pixels): a least-squares fit to fiducials, and its checks.

Three fiducials fix an affine map, four a homography (which a tilted camera needs). With more fiducials the fit can
be checked: the remaining distances show how far it is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from solder_vae.utils.checks import check_choice
from solder_vae.utils.errors import UserError

AFFINE, HOMOGRAPHY = "affine", "homography"
NEEDED = {AFFINE: 3, HOMOGRAPHY: 4}

PIXELS_PER_MM = (3.0, 500.0)
"""Under 3 px/mm a joint is a handful of pixels, over 500 px/mm it fills the picture: outside, the units are wrong."""

FIELD_MM = (5.0, 700.0)
"""Widths that a picture of a board may have: outside, the units are wrong."""

LARGEST_RESIDUAL_MM = 0.2
"""Fiducials that miss by more are mistyped, swapped or in mixed units: the crops would miss the joints."""

_LARGEST_ASPECT = 3.0  # of the scales along and across: a camera tilted by 70 degrees
_THIN = 0.02  # a set of points this much narrower than long counts as a line

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Fiducial:
    """A mark whose place is known on the board, ``(x, y)`` in millimetres, and in the picture, ``(x, y)`` in pixels."""

    name: str
    board: tuple[float, float]
    pixel: tuple[float, float]


@dataclass(frozen=True)
class Registration:
    """A map from board to picture.

    Attributes:
        fit: "affine" or "homography".
        matrix: ``(3, 3)``, for homogeneous coordinates.
        fiducials: what it was fitted to.
    """

    fit: str
    matrix: Points
    fiducials: tuple[Fiducial, ...]

    def to_pixels(self, board: Points) -> Points:
        """Board points ``(N, 2)`` in millimetres to pixels ``(N, 2)``; NaN beyond a homography's horizon."""
        mapped = np.column_stack([board, np.ones(len(board))]) @ self.matrix.T
        depth = np.where(mapped[:, 2:] > 0, mapped[:, 2:], np.nan)
        return np.asarray(mapped[:, :2] / depth)

    @property
    def residuals(self) -> Points:
        """Distance of each fiducial from where the fit puts it, ``(N,)`` in pixels."""
        found = self.to_pixels(np.array([fiducial.board for fiducial in self.fiducials]))
        return np.asarray(np.linalg.norm(found - [fiducial.pixel for fiducial in self.fiducials], axis=1))

    def scales(self, at: Points) -> Points:
        """Pixels per millimetre at board points ``(N, 2)``: largest and smallest over the directions, ``(N, 2)``."""
        step = 1e-3
        columns = [(self.to_pixels(at + step * axis) - self.to_pixels(at)) / step for axis in np.eye(2)]
        slopes: Points = np.stack(columns, axis=2)
        seen = np.asarray(np.isfinite(slopes).all(axis=(1, 2)))
        values = np.linalg.svd(np.where(seen[:, None, None], slopes, 0.0), compute_uv=False)
        return np.where(seen[:, None], values, np.nan)

    @property
    def mirrors(self) -> bool:
        """Whether the picture shows the board, whose y points up, as in a mirror."""
        return bool(np.linalg.det(self.matrix) > 0)  # the picture's y points down, so the plain view flips once

    def __str__(self) -> str:
        """The residuals as a table."""
        lines = [f"{self.fit} fit to {len(self.fiducials)} fiducials; left over:"]
        lines += [
            f"  {fiducial.name:12} {residual:8.2f} px"
            for fiducial, residual in zip(self.fiducials, self.residuals, strict=True)
        ]
        if len(self.fiducials) == NEEDED[self.fit]:
            lines.append(f"  (zero by necessity: {NEEDED[self.fit] + 1} fiducials or more would tell how good it is)")
        return "\n".join(lines)


def register(fiducials: Sequence[Fiducial], fit: str = AFFINE) -> Registration:
    """Fit a map to fiducials and check that it can be true.

    Raises:
        UserError: too few fiducials, two in one place, all (or for a homography all but one) in a line, a scale that
            no camera has, or residuals so large that there must be a mistake.
    """
    check_choice("fit", fit, [*NEEDED])
    if len(fiducials) < NEEDED[fit]:
        raise UserError(f"{len(fiducials)} fiducials are given, but fit={fit} needs {NEEDED[fit]}: add some.")
    _check_distinct(fiducials)
    board = np.array([fiducial.board for fiducial in fiducials], np.float64)
    pixels = np.array([fiducial.pixel for fiducial in fiducials], np.float64)
    for points, where in ((board, "on the board"), (pixels, "in the picture")):
        if not _spans(points, NEEDED[fit]):
            most = "all" if fit == AFFINE else "all but one"
            raise UserError(f"The fiducials do not fix the fit: {most} lie in one line {where}; use others.")
    matrix = fit_affine(board, pixels) if fit == AFFINE else fit_homography(board, pixels)
    registration = Registration(fit, matrix, tuple(fiducials))
    _check_plausible(registration, board)
    return registration


def fit_affine(board: Points, pixels: Points) -> Points:
    """The affine map ``(3, 3)`` with the smallest sum of squared residuals, from N >= 3 points ``(N, 2)`` each."""
    center = board.mean(axis=0)  # centred, the normal equations stay well conditioned far from the origin
    design = np.column_stack([board - center, np.ones(len(board))])
    rows = np.linalg.lstsq(design, pixels, rcond=None)[0].T
    return np.vstack([rows @ _translation(-center), [0, 0, 1]])


def fit_homography(board: Points, pixels: Points) -> Points:
    """The homography ``(3, 3)`` with the smallest sum of squared residuals, from N >= 4 points ``(N, 2)`` each.

    The points are in front of the camera. NaN where OpenCV finds none.
    """
    # OpenCV computes in single precision, which suffices near the origin only; and what it scales to 1 is then the
    # depth of the points' middle, so that no sign is left to choose.
    center, middle = board.mean(axis=0), pixels.mean(axis=0)
    matrix, _ = cv2.findHomography(board - center, pixels - middle, 0)
    return _translation(middle) @ (np.full((3, 3), np.nan) if matrix is None else matrix) @ _translation(-center)


def _translation(by: Points) -> Points:
    return np.array([[1, 0, by[0]], [0, 1, by[1]], [0, 0, 1]])


def _check_distinct(fiducials: Sequence[Fiducial]) -> None:
    for first, second in combinations(fiducials, 2):
        for where, one, other in (
            ("on the board", first.board, second.board),
            ("in the picture", first.pixel, second.pixel),
        ):
            if one == other:
                raise UserError(f"Fiducials {first.name} and {second.name} are in the same place {where}: mend one.")


def _spans(points: Points, needed: int) -> bool:
    """Whether some 3 points make a triangle that is not thin, or some 4 a quadrilateral without three in a line."""
    triangles = {
        corners: not _in_line(points[list(corners)]) for corners in combinations(range(min(len(points), 12)), 3)
    }
    if needed == 3:
        return any(triangles.values())
    return any(
        all(triangles[three] for three in combinations(four, 3))
        for four in combinations(range(min(len(points), 12)), 4)
    )


def _in_line(points: Points) -> bool:
    long, short = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[:2]
    return bool(short < _THIN * long)


def check_field(registration: Registration, width: int) -> None:
    """Check that a picture ``width`` pixels wide shows as much of a board as pictures do.

    Raises:
        UserError: it does not, so the fiducials' board coordinates are not in millimetres.
    """
    board = np.array([fiducial.board for fiducial in registration.fiducials])
    field = width / float(np.median(registration.scales(board)))
    if not FIELD_MM[0] <= field <= FIELD_MM[1]:
        raise UserError(
            f"By the fiducials the picture is {field:.3g} mm wide, outside {FIELD_MM[0]:g} to {FIELD_MM[1]:g}: "
            "board_x and board_y must be in millimetres (1 mil = 0.0254 mm, 1 inch = 25.4 mm)."
        )


def _check_plausible(registration: Registration, board: Points) -> None:
    scales = registration.scales(board)
    if not np.isfinite(scales).all():
        raise UserError("No camera sees the fiducials like this: some are swapped or mistyped; check the file.")
    low, high = PIXELS_PER_MM
    typical = float(np.median(scales))
    if not low <= typical <= high:
        raise UserError(
            f"The fit gives {typical:.3g} pixels per millimetre, outside {low:g} to {high:g}: board_x and board_y must "
            "be in millimetres (1 mil = 0.0254 mm, 1 inch = 25.4 mm), pixel_x and pixel_y in pixels of this picture."
        )
    residuals = registration.residuals / scales.mean(axis=1)
    worst = int(residuals.argmax())
    if residuals[worst] > LARGEST_RESIDUAL_MM:
        raise UserError(
            f"Fiducial {registration.fiducials[worst].name} is {residuals[worst]:.2g} mm from where the fit puts it "
            f"(allowed {LARGEST_RESIDUAL_MM:g}): fiducials are swapped, mistyped or in mixed units, or the camera was "
            f"tilted, which needs fit=homography.\n{registration}"
        )
    if float((scales[:, 0] / scales[:, 1]).max()) > _LARGEST_ASPECT:
        raise UserError(
            f"The fit stretches the board {float((scales[:, 0] / scales[:, 1]).max()):.3g} times more one way than the "
            "other: x and y are in different units, or fiducials are swapped or mistyped; check the file."
        )
