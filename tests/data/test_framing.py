"""Letterboxed pictures against pictures padded by hand; what the square cuts off; that it travels to every use."""

import logging

import cv2
import numpy as np
import pytest
import torch
from checkpoints import SIZE, pictures, write_checkpoint, write_images
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae.data.controlled import controlled_batch
from solder_vae.data.folder import FolderSource
from solder_vae.data.framing import LETTERBOX, ROUND_UP, SQUARE, cut_off
from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.data.transforms import CONTROLLED, PLAIN, VIEWS, apply_view, prepare, prepare_mask
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.onnx.graph import InspectionGraph
from solder_vae.inspection.onnx.resize import prepare_batch
from solder_vae.studies.audit.examine import audit
from solder_vae.studies.audit.verdict import verdict
from solder_vae.utils.errors import UserError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def padded(image):
    """The picture in the middle of a square of its own pixels, the rest in the mean of its longer edges."""
    height, width = image.shape[:2]
    side = max(height, width)
    edges = np.concatenate([image[0], image[-1]] if width > height else [image[:, 0], image[:, -1]])
    square = np.tile(np.floor(edges.mean(0) + 0.5).astype(np.uint8), (side, side, 1))
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


# Shapes whose bars end between pixels of the result, so that padding first and resizing then must give the same.
@pytest.mark.parametrize("shape", [(64, 128), (128, 32), (96, 192), (64, 16), (64, 64), (16, 32)])
@pytest.mark.parametrize("view", VIEWS)
def test_a_letterbox_is_the_square_of_the_padded_picture(shape, view):
    image = cv2.resize(noise(4, 6, seed=shape[0]), shape[::-1], interpolation=cv2.INTER_LINEAR)
    size = 16
    expected = apply_view(padded(image), size, view)
    got = apply_view(image, size, view, LETTERBOX)
    if view == CONTROLLED and shape[0] != shape[1]:  # there the fill is not rounded
        assert np.abs(got.astype(int) - expected).max() <= 4
    else:  # halves of a grey level always go up in a letterbox
        assert np.abs(got.astype(int) - expected).max() <= 1
        assert (got != expected).mean() < 0.08


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 120), st.integers(2, 120), st.sampled_from([16, 64]), st.integers(0, 99))
def test_the_whole_picture_is_there_and_the_rest_has_one_colour(height, width, size, seed):
    image = noise(height, width, seed)
    square = prepare(image, size, LETTERBOX)
    mask = prepare_mask(np.ones((height, width), bool), size, LETTERBOX)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert max(len(rows), len(columns)) == size
    assert min(len(rows), len(columns)) == pytest.approx(size * min(height, width) / max(height, width), abs=1)
    inner = square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if size < max(height, width):
        exact = cv2.resize(image.astype(np.float64), (len(columns), len(rows)), interpolation=cv2.INTER_AREA)
        assert np.abs(inner - exact).max() <= 0.5 + 1e-3  # rounded, halves of a grey level either way
    else:  # OpenCV rounds after each axis
        expected = cv2.resize(image, (len(columns), len(rows)), interpolation=cv2.INTER_LINEAR)
        assert np.abs(inner.astype(int) - expected).max() <= 1
        assert (inner != expected).mean() < 0.05
    assert len(np.unique(square[~mask], axis=0)) <= 1
    assert abs(rows[0] - (size - 1 - rows[-1])) <= 1  # in the middle
    assert abs(columns[0] - (size - 1 - columns[-1])) <= 1


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 200), st.integers(2, 200), st.sampled_from([16, 64]), st.integers(0, 99))
def test_the_graphs_operations_do_the_same(height, width, size, seed):
    images = np.stack([noise(height, width, seed), noise(height, width, seed + 1)])
    ours = prepare_batch(torch.from_numpy(images), size, LETTERBOX).numpy()
    difference = np.abs(ours - np.stack([prepare(image, size, LETTERBOX) for image in images]))
    assert difference.max() <= 1
    if size < max(height, width):  # single precision decides differently only where the mean lies on the limit
        mask = prepare_mask(np.ones((height, width), bool), size, LETTERBOX)
        shape = (int(mask.any(0).sum()), int(mask.any(1).sum()))
        for image, apart in zip(images, difference, strict=True):
            exact = cv2.resize(image.astype(np.float64), shape, interpolation=cv2.INTER_AREA)
            over = (exact + ROUND_UP) % 1
            inside = apart[mask].reshape(exact.shape) > 0
            assert np.minimum(over, 1 - over)[inside].max(initial=0) < 1e-4
            assert not apart[~mask].any()
    else:
        assert (difference > 0).sum() <= 1
    seen = controlled_batch(torch.from_numpy(images), size, LETTERBOX).numpy()
    assert np.array_equal(seen, np.stack([apply_view(image, size, CONTROLLED, LETTERBOX)[..., 0] for image in images]))


