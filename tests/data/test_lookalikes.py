"""Look-alikes kept together: what is tested looks like nothing that was trained on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from checkpoints import write_images

from solder_vae.data import folder
from solder_vae.data.folder import FolderSource
from solder_vae.data.splits import assign
from solder_vae.utils.errors import UserError

ABOVE = 0.85


def boards(count, joints, seed=0):
    """Pictures of joints: those of a board are one smooth picture, turned or mirrored, and a little noise."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        base = cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
        for joint in range(joints):
            turned = np.rot90(base, joint % 4) if joint % 2 else base[:, ::-1]
            yield (turned + rng.normal(0, 12, base.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_images(root / "normal", np.stack(list(boards(25, 5))))
    write_images(root / "short", np.stack(list(boards(25, 5)))[::12] // 2)  # defects that look like normals
    return root


def largest_correlation(some, others):
    """By numpy, pair by pair, in eight orientations."""

    def grey(image):
        return cv2.resize(image @ [0.299, 0.587, 0.114], (24, 24), interpolation=cv2.INTER_AREA)

    def turned(image):
        return np.stack([np.rot90(side, turns).ravel() for side in (image, image[:, ::-1]) for turns in range(4)])

    return max(np.corrcoef(turned(grey(one)), grey(other).ravel())[-1, :-1].max() for one in some for other in others)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_other_normal_looks_like_a_training_one(root, seed):
    options = {"image_size": 24, "seed": seed, "fractions": (60, 20, 20)}
    tables = FolderSource(root, lookalikes="together", **options).tables()
    normals = [row for row, label in enumerate(tables["test"].labels) if label == 0]
    assert min(len(tables["train"]), len(tables["val"]), len(normals)) >= 15
    for others in (tables["val"].images, tables["test"].images[normals]):
        assert largest_correlation(others, tables["train"].images) < ABOVE
    apart = FolderSource(root, **options).tables()
    assert largest_correlation(apart["val"].images, apart["train"].images) > 0.9


@pytest.mark.slow
def test_the_split_depends_on_the_seed_and_not_on_view_or_size(root):
    def paths(**options):
        tables = FolderSource(root, lookalikes="together", fractions=(60, 20, 20), **options).tables()
        return {split: table.paths for split, table in tables.items()}

    assert paths() == paths(view="controlled", image_size=16) == paths(cache_mb=0)
    assert paths() != paths(seed=1)


def test_groups_and_look_alikes_are_both_kept_together(tmp_path):
    """Joint 1 of each board is of one lot: by groups and look-alikes together, everything is one part."""
    pictures = list(boards(4, 3))
    (tmp_path / "normal").mkdir()
    for board in range(4):
        for joint in range(3):
            lot = 9 if joint == 1 else 10 * board + joint
            cv2.imwrite(str(tmp_path / f"normal/l{lot}_b{board}_{joint}.png"), pictures[3 * board + joint])
    with pytest.raises(UserError, match="Only 1 groups"):
        FolderSource(tmp_path, image_size=16, lookalikes="together", group_regex=r"^(l\d+)_").tables()
    for table in FolderSource(tmp_path, image_size=16, lookalikes="together").tables().values():
        counts = np.unique([Path(path).stem.split("_")[1] for path in table.paths], return_counts=True)[1]
        assert (counts == 3).all()


def test_a_long_chain_does_not_leave_the_small_splits_with_too_much_or_too_little():
    """60 of 100 are one group: they go to training, wherever the seed has them."""
    alike = [0] * 60 + list(range(1, 41))
    for seed in range(20):
        digests = [str(number) for number in range(100)]
        names = assign(digests, np.zeros(100, bool), [None] * 100, (80, 10, 10), seed, alike)
        assert [names.count(split) for split in ("train", "val", "test")] == [80, 10, 10]
        assert set(names[:60]) == {"train"}


def test_what_does_not_fit_is_refused(root, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"data\.lookalikes=near is unknown: use apart or together"):
        FolderSource(root, lookalikes="near")
    for wrong in (0, 1.5, "much"):
        with pytest.raises(UserError, match=r"data\.lookalike_correlation"):
            FolderSource(root, lookalike_correlation=wrong)
    monkeypatch.setattr(folder, "MOST_COMPARED", 100)
    with pytest.raises(UserError, match="125 are more than 100: name their boards instead"):
        FolderSource(root, lookalikes="together").tables()
    for split in ("train", "test"):
        write_images(tmp_path / split / "good", np.stack(list(boards(3, 2, seed=len(split)))))
    with pytest.raises(UserError, match="these images come with splits"):
        FolderSource(tmp_path, lookalikes="together").tables()
