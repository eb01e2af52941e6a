"""Known defects: who is drawn, who leaves the test, and that nothing changes without them."""

import csv
from collections import Counter

import cv2
import numpy as np
import pytest

from solder_vae.data.folder import FolderSource
from solder_vae.data.splits import apportion_evenly
from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.utils.errors import UserError

COUNTS = {"normal": 30, "bridge": 12, "missing": 8, "shift": 3}


def draw(seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (20, 20), interpolation=cv2.INTER_CUBIC)


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw(seed))


@pytest.fixture
def root(tmp_path):
    """Different pictures of four classes; ``bNN_`` in a file's name is its board: five pictures of one class each."""
    for kind, (defect, count) in enumerate(COUNTS.items()):
        for index in range(count):
            write(tmp_path / "set" / defect / f"b{kind}{index // 5}_{index}.png", 1000 * kind + index)
    return tmp_path / "set"


def tables(root, **options):
    return FolderSource(root, **{"image_size": 16, "fractions": [60, 20, 20], **options}).tables()


def content(table):
    return {(defect, image.tobytes()) for defect, image in zip(table.defects, table.images, strict=True)}


@pytest.mark.parametrize("none", [None, 0])
def test_without_known_defects_nothing_changes(root, none):
    plain, asked = tables(root), tables(root, known=none)
    assert list(asked) == ["train", "val", "test"]
    for split, table in plain.items():
        assert asked[split].paths == table.paths
        assert np.array_equal(asked[split].images, table.images)


def test_a_number_is_drawn_evenly_over_the_types_and_leaves_the_test(root):
    plain, found = tables(root), tables(root, known=9)
    assert Counter(found["known"].defects) == {"bridge": 3, "missing": 3, "shift": 3}
    assert found["train"].paths == plain["train"].paths
    assert found["val"].paths == plain["val"].paths
    assert content(found["known"]).isdisjoint(content(found["test"]))
    assert content(found["known"]) | content(found["test"]) == content(plain["test"])


def test_the_seed_draws_and_a_larger_number_adds_to_a_smaller_one(root):
    few, more = (content(tables(root, known=number)["known"]) for number in (4, 10))
    assert few < more
    assert few == content(tables(root, known=4)["known"])
    assert few != content(tables(root, known=4, seed=1)["known"])


def test_copies_and_boards_of_a_known_defect_leave_the_test(root):
    write(root / "bridge" / "b10_copy.png", 1000)
    found = tables(root, known=2, group_regex=r"^(b\d+)_")
    boards = {path.rsplit("/", 1)[1].split("_")[0] for path in found["known"].paths}
    assert boards.isdisjoint(path.rsplit("/", 1)[1].split("_")[0] for path in found["test"].paths)
    assert content(found["known"]).isdisjoint(content(found["test"]))
    assert len(found["known"]) == 2


def test_a_boards_further_defects_are_drawn_before_those_of_another(root):
    found = tables(root, known=6, group_regex=r"^(b\d+)_")
    assert len({path.rsplit("/", 1)[1].split("_")[0] for path in found["known"].paths}) == 3  # one of each type


def test_all_defects_can_be_known_which_leaves_normals_to_test(root, caplog):
    found = tables(root, known="all")
    assert len(found["known"]) == 23
    assert set(found["test"].defects) == {"normal"}
    assert "all of its 23 defective images are known (data.known), so none is left to measure" in caplog.text
    assert "has no defective images" not in caplog.text


def test_a_folder_of_known_defects_and_its_copies_leave_all_else(root, tmp_path):
    for index in range(3):
        write(tmp_path / "known" / f"{index}.png", 1000 + index)  # bridges of the set, by another name
    write(tmp_path / "known" / "3.png", 5)  # somebody's normal
    found = tables(root, known=str(tmp_path / "known"))
    assert found["known"].defects == ["known"] * 4
    assert Counter(found["test"].defects)["bridge"] == COUNTS["bridge"] - 3
    assert sum(len(table) for table in found.values()) == sum(COUNTS.values())
    pictures = {image for _, image in content(found["known"])}
    assert all(pictures.isdisjoint(image for _, image in content(found[split])) for split in ("train", "val", "test"))


