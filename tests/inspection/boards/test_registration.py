"""The fit of board to picture recovers what made the points, and refuses what cannot be true."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from solder_vae.inspection.boards.registration import Fiducial, check_field, fit_affine, fit_homography, register
from solder_vae.utils.errors import UserError

SQUARE = np.array([[2.0, 3.0], [98.0, 4.0], [95.0, 78.0], [3.0, 75.0], [50.0, 40.0], [20.0, 60.0]])

angles = st.floats(-np.pi, np.pi)
scales = st.floats(5, 100)


def similarity(angle, scale, shift=(2000.0, 1500.0)):
    """Board to picture: turned, scaled, y flipped."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, sin, shift[0]], [sin, -cos, shift[1]], [0, 0, 1]])


def project(matrix, points):
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return mapped[:, :2] / mapped[:, 2:]


def fiducials(board, pixels):
    return [Fiducial(f"F{i}", tuple(b), tuple(p)) for i, (b, p) in enumerate(zip(board, pixels, strict=True), 1)]


@given(angles, scales, st.floats(-0.3, 0.3), st.integers(3, 6), st.floats(-1e4, 1e4))
def test_affine_recovers_what_made_the_points(angle, scale, shear, count, shift):
    true = similarity(angle, scale, (shift, -shift)) @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])
    found = fit_affine(SQUARE[:count], project(true, SQUARE[:count]))
    np.testing.assert_allclose(project(found, SQUARE), project(true, SQUARE), atol=1e-6)


@settings(deadline=None)
@given(angles, scales, st.floats(-2e-3, 2e-3), st.floats(-2e-3, 2e-3), st.integers(4, 6))
def test_homography_recovers_what_made_the_points(angle, scale, tilt_x, tilt_y, count):
    true = similarity(angle, scale) @ np.array([[1, 0, 0], [0, 1, 0], [tilt_x, tilt_y, 1]])
    assume((np.column_stack([SQUARE, np.ones(6)]) @ true[2] > 0.3).all())
    pixels = project(true, SQUARE[:count])
    found = fit_homography(SQUARE[:count], pixels)
    # OpenCV reads the points, less their middle, in single precision: each place is off by up to 2**-24 of the largest
    # distance from it, however near the origin it lies itself. 12,000 maps were off by 0.7 times that, 1.5 at most.
    rounding = 2.0**-24 * np.abs(pixels - pixels.mean(axis=0)).max()
    np.testing.assert_allclose(project(found, SQUARE), project(true, SQUARE), rtol=0, atol=4 * rounding)


@settings(deadline=None, max_examples=30)
@given(angles, scales, st.integers(0, 1000), st.floats(-1e4, 1e4))
def test_homography_is_that_of_an_optimiser_in_double_precision(angle, scale, seed, shift):
    rng = np.random.default_rng(seed)
    board = SQUARE + shift
    tilt = np.array([[1, 0, 0], [0, 1, 0], [2e-4, -1e-4, 1]])
    true = similarity(angle, scale) @ tilt
    pixels = project(true, SQUARE) + rng.normal(0, 1, SQUARE.shape)
    start = (true / true[2, 2]).ravel()[:8]
    best = least_squares(
        lambda h: (project(np.append(h, 1).reshape(3, 3), SQUARE) - pixels).ravel(),
        start,
        x_scale=np.abs(start),
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    ).x
    wanted = project(np.append(best, 1).reshape(3, 3), SQUARE)
    np.testing.assert_allclose(project(fit_homography(board, pixels), board), wanted, atol=2e-3)


