"""The embedded data set: what it holds, that it is reproducible, and that nothing but the defect gives it away."""

import hashlib
import inspect
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae.data.synthetic import DEFECTS, SyntheticSource, render, worker
from solder_vae.data.synthetic.worker import Order, render_here, render_many
from solder_vae.evaluation.baselines import shortcut_scores
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL

# What describes how the picture was taken and what the board looks like: never the joint.
NUISANCES = [
    "mask_red", "mask_green", "mask_blue", "solder_roughness", "grain", "light_elevation", "light_azimuth",
    "light_red", "light_blue", "clipped", "gain", "blur", "contrast", "saturation", "noise", "sharpen", "jpeg_quality",
    "native_height", "native_width", "view_angle", "view", "pad_length", "terminal_width", "terminal_height",
]  # fmt: skip
NUISANCE_NAMES = ["mask_colour", "finish", "body", "light", "component"]

seeds = st.integers(0, 2**31)
indices = st.integers(0, 10**6)
types = st.sampled_from([NORMAL, *DEFECTS])


def small(**changes):
    options = {"train": 4, "val": 3, "test_normal": 3, "test_abnormal": 9, "use_cache": False, "render_workers": 1}
    return SyntheticSource(**(options | changes))


def same(first, second):
    return first.image.tobytes() == second.image.tobytes() and first.mask.tobytes() == second.mask.tobytes()


def auroc(normal, abnormal):
    """Share of (normal, abnormal) pairs in the right order."""
    below = np.searchsorted(np.sort(normal), abnormal, "left") + np.searchsorted(np.sort(normal), abnormal, "right")
    return below.mean() / 2 / len(normal)


# What it holds


def test_the_default_split_is_the_papers():
    defaults = {name: p.default for name, p in inspect.signature(SyntheticSource).parameters.items()}
    assert [defaults[name] for name in ("train", "val", "test_normal", "test_abnormal")] == [2513, 567, 84, 66]
    assert defaults["image_size"] == 64
    assert len(DEFECTS) == 9


def test_tables():
    tables = small().tables()
    assert {split: len(table) for split, table in tables.items()} == {"train": 4, "val": 3, "test": 12}
    assert tables["train"].labels.sum() == tables["val"].labels.sum() == 0
    test = tables["test"]
    assert test.defects == [NORMAL] * 3 + list(DEFECTS)
    assert test.images.shape == (12, 64, 64, 3)
    assert test.images.dtype == np.uint8
    assert test.masks.any(axis=(1, 2)).tolist() == test.labels.astype(bool).tolist()
    assert all(len(column) == 12 for column in test.factors.values())
    assert test.native_size[:, 0].tolist() == test.factors["native_height"].tolist()
    assert len({path for table in tables.values() for path in table.paths}) == 19


def test_empty_splits_are_empty_tables():
    tables = small(val=0, test_normal=0, test_abnormal=0).tables()
    assert [len(tables[split]) for split in ("train", "val", "test")] == [4, 0, 0]
    assert tables["test"].images.shape == (0, 64, 64, 3)