@pytest.mark.parametrize("make", [lambda **o: FolderSource(".", **o), SyntheticSource])
def test_unknown_crops_are_refused(make):
    with pytest.raises(UserError, match=r"data\.crop=whole is unknown: use square or letterbox"):
        make(crop="whole")


def test_what_the_square_cuts_off():
    sizes = [(40, 40)] * 8 + [(40, 80), (90, 30)]
    assert cut_off(sizes) == (
        "20 % of the images are longer than 1.5:1, and the central square cuts off 58 % of their area: "
        "data.crop=letterbox shows them whole."
    )
    assert cut_off([(40, 40)] * 9 + [(40, 80)]) == ""  # a tenth
    assert cut_off([(40, 60)] * 10) == ""  # not longer than 1.5:1
    assert cut_off([]) == ""


@pytest.fixture
def long_boxes(tmp_path):
    images = [np.ascontiguousarray(image[:20]) for image in pictures(30, 40)]
    write_images(tmp_path / "normal", images[:24])
    write_images(tmp_path / "short", images[24:])
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("view", [PLAIN, CONTROLLED])
def test_folder_tables_and_the_audit_see_the_crop(long_boxes, view, caplog):
    tables = FolderSource(long_boxes, image_size=SIZE, view=view, crop=LETTERBOX).tables()
    again = FolderSource(long_boxes, image_size=SIZE, view=view, crop=LETTERBOX, cache_mb=0).tables()
    for split, table in tables.items():
        for path, image, decoded_again in zip(table.paths, table.images, again[split].images, strict=True):
            photo = cv2.imread(path, cv2.IMREAD_COLOR_RGB)
            assert np.array_equal(image, apply_view(photo, SIZE, view, LETTERBOX))
            assert np.array_equal(image, decoded_again)
    caplog.set_level(logging.ERROR)
    found = {crop: audit(FolderSource(long_boxes, image_size=SIZE, crop=crop)) for crop in (SQUARE, LETTERBOX)}
    said = {crop: [f"{each.title} {each.text}" for each in verdict(result)] for crop, result in found.items()}
    assert any("100 % of the images are longer" in text and "data.crop=letterbox" in text for text in said[SQUARE])
    assert not any("longer than" in text for text in said[LETTERBOX])
    first = found[LETTERBOX].items[0]
    photo = cv2.imread(first.name, cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(found[LETTERBOX].pictures[view][0], apply_view(photo, SIZE, view, LETTERBOX))


def test_synthetic_sets_are_cached_apart(tmp_path):
    counts = {"train": 3, "val": 2, "test_normal": 2, "test_abnormal": 2}
    square, whole = (
        SyntheticSource(16, **counts, cache_dir=tmp_path, render_workers=1, crop=crop).tables()
        for crop in (SQUARE, LETTERBOX)
    )
    assert len(list(tmp_path.glob("*.bin"))) == 2
    assert not all(np.array_equal(square[split].images, whole[split].images) for split in square)
    for split, table in whole.items():
        assert np.array_equal(table.native_size, square[split].native_size)


@pytest.mark.parametrize("view", [PLAIN, CONTROLLED])
def test_inspector_and_graph_see_the_checkpoints_crop(tmp_path, view):
    path, network = write_checkpoint(tmp_path / "a.ckpt", "cae", "recon")
    network.preprocessing = {"image_size": SIZE, "view": view, "crop": LETTERBOX}
    inspector = Inspector(network)
    images = np.ascontiguousarray(pictures(12, 40, seed=3)[:, :20])
    verdicts = inspector.score(images)
    for image, result in zip(images, verdicts, strict=True):
        assert np.array_equal(result.image, apply_view(image, SIZE, view, LETTERBOX))
    scores, labels, maps = InspectionGraph(inspector)(torch.from_numpy(images))
    np.testing.assert_allclose(scores.detach().numpy(), [result.score for result in verdicts], rtol=1e-5)
    assert labels.tolist() == [int(result.abnormal) for result in verdicts]
    np.testing.assert_allclose(maps.detach().numpy(), [result.heat_map for result in verdicts], atol=1e-3)
    assert Inspector.load(path).crop == SQUARE  # a checkpoint from before
    network.preprocessing = {"image_size": SIZE, "crop": "whole"}
    with pytest.raises(UserError, match="whole"):
        Inspector(network)