@settings(deadline=None, max_examples=30)
@given(angles, scales, st.integers(0, 1000))
def test_fit_has_least_squares(angle, scale, seed):
    """No nearby map fits noisy points better: the residuals are a minimum, not merely small."""
    rng = np.random.default_rng(seed)
    pixels = project(similarity(angle, scale), SQUARE) + rng.normal(0, 2, SQUARE.shape)

    def cost(matrix):
        return ((project(matrix, SQUARE) - pixels) ** 2).sum()

    for fit, rows in ((fit_affine, 2), (fit_homography, 3)):
        best = fit(SQUARE, pixels)
        for _ in range(10):
            nudge = np.zeros((3, 3))
            nudge[:rows] = rng.normal(0, 1e-6, (rows, 3))
            assert cost(best @ (np.eye(3) + nudge) if rows == 3 else best + nudge * scale) >= cost(best) * (1 - 1e-9)


def test_homography_fits_a_tilted_camera_that_an_affine_map_does_not():
    true = similarity(0.02, 20) @ np.array([[1, 0, 0], [0, 1, 0], [1.5e-3, 0, 1]])
    marks = fiducials(SQUARE, project(true, SQUARE))
    assert register(marks, "homography").residuals.max() < 1e-4
    with pytest.raises(UserError, match="fit=homography"):
        register(marks, "affine")


def test_residuals_are_told_and_zero_by_necessity_is_said():
    pixels = project(similarity(0.1, 30), SQUARE)
    pixels[4] += [2.0, 0]
    told = str(register(fiducials(SQUARE, pixels)))
    assert re.search(r"F5 +1\.\d\d px", told)
    assert "zero by necessity" not in told
    assert "zero by necessity" in str(register(fiducials(SQUARE[:3], pixels[:3])))


def test_scales_are_pixels_per_millimetre():
    located = register(fiducials(SQUARE, project(similarity(0.7, 42.0), SQUARE)))
    np.testing.assert_allclose(located.scales(SQUARE), 42.0, rtol=1e-6)
    assert not located.mirrors


LINE = np.array([[0.0, 0.0], [10.0, 10.0], [30.0, 30.0], [20.0, 20.0]])


@pytest.mark.parametrize(
    ("board", "typed", "moved", "fit", "message"),
    [
        (SQUARE[:2], 1, {}, "affine", "2 fiducials are given, but fit=affine needs 3"),
        (SQUARE[:3], 1, {}, "homography", "3 fiducials are given, but fit=homography needs 4"),
        (SQUARE, 1, {}, "spline", "fit=spline is unknown"),
        (LINE, 1, {}, "affine", "all lie in one line on the board"),
        (np.vstack([LINE[:3], [[5.0, 40.0]]]), 1, {}, "homography", "all but one lie in one line"),
        (SQUARE[[0, 1, 0]], 1, {}, "affine", "F1 and F3 are in the same place on the board"),
        (SQUARE, 1, {2: (1.0, 1.0), 3: (1.0, 1.0)}, "affine", "F3 and F4 are in the same place in the picture"),
        (SQUARE, 1, {2: (9000.0, 100.0)}, "affine", "mm from where the fit puts it"),
        (SQUARE, 1 / 0.0254, {}, "affine", "pixels per millimetre"),
        (SQUARE, 1 / 25.4, {}, "affine", "pixels per millimetre"),
        (SQUARE, np.array([0.2, 1]), {}, "affine", "different units"),
    ],
)
def test_what_cannot_be_true_is_refused(board, typed, moved, fit, message):
    pixels = project(similarity(0.0, 40), board)
    for row, place in moved.items():
        pixels[row] = place
    with pytest.raises(UserError, match=message):
        register(fiducials(board * typed, pixels), fit)


@pytest.mark.parametrize("unit", [0.0254, 25.4])
@pytest.mark.parametrize(("scale", "field"), [(20.0, 250.0), (60.0, 100.0), (200.0, 30.0)])
def test_no_common_picture_passes_with_fiducials_in_other_units(unit, scale, field):
    """Whatever the resolution, either the scale or the field of view gives mils and inches away."""
    board = SQUARE / 100 * field
    pixels = project(similarity(0.0, scale), board)
    check_field(register(fiducials(board, pixels)), round(scale * field))
    with pytest.raises(UserError, match="millimetres"):
        check_field(register(fiducials(board / unit, pixels)), round(scale * field))
