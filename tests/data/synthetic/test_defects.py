"""The shapes that process engineers know defects by, measured on the surfaces before any light falls on them."""

from dataclasses import replace

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae.data.synthetic import DEFECTS
from solder_vae.data.synthetic.canvas import make_canvas
from solder_vae.data.synthetic.defects.amount import saddle
from solder_vae.data.synthetic.painting import pad_distance
from solder_vae.data.synthetic.scene import draw_scene

seeds = st.integers(0, 2**31)
severities = st.floats(0, 1)


def pair_of_pads(seed):
    """A scene with a neighbour to the right alone, a canvas over both pads, and the distance to them."""
    scene = draw_scene(np.random.default_rng(seed))
    scene = replace(scene, neighbours=((scene.pitch, scene.joint),))
    plane = make_canvas((160, 160), 1.25 * max(scene.pitch + 1, scene.joint.pad_length), (scene.pitch / 2, 0.5), 0.0)
    plane = replace(plane, y=plane.y + np.float32(scene.joint.pad_length / 2 - 0.5))
    return scene, plane, np.minimum(*(pad_distance(plane, scene.joint, x) for x in (0.0, scene.pitch)))


def value_at(field, plane, x, y):
    return field.flat[np.argmin((plane.x - x) ** 2 + (plane.y - y) ** 2)]


@given(seeds, severities)
@settings(max_examples=30, deadline=None)
def test_a_bridge_joins_both_pads_by_a_saddle(seed, severity):
    scene, plane, pads = pair_of_pads(seed)
    bridge = DEFECTS["bridge"](severity, np.random.default_rng(seed))
    middle = scene.joint.pad_length / 2

    def joined(distance):
        drops = cv2.connectedComponents((distance < 0).astype(np.uint8))[1]
        return value_at(drops, plane, 0, middle) == value_at(drops, plane, scene.pitch, middle)

    assert not joined(pads)
    wet = bridge.on_wetting(plane, scene, pads)
    assert joined(wet)
    web = saddle(plane, scene, side=1.0, y=middle, half=0.1 + 0.4 * severity, lean=0.0)[1]
    # But for its lumps: along the ridge it sags between the pads; across, half way, it is one arch.
    ridge = {x: web[:, np.argmin(np.abs(plane.x[0] - x))] for x in (0.5, scene.pitch / 2, scene.pitch - 0.5)}
    across = ridge[scene.pitch / 2]
    assert across.max() < min(ridge[0.5].max(), ridge[scene.pitch - 0.5].max())
    top = int(across.argmax())
    assert (np.diff(across[: top + 1]) >= 0).all()
    assert (np.diff(across[top:]) <= 0).all()
    # Narrowest half way.
    assert (across > 0).sum() <= min((ridge[0.5] > 0).sum(), (ridge[scene.pitch - 0.5] > 0).sum())


@given(seeds, severities)
@settings(max_examples=30, deadline=None)
def test_excess_solder_bulges_over_the_pad_and_stops_short_of_the_next(seed, severity):
    scene, plane, pads = pair_of_pads(seed)
    excess = DEFECTS["excessive_solder"](severity, np.random.default_rng(seed))
    wet = (excess.on_wetting(plane, scene, pads) < 0).astype(np.uint8)
    count, drops = cv2.connectedComponents(wet)
    assert count == 3  # the board and two drops
    drop = (drops == value_at(drops, plane, 0, scene.joint.pad_length / 2)).astype(np.uint8)
    assert drop.sum() > (pad_distance(plane, scene.joint) < 0).sum()
    outline = cv2.findContours(drop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
    # Round, but for its lumps.
    assert cv2.contourArea(outline) > 0.9 * cv2.contourArea(cv2.convexHull(outline))


def test_some_frames_show_the_next_pad():
    """Bad or good: scenes are drawn before anything is known of a defect."""
    shown = []
    for seed in range(1000):
        scene = draw_scene(np.random.default_rng(seed))
        reach = [np.sign(x) * scene.center[0] + scene.view / 2 - (scene.pitch - 0.5) for x, _ in scene.neighbours]
        shown.append(max(reach) > 0.05)
    assert 0.15 < np.mean(shown) < 0.9
