"""The criterion without abnormal images."""

import numpy as np
import pytest
from checkpoints import pictures, write_checkpoint

from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation.pseudo_defects import cut_paste, pseudo_defect_auroc, ranked_above


def test_each_copy_differs_in_one_rectangle_taken_from_itself():
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    copies = cut_paste(images)
    assert np.array_equal(copies, cut_paste(images))
    assert not np.array_equal(copies, cut_paste(images, seed=1))
    for image, copy in zip(images, copies, strict=True):
        changed = (image != copy).any(-1)
        ys, xs = np.nonzero(changed)
        box = copy[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        assert 0.01 < box[..., 0].size / image[..., 0].size < 0.2
        height, width = box.shape[:2]
        windows = np.lib.stride_tricks.sliding_window_view(image, (height, width, 3))[:, :, 0]
        assert (windows == box).all((2, 3, 4)).any()


def test_auroc_is_the_share_of_pairs():
    generator = np.random.default_rng(0)
    high, low = generator.integers(0, 6, 30).astype(float), generator.integers(0, 5, 20).astype(float)
    pairs = [(a > b) + 0.5 * (a == b) for a in high for b in low]
    assert ranked_above(high, low) == pytest.approx(np.mean(pairs))


def test_a_score_that_ignores_the_image_gets_one_half(tmp_path):
    """The two ends that must not win: nothing changes, or the score is a constant."""
    _, model = write_checkpoint(tmp_path / "best.ckpt", score="recon")
    images = pictures(30)
    flat = np.full_like(images, 128)  # a pasted piece of one colour changes nothing
    scores = model.score(to_tensor(flat)).scores["recon"].double().numpy()
    assert pseudo_defect_auroc(model, flat, scores) == 0.5
