"""What was made fast gives the very bytes of its plain form."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae.data.synthetic import canvas as drawing
from solder_vae.data.synthetic import painting, surface
from solder_vae.data.synthetic.conditions import draw_conditions
from solder_vae.data.synthetic.scene import CHIP, GULL_WING, draw_joint, draw_scene
from solder_vae.data.synthetic.shading import Surfaces, planes


def plain_relax(fixed, value, load):
    """Every sweep over the whole grid, where the cells of the other colour take a step of 0."""
    height, width = fixed.shape
    large = min(height, width) >= 2 * surface._COARSEST
    start = np.zeros_like(value)
    if large:
        coarse = plain_relax(fixed[::2, ::2], value[:, ::2, ::2], load * np.float32(4))
        start = np.stack([cv2.resize(u, (width, height), interpolation=cv2.INTER_LINEAR) for u in coarse])
    padded = np.pad(np.where(fixed, value, start), ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = padded[:, 1:-1, 1:-1]
    odd = (np.add.outer(np.arange(height), np.arange(width)) % 2).astype(bool)
    steps = [np.where(fixed | colour, 0, surface._OVERRELAX).astype(np.float32) for colour in (odd, ~odd)]
    for _ in range(surface._SWEEPS if large else 3 * surface._SWEEPS):
        for step in steps:
            around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
            inner += step * (np.float32(0.25) * (around + load[:, None, None]) - inner)
        padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]
        padded[:, :, 0], padded[:, :, -1] = padded[:, :, 1], padded[:, :, -2]
    return inner


@given(st.integers(8, 60), st.integers(8, 60), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_relaxation(height, width, problems, seed):
    rng = np.random.default_rng(seed)
    fixed = rng.random((height, width)) < 0.3
    value = rng.random((problems, height, width), dtype=np.float32)
    load = rng.uniform(-1, 1, problems).astype(np.float32)
    np.testing.assert_array_equal(surface.relax(fixed, value, load), plain_relax(fixed, value, load))


@pytest.mark.parametrize("empty", [False, True])
def test_paint(empty):
    rng = np.random.default_rng(0)
    shape = (20, 31)
    cover = rng.random(shape, dtype=np.float32) * np.float32(not empty)
    diffuse, f0 = (rng.random((*shape, 3), dtype=np.float32) for _ in range(2))
    roughness, rough = (rng.random(shape, dtype=np.float32) for _ in range(2))
    painted = Surfaces(np.zeros(shape, np.float32), planes(shape), planes(shape), roughness.copy())
    painted.diffuse[...], painted.f0[...] = diffuse, f0
    painted.paint(cover, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7), rough)
    for field, before, colour in ((painted.diffuse, diffuse, (0.2, 0.3, 0.4)), (painted.f0, f0, (0.5, 0.6, 0.7))):
        expected = before + cover[..., None] * (np.asarray(colour, np.float32) - before)
        np.testing.assert_array_equal(field, expected)
    np.testing.assert_array_equal(painted.roughness, roughness + cover * (rough - roughness))


def test_a_remembered_texture_is_the_one_drawn():
    fields = [drawing.noise(np.random.default_rng(seed), (40, 50), 6) for seed in (1, 2, 1)]
    grid = np.random.default_rng(1).standard_normal((8, 8), dtype=np.float32)
    expected = cv2.resize(grid, (50, 40), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(fields[0], expected)
    np.testing.assert_array_equal(fields[2], expected)
    assert not np.array_equal(fields[1], expected)
    with pytest.raises(ValueError, match="read-only"):
        fields[2] += 1


@pytest.mark.parametrize("kind", [CHIP, GULL_WING])
def test_a_terminal_beyond_the_frame_is_left_out_and_one_at_its_edge_is_not(kind, monkeypatch):
    rng = np.random.default_rng(3)
    joint, look, scene = draw_joint(rng, kind), draw_conditions(rng), draw_scene(rng)
    canvas = drawing.make_canvas((96, 96), 1.2, (0, 0.5), 0.0)
    skipped = 0
    for x in np.linspace(0.8, 1.6, 17):
        results = []
        for beside in (painting._BESIDE, np.inf):
            monkeypatch.setattr(painting, "_BESIDE", beside)
            surfaces = painting.paint_board(canvas, scene, look, np.random.default_rng(5))
            painting.paint_component(surfaces, canvas, joint, look, np.random.default_rng(6), x)
            results.append(surfaces)
            monkeypatch.undo()
        for name in ("height", "diffuse", "f0", "roughness"):
            np.testing.assert_array_equal(*(getattr(result, name) for result in results))
        skipped += painting.terminal_distance(canvas, joint, x).min() >= painting._BESIDE
    assert 0 < skipped < 17