@pytest.mark.slow
@given(seeds, indices, types, st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_every_image_is_sound(seed, index, defect, severity):
    done = render(seed, "test_abnormal", index, defect, (severity, severity))
    height, width = done.image.shape[:2]
    assert 20 <= min(height, width) <= max(height, width) <= 200
    assert (height, width) == (done.factors["native_height"], done.factors["native_width"]) == done.mask.shape
    assert done.image.dtype == np.uint8
    assert done.image.std() > 2
    assert done.mask.any() == (defect != NORMAL)
    assert done.factors["severity"] == (0 if defect == NORMAL else severity)
    numbers = [value for value in done.factors.values() if not isinstance(value, str)]
    assert np.isfinite(numbers).all()


# Reproducible


@given(seeds, indices, types)
@settings(max_examples=10, deadline=None)
def test_rendering_twice_gives_the_same_bytes(seed, index, defect):
    assert same(render(seed, "train", index, defect), render(seed, "train", index, defect))


@pytest.mark.parametrize("other", [(1, "train", 0), (0, "val", 0), (0, "train", 1)])
def test_seed_stream_and_index_each_matter(other):
    assert not same(render(0, "train", 0), render(*other))


@pytest.mark.slow
def test_an_image_does_not_depend_on_how_many_are_made():
    few, many = small().tables(), small(train=7, test_normal=5, test_abnormal=20).tables()
    np.testing.assert_array_equal(few["train"].images, many["train"].images[:4])
    np.testing.assert_array_equal(few["test"].images[:3], many["test"].images[:3])
    np.testing.assert_array_equal(few["test"].images[3:], many["test"].images[5:14])


@pytest.mark.slow
@pytest.mark.measured
def test_an_image_does_not_depend_on_the_process(monkeypatch):
    monkeypatch.setattr(worker, "_WORTH_PROCESSES", 2)
    jobs = [("train", index, NORMAL) for index in range(5)] + [("test_abnormal", 0, "bridge")]
    order, counted = Order(3, (0.2, 1.0), jobs), []
    here, there = render_here(order, lambda count: None), render_many(order, 2, counted.append)
    assert len(here) == len(there)
    for first, second in zip(here, there, strict=True):
        assert same(first, second)
        assert first.factors == second.factors
    assert sum(counted) == len(jobs)


@pytest.mark.slow
def test_bytes_are_the_same_in_a_fresh_interpreter_with_other_threads():
    code = (
        "import hashlib; from solder_vae.data.synthetic import render;"
        "print(hashlib.sha256(render(5, 'test_abnormal', 8, 'dewetting').image.tobytes()).hexdigest())"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "123"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = render(5, "test_abnormal", 8, "dewetting").image.tobytes()
    assert printed.stdout.strip() == hashlib.sha256(here).hexdigest()


@pytest.mark.slow
@pytest.mark.measured
def test_a_failing_worker_is_told_with_its_last_words(monkeypatch):
    monkeypatch.setattr(worker, "_WORTH_PROCESSES", 2)
    jobs = [("train", 0, "no such defect")] * 4
    with pytest.raises(RuntimeError, match="no such defect"):
        render_many(Order(0, (0.2, 1.0), jobs), 2, lambda count: None)


# No shortcut


@pytest.mark.slow
@given(seeds, indices, st.sampled_from(list(DEFECTS)), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_defect_changes_nothing_about_how_the_picture_is_taken(seed, index, defect, severity):
    bad = render(seed, "test_abnormal", index, defect, (severity, severity)).factors
    good = render(seed, "test_abnormal", index).factors
    assert [bad[name] for name in NUISANCES + NUISANCE_NAMES] == [good[name] for name in NUISANCES + NUISANCE_NAMES]


@pytest.mark.slow
@given(st.sampled_from(list(DEFECTS)), indices)
@settings(max_examples=15, deadline=None)
def test_severity_does_not_change_the_scene(defect, index):
    slight, gross = (render(0, "test_abnormal", index, defect, (s, s)) for s in (0.1, 0.9))
    assert [slight.factors[name] for name in NUISANCES] == [gross.factors[name] for name in NUISANCES]
    assert not same(slight, gross)


EACH = 300  # normals, and defects, to test with


@pytest.fixture(scope="module")
def large_set():
    """200 training normals and a test set of 600, half of it bad."""
    return SyntheticSource(
        train=200, val=0, test_normal=EACH, test_abnormal=EACH, use_cache=False, render_workers=1
    ).tables()


@pytest.mark.slow
def test_trivial_baselines_learn_little(large_set):
    scores = shortcut_scores(large_set["train"], large_set["test"])
    assert set(scores) == {"mean colour", "contrast", "sharpness", "size"}
    for name, score in scores.items():
        assert auroc(score[:EACH], score[EACH:]) <= 0.65, name


@pytest.mark.slow
def test_nuisance_factors_alone_are_at_chance(large_set):
    test = large_set["test"]
    columns = [test.factors[name].astype(float) for name in NUISANCES]
    for name in NUISANCE_NAMES:
        columns += [(test.factors[name] == value).astype(float) for value in np.unique(test.factors[name])]
    features = np.stack(columns, axis=1)
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)
    found, half = [], np.arange(len(test)) % 2 == 0
    for fit in (half, ~half):
        weights = np.linalg.lstsq(features[fit], test.labels[fit] - 0.5, rcond=None)[0]
        score, label = features[~fit] @ weights, test.labels[~fit]
        found.append(auroc(score[label == 0], score[label == 1]))
    # Standard error of an AUROC under chance (Mann-Whitney): sqrt((m + n + 1) / (12 m n)); the mean of two is taken.
    error = np.sqrt((EACH + 1) / (12 * (EACH / 2) ** 2) / 2)
    assert abs(np.mean(found) - 0.5) < 3 * error


@pytest.mark.slow
def test_severity_makes_defects_easier_to_see(large_set):
    """A linear autoencoder (100 principal components) stands in for the network: it takes seconds.

    Each severity shows the same 90 joints, so the trend is not hidden by which joints were drawn.
    """

    def pixels(images):
        return images.reshape(len(images), -1) / 127.5 - 1

    train = pixels(large_set["train"].images)
    mean = train.mean(axis=0)
    basis = np.linalg.svd(train - mean, full_matrices=False)[2][:100]

    def errors(images):
        centred = pixels(images) - mean
        return ((centred - centred @ basis.T @ basis) ** 2).mean(axis=1)

    normal, values = errors(large_set["test"].images[:300]), []
    for severity in (0.1, 0.4, 0.7, 1.0):
        bad = small(train=1, val=0, test_normal=0, test_abnormal=90, severity=(severity, severity)).tables()["test"]
        values.append(auroc(normal, errors(bad.images)))
    assert (np.diff(values) > -0.01).all(), values  # but for what 300 images leave open
    assert 0.42 < values[0] < 0.6 < 0.7 < values[-1] < 0.97  # the slightest are not to be seen


# Fast, and plain about mistakes


def test_an_image_takes_less_than_40_ms():
    render(0, "train", 0)
    start = time.process_time()
    for index in range(30):
        render(0, "train", index)
    assert (time.process_time() - start) / 30 < 0.040


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"train": -1}, "train"),
        ({"image_size": 4}, "image_size"),
        ({"seed": -1}, "seed"),
        ({"severity": (0.5, 0.2)}, "severity"),
        ({"severity": (0, 1.5)}, "severity"),
        ({"severity": (0.5,)}, "severity"),
        ({"defects": ["tombstone"]}, "tombstone"),
        ({"defects": []}, "defects"),
        ({"render_workers": 0}, "render_workers"),
    ],
)
def test_mistakes_are_told(changes, word):
    with pytest.raises(UserError, match=word):
        small(**changes)


def test_severity_and_defects_are_as_told():
    test = small(defects=["pin_holes", "bridge"], severity=(0.5, 0.6)).tables()["test"]
    assert test.defects[3:] == ["pin_holes", "bridge"] * 4 + ["pin_holes"]
    assert ((test.factors["severity"][3:] >= 0.5) & (test.factors["severity"][3:] <= 0.6)).all()