def test_a_folder_within_the_root_is_taken_out_of_it(root):
    found = tables(root, known=str(root / "missing"))
    assert found["known"].defects == ["missing"] * COUNTS["missing"]
    assert "missing" not in found["test"].defects


@pytest.mark.parametrize("split", [True, False])
def test_rows_of_a_manifest_are_known(root, split):
    rows = [(path, path.parent.name) for path in sorted(root.rglob("*.png"))]
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for number, (path, label) in enumerate(rows):
            known = label == "bridge" and number % 2 == 0
            other = ("test" if label != "normal" else ["train", "val", "test"][number % 3]) if split else ""
            writer.writerow([path.relative_to(root), label, "known" if known else other])
    found = tables(root)
    assert Counter(found["known"].defects) == {"bridge": 6}
    assert Counter(found["test"].defects)["bridge"] == 6
    with pytest.raises(UserError, match=r"data\.known=3 does not fit 6 images whose split is known"):
        tables(root, known=3)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (23, r"leaves no defect for the test, since there are 23 different ones \(12 bridge, 8 missing, 3 shift\)"),
        (500, "use 11 or less, or data.known=all"),
        (-1, "data.known=-1 does not fit: give a whole number of defects from 0 on, all, or the folder"),
        ("-1", "data.known=-1 does not fit: give a whole number of defects from 0 on"),
        (2.5, "give a whole number of defects"),
        ("0.5", "data.known=0.5 does not fit: give a whole number"),
        (True, "give a whole number of defects"),
        ("nowhere", "data.known=nowhere does not exist"),
    ],
)
def test_what_does_not_fit_is_told(root, known, reason):
    with pytest.raises(UserError, match=reason):
        tables(root, known=known)


def test_boards_that_would_take_all_defects_from_the_test_are_told(root):
    with pytest.raises(UserError, match="would leave no defect for the test"):
        tables(root, known=3, group_regex=r"^(b0\d|b1|b2|b3)")


def test_look_alikes_of_a_known_defect_leave_the_test_where_they_are_kept_together(root):
    for index in range(COUNTS["missing"]):  # each once more, brighter
        picture = draw(2000 + index)
        cv2.imwrite(str(root / "missing" / f"twin_{index}.png"), cv2.convertScaleAbs(picture, alpha=0.8, beta=20))
    apart, together = (tables(root, known=4, lookalikes=kind) for kind in ("apart", "together"))
    gone = [path for path in apart["test"].paths if path not in together["test"].paths]
    assert gone
    known = {path.rsplit("_", 1)[1] for path in together["known"].paths if "/missing/" in path}
    assert known.isdisjoint(path.rsplit("_", 1)[1] for path in together["test"].paths if "/missing/" in path)


def test_an_even_share_gives_the_rest_to_those_that_have_more():
    assert sorted(apportion_evenly(10, [2, 20, 20], 0)) == [2, 4, 4]
    assert sum(apportion_evenly(7, [1, 3, 9], 3)) == 7


@pytest.mark.slow
def test_rendered_known_defects_are_others_than_the_tests_and_change_nothing_else():
    counts = {"train": 2, "val": 2, "test_normal": 2, "test_abnormal": 4}
    options = {**counts, "image_size": 16, "use_cache": False, "defects": ["bridge", "missing_component"]}
    plain, found = SyntheticSource(**options).tables(), SyntheticSource(**options, known=5).tables()
    assert list(plain) == list(SyntheticSource(**options, known=0).tables()) == ["train", "val", "test"]
    assert found["known"].defects == ["bridge", "missing_component"] * 2 + ["bridge"]
    assert content(found["known"]).isdisjoint(content(found["test"]))
    assert all(np.array_equal(table.images, found[split].images) for split, table in plain.items())
