"""The solder's surface, its shading and the camera against closed forms and independent solvers."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from solder_vae.data.synthetic import canvas as drawing
from solder_vae.data.synthetic.camera import Camera, photograph
from solder_vae.data.synthetic.shading import Lamp, Lighting, Surfaces, normals, occlusion, shade, shadow
from solder_vae.data.synthetic.surface import meniscus, relax

DARK = np.zeros(3, np.float32)


def direct_solution(fixed, value, load):
    """laplace(u) = -load with mirrored edges, by a sparse LU factorisation."""
    height, width = fixed.shape
    index = np.arange(height * width).reshape(height, width)
    matrix = scipy.sparse.lil_matrix((height * width, height * width))
    right = np.zeros(height * width)
    for row in range(height):
        for column in range(width):
            here = index[row, column]
            if fixed[row, column]:
                matrix[here, here], right[here] = 1, value[row, column]
                continue
            around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            inside = [index[r, c] for r, c in around if 0 <= r < height and 0 <= c < width]
            matrix[here, here], right[here] = len(inside), load
            for there in inside:
                matrix[here, there] -= 1
    return scipy.sparse.linalg.spsolve(matrix.tocsr(), right).reshape(height, width)


def pad_with_terminal(size=64):
    plane = drawing.make_canvas((size, size), 1.6, (0.0, 0.5), 0.0)
    wetted = drawing.cover(drawing.box(plane, (0, 0.5), (0.5, 0.5)), plane.pixel)
    terminal = drawing.cover(drawing.box(plane, (0, 0.1), (0.35, 0.35)), plane.pixel)
    return plane, wetted, terminal


def test_relaxation_agrees_with_a_direct_solver():
    _, wetted, terminal = pad_with_terminal(48)
    fixed = (wetted < 0.5) | (terminal > 0.5)
    value = np.where(terminal > 0.5, 0.4, 0).astype(np.float32)
    both = relax(fixed, np.stack([value, 0 * value]), np.array([0, 1], np.float32))
    flat, bulge = direct_solution(fixed, value, 0), direct_solution(fixed, 0 * value, 1)
    assert np.abs(both[0] - flat).max() < 0.01 * 0.4
    assert np.abs(both[1] - bulge).max() < 0.01 * bulge.max()


def test_a_strip_bulges_as_a_parabola():
    # laplace(h) = -1 between two walls n cells apart: h = s (n - s) / 2.
    fixed = np.zeros((40, 40), bool)
    fixed[:, :5] = fixed[:, 34:] = True
    bulge = relax(fixed, np.zeros((1, 40, 40), np.float32), np.ones(1, np.float32))[0]
    s = np.clip(np.arange(40) - 4, 0, 30)
    np.testing.assert_allclose(bulge[20], s * (30 - s) / 2, atol=0.01 * 112.5)


@given(volume=st.floats(0.9, 3.0))
@settings(max_examples=20, deadline=None)
def test_the_volume_is_what_was_asked_for(volume):
    _, wetted, terminal = pad_with_terminal()
    climb = np.full_like(wetted, 0.4)

    def filled(share):
        surface = meniscus(wetted, terminal, climb, np.full_like(wetted, share), bare=0.1)
        return surface[(wetted > 0.5) & (terminal < 0.5)].sum()

    assert filled(volume) == pytest.approx(volume * filled(1.0), rel=0.03)


def test_little_solder_is_concave_and_much_is_convex():
    plane, wetted, terminal = pad_with_terminal()
    toe = (np.abs(plane.x) < 0.2) & (plane.y > 0.55) & (plane.y < 0.9)
    climb = np.full_like(wetted, 0.4)

    def curvature(volume):
        surface = meniscus(wetted, terminal, climb, np.full_like(wetted, volume), bare=0.1)
        return np.gradient(np.gradient(surface, axis=0), axis=0)[toe].mean()

    assert curvature(0.5) > 0 > curvature(2.5)


def test_joined_drops_share_their_solder():
    plane = drawing.make_canvas((80, 80), 3.2, (0.0, 0.5), 0.0)
    left, right = (drawing.box(plane, (x, 0.5), (0.5, 0.5)) for x in (-0.9, 0.9))
    volume = np.where(plane.x < 0, 0.5, 2.0).astype(np.float32)
    nothing = np.zeros_like(volume)

    def mean_heights(distance):
        surface = meniscus(drawing.cover(distance, plane.pixel), nothing, nothing, volume, bare=0.1)
        return surface[left < -0.1].mean(), surface[right < -0.1].mean()

    apart = mean_heights(np.minimum(left, right))
    joined = mean_heights(np.minimum(np.minimum(left, right), drawing.box(plane, (0, 0.5), (0.6, 0.3))))
    assert apart[1] / apart[0] == pytest.approx(4, rel=0.02)
    assert joined[1] / joined[0] == pytest.approx(1, rel=0.02)


@given(hnp.arrays(np.float32, (32, 32), elements=st.floats(0, 1, width=32)), st.floats(0.2, 3))
@settings(max_examples=20, deadline=None)
def test_a_surface_is_finite_and_not_below_the_pad(wetted, volume):
    some = np.full((32, 32), volume, np.float32)
    surface = meniscus(wetted, np.zeros_like(wetted), np.zeros_like(wetted), some, bare=0.1)
    assert np.isfinite(surface).all()
    assert (surface >= 0).all()


def test_normals_of_an_inclined_plane():
    slope, pixel = 0.5, 0.02
    height = np.tile(np.arange(20, dtype=np.float32) * slope * pixel, (20, 1))
    expected = np.array([-slope, 0, 1]) / np.hypot(slope, 1)
    np.testing.assert_allclose(normals(height, pixel)[:, 10, 10], expected, atol=1e-5)


@pytest.mark.parametrize("polar", [0.3, 0.6, 0.9])
def test_a_lamp_is_mirrored_where_the_normal_halves_the_angle(polar):
    # On a ball lit from the angle `polar` the highlight lies where the normal is inclined by polar / 2.
    plane = drawing.make_canvas((201, 201), 2.0, (0.0, 0.0), 0.0)
    ball = np.sqrt(np.maximum(1 - plane.x**2 - plane.y**2, 0)).astype(np.float32)
    metal = Surfaces(ball, np.zeros((201, 201, 3), np.float32), np.ones((201, 201, 3), np.float32), 0 * ball + 0.08)
    lamp = Lamp(np.array([np.sin(polar), 0, np.cos(polar)], np.float32), np.ones(3, np.float32), radius=0.0)
    radiance = shade(metal, Lighting((), (lamp,), DARK), (0, 0, 0), plane.pixel)[..., 1]
    row, column = np.unravel_index(radiance.argmax(), radiance.shape)
    assert plane.y[row, column] == pytest.approx(0, abs=0.02)
    assert plane.x[row, column] == pytest.approx(np.sin(polar / 2), abs=0.02)


def test_no_light_no_picture():
    _, wetted, _ = pad_with_terminal(32)
    surfaces = Surfaces(wetted, np.ones((32, 32, 3), np.float32), np.ones((32, 32, 3), np.float32), 0 * wetted + 0.3)
    assert shade(surfaces, Lighting((), (), DARK), (1, 1, 1), 0.05).max() == 0


def test_a_wall_casts_a_shadow_as_long_as_the_light_is_low():
    pixel, tall, elevation = 0.01, 0.2, np.radians(45)
    height = np.zeros((20, 100), np.float32)
    height[:, 60:] = tall
    to_light = np.array([np.cos(elevation), 0, np.sin(elevation)], np.float32)
    lit = shadow(height, pixel, to_light, steps=40)[10]
    dark = np.flatnonzero(lit[:60] < 0.5)
    assert 60 - dark.min() == pytest.approx(tall / np.tan(elevation) / pixel, abs=9)
    assert (lit[:30] > 0.9).all()


def test_the_foot_of_a_wall_sees_less_sky():
    height = np.zeros((40, 80), np.float32)
    height[:, 40:] = 0.5
    seen = occlusion(height, 0.02)[20]
    assert seen[5] > 0.98
    assert seen[38] < 0.7


def camera(**changes):
    settings = {
        "size": (40, 40), "clipped": 0.0, "gain": 1.0, "blur": 0.0, "fringe": (0.0, 0.0),
        "balance": np.ones(3, np.float32), "contrast": 1.0, "saturation": 1.0, "noise": 0.0, "sharpen": 0.0,
        "quality": 100,
    }  # fmt: skip
    return Camera(**(settings | changes))


def ramp(side=80):
    grey = np.tile(np.linspace(0.02, 1, side, dtype=np.float32), (side, 1))
    return np.repeat(grey[..., None], 3, axis=2)


@given(gain=st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_metering_undoes_the_strength_of_the_light(gain):
    rng = np.random.default_rng(0)
    picture = photograph(ramp(), camera(clipped=0.1), rng).astype(int)
    brighter = photograph(ramp() * np.float32(gain), camera(clipped=0.1), rng).astype(int)
    assert np.abs(picture - brighter).max() <= 1


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_metering_burns_out_the_share_it_is_told(share):
    picture = photograph(ramp(), camera(clipped=share), np.random.default_rng(0))
    assert (picture[..., 1] >= 254).mean() == pytest.approx(share, abs=0.04)


def test_middle_grey_is_srgb():
    flat = np.full((40, 40, 3), 1.0, np.float32)
    flat[:20] = 0.2140  # the linear value of sRGB 0.5 (IEC 61966-2-1)
    picture = photograph(flat, camera(), np.random.default_rng(0))
    assert picture[5, 20, 1] == pytest.approx(127.5, abs=1)


@pytest.mark.parametrize("size", [(20, 29), (80, 80), (200, 140)])
def test_native_size(size):
    radiance = ramp(96)[:, : round(96 * size[1] / size[0])] if size[0] >= size[1] else ramp(96)
    assert photograph(radiance, camera(size=size, quality=85), np.random.default_rng(0)).shape == (*size, 3)


def test_blur_and_noise_do_what_they_say():
    rng = np.random.default_rng(0)
    edge = np.full((80, 80, 3), 0.05, np.float32)
    edge[:, 40:] = 1
    sharp = photograph(edge, camera(), rng).astype(float)
    blurred = photograph(edge, camera(blur=2.0), rng).astype(float)
    noisy = photograph(edge, camera(noise=0.02), rng).astype(float)
    assert np.abs(np.diff(blurred[20, :, 1])).max() < 0.5 * np.abs(np.diff(sharp[20, :, 1])).max()
    assert noisy[:, :15].std() > 4 * sharp[:, :15].std() + 1
