"""Splits: what belongs together stays together, in the asked proportions, whatever the order of the files."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solder_vae.data.splits import PAPER_FRACTIONS, SPLITS, apportion, assign, connect, leaks, straddling
from solder_vae.utils.errors import UserError

image = st.tuples(
    st.integers(0, 30).map(str),  # digest: equal ones are copies
    st.sampled_from([False, False, False, True]),  # abnormal
    st.none() | st.integers(0, 12).map(str),  # group
)
images = st.lists(image, min_size=1, max_size=40)
seeds = st.integers(0, 5)


def split(rows, fractions=PAPER_FRACTIONS, seed=0):
    """assign() on (digest, abnormal, group) rows; None where there is too little to split."""
    digests, abnormal, groups = zip(*rows, strict=True)
    try:
        return assign(digests, np.array(abnormal), groups, fractions, seed)
    except UserError:
        return None


def reachable(rows, start):
    """Indices tied to ``start`` through copies and groups, found by plain search."""
    found, fresh = {start}, [start]
    while fresh:
        digest, _, group = rows[fresh.pop()]
        for index, other in enumerate(rows):
            if index not in found and (other[0] == digest or (group is not None and other[2] == group)):
                found.add(index)
                fresh.append(index)
    return found


@given(images)
def test_parts_are_what_a_search_finds(rows):
    digests, _, groups = zip(*rows, strict=True)
    parts = connect(digests, groups)
    assert sorted(index for part in parts for index in part) == list(range(len(rows)))
    assert all(set(part) == reachable(rows, part[0]) for part in parts)


@pytest.mark.slow
@given(images, seeds)
def test_nothing_straddles_and_training_sees_normals_only(rows, seed):
    splits = split(rows, seed=seed)
    if splits is None:
        free = [i for i in range(len(rows)) if not any(rows[j][1] for j in reachable(rows, i))]
        assert len({min(reachable(rows, i)) for i in free}) < 2
        return
    for index, name in enumerate(splits):
        assert {splits[other] for other in reachable(rows, index)} == {name}
    assert {name for name, row in zip(splits, rows, strict=True) if row[1]} <= {"test"}
    assert {"train", "val"} <= set(splits)


@pytest.mark.slow
@given(images, seeds, st.randoms())
def test_order_of_the_files_does_not_matter(rows, seed, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    splits, shuffled = split(rows, seed=seed), split([rows[i] for i in order], seed=seed)
    assert shuffled == (splits and [splits[i] for i in order])


@given(st.integers(3, 300), st.integers(0, 20), seeds)
def test_single_images_get_the_exact_proportions(normals, abnormals, seed):
    rows = [(f"n{i}", False, None) for i in range(normals)] + [(f"a{i}", True, None) for i in range(abnormals)]
    counts = Counter(split(rows, (60, 25, 15), seed)[:normals])
    wanted = dict(zip(SPLITS, apportion(normals, (60, 25, 15)), strict=True))
    assert all(abs(counts[name] - wanted[name]) <= 1 for name in SPLITS)  # 1: an empty split gets one
    if min(wanted.values()) > 0:
        assert counts == wanted


def test_the_paper_s_numbers():
    rows = [(str(i), i >= 3164, None) for i in range(3164 + 66)]
    assert Counter(split(rows)) == {"train": 2513, "val": 567, "test": 84 + 66}


@given(st.lists(st.integers(1, 9), min_size=3, max_size=60), seeds)
def test_groups_come_within_a_group_of_the_proportions(sizes, seed):
    rows = [(f"{group}/{i}", False, str(group)) for group, size in enumerate(sizes) for i in range(size)]
    counts = Counter(split(rows, (60, 20, 20), seed))
    wanted = dict(zip(SPLITS, apportion(len(rows), (60, 20, 20)), strict=True))
    assert set(counts) == set(SPLITS)
    if len(sizes) > 12:
        assert all(abs(counts[name] - wanted[name]) <= 2 * max(sizes) for name in SPLITS)


def test_normals_of_boards_with_defects_count_towards_the_test_share():
    """20 of 100 normals share a board with a defect: more than the test's share, so no others are taken."""
    rows = [(f"n{i}", False, f"b{i // 2}") for i in range(100)] + [(f"a{i}", True, f"b{i}") for i in range(10)]
    splits = split(rows, (75, 15, 10))
    counts = Counter(splits[:100])
    assert counts["test"] == 20
    assert counts["train"] + counts["val"] == 80
    assert abs(counts["train"] - 80 * 75 / 90) <= 2  # boards of two


def test_seeds_give_different_splits_and_0_is_one_of_them():
    rows = [(str(i), False, None) for i in range(100)]
    splits = [tuple(split(rows, seed=seed)) for seed in range(6)]
    assert len(set(splits)) == 6


def test_every_image_is_equally_likely_to_be_held_out():
    rows = [(str(i), False, None) for i in range(20)]
    held_out = np.mean([[name != "train" for name in split(rows, (60, 20, 20), seed)] for seed in range(500)], axis=0)
    assert np.abs(held_out - 0.4).max() < 0.1


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("a", False, None)], "Only 1 different normal image"),
        ([("a", False, None)] * 5, "copies count once"),
        ([("a", False, "b1"), ("c", False, "b1"), ("d", True, "b2")], "groups"),
        (
            [("a", False, "b1"), ("x", True, "b1"), ("c", False, "b2"), ("y", True, "b2")],
            "2 normal images are tied",
        ),
    ],
)
def test_too_few_to_split_says_why(rows, says):
    digests, abnormal, groups = zip(*rows, strict=True)
    with pytest.raises(UserError, match=says):
        assign(digests, np.array(abnormal), groups)


def test_two_normals_are_enough_and_three_reach_the_test():
    assert sorted(split([("a", False, None), ("b", False, None)])) == ["train", "val"]
    assert sorted(split([("a", False, None), ("b", False, None), ("c", False, None)])) == [
        "test",
        "train",
        "val",
    ]
    assert "test" not in split([(str(i), False, None) for i in range(30)], (80, 20, 0))


@given(st.integers(0, 1000), st.lists(st.floats(0.01, 100), min_size=1, max_size=5))
def test_apportion_sums_up_and_is_off_by_less_than_one(total, weights):
    counts = apportion(total, weights)
    assert sum(counts) == total
    exact = total * np.array(weights) / sum(weights)
    assert np.abs(np.array(counts) - exact).max() < 1 + 1e-9


@given(st.lists(st.tuples(st.integers(0, 8).map(str), st.sampled_from(SPLITS)), max_size=30))
def test_without_leaks_no_pixels_are_in_two_splits(rows):
    digests, splits = [row[0] for row in rows], [row[1] for row in rows]
    dropped = leaks(digests, splits)
    kept = [row for index, row in enumerate(rows) if index not in dropped]
    assert len({digest for digest, _ in kept}) == len(set(kept))  # one split for each digest
    assert {row for row in kept if row[1] == "test"} == {row for row in rows if row[1] == "test"}
    for index, copy in dropped.items():
        assert digests[index] == digests[copy]
        assert SPLITS.index(splits[index]) < SPLITS.index(splits[copy])
        assert copy not in dropped


def test_straddling_names_the_groups_and_their_splits():
    groups = ["b1", "b1", "b2", "b2", None, None]
    splits = ["test", "train", "val", "val", "train", "test"]
    assert straddling(groups, splits) == {"b1": ["train", "test"]}
