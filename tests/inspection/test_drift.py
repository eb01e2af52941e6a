"""Drift in an inspection: what predict says before its verdicts; that photographs like the normals' raise no alarm."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from checkpoints import pictures, with_looks, write_checkpoint, write_images
from pages import Page

from solder_vae.data.image_files import read_image
from solder_vae.data.transforms import prepare
from solder_vae.evaluation.looks import LOOKS, kept_looks, looks_of, looks_to_keep
from solder_vae.metrics.drift import FEWEST, compare
from solder_vae.predict import run as predict
from solder_vae.threshold import run as threshold

PHOTOGRAPHS = Path(os.environ.get("SOLDER_VAE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")[0]
    return with_looks(path, pictures(200, seed=7))


def inspect(checkpoint, images, out, *options):
    """Exit status, and what the JSON says of drift."""
    if not out.with_name("images").exists():
        write_images(out.with_name("images"), images)
    status = predict([f"checkpoint={checkpoint}", f"images={out.with_name('images')}", f"out={out}", *options])
    return status, json.loads((out / "predictions.json").read_text())["drift"]


def test_nothing_is_said_of_what_looks_alike(checkpoint, tmp_path, capsys):
    status, drift = inspect(checkpoint, pictures(60, seed=8), tmp_path / "out", "strict=true")
    assert status == 0
    assert drift["tested"]
    assert not drift["told"]
    assert {each.name for each in LOOKS} < drift["statistics"].keys()
    assert "score (gradcon)" in drift["statistics"]
    assert capsys.readouterr().out.startswith(("0 of", "1", "2", "3", "4", "5", "6"))
    assert Page((tmp_path / "out/report.html").read_text(encoding="utf-8")).data["drift"] == ""


def test_drift_is_said_first_and_strict_ends_with_status_4(checkpoint, tmp_path, capsys):
    images = (pictures(60, seed=8) * 0.6).astype(np.uint8)
    status, drift = inspect(checkpoint, images, tmp_path / "out")
    assert status == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("These 60 joints do not look like those the model was trained on: ")
    assert "brightness 0.59 times the training's" in first
    assert drift["told"]
    assert drift["sentence"] == first
    assert Page((tmp_path / "out/report.html").read_text(encoding="utf-8")).data["drift"] == first
    assert inspect(checkpoint, images, tmp_path / "again", "strict=true")[0] == 4
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == sorted(
        path.name for path in (tmp_path / "out").iterdir()
    )


@pytest.mark.slow
def test_few_joints_and_checkpoints_of_earlier_versions_are_not_compared(checkpoint, tmp_path):
    few = (pictures(FEWEST - 1, seed=8) * 0.3).astype(np.uint8)
    status, drift = inspect(checkpoint, few, tmp_path / "few/out", "strict=true")
    assert (status, drift["tested"]) == (0, False)
    assert "too few" in drift["why"]
    earlier = write_checkpoint(tmp_path / "earlier.ckpt")[0]
    many = (pictures(60, seed=8) * 0.3).astype(np.uint8)
    status, drift = inspect(earlier, many, tmp_path / "many/out", "strict=true")
    assert (status, drift["tested"]) == (0, False)
    assert "earlier version" in drift["why"]


@pytest.mark.slow
def test_threshold_renews_what_is_compared_with(checkpoint, tmp_path):
    dark = (pictures(120, seed=9) * 0.6).astype(np.uint8)
    write_images(tmp_path / "normals", dark)
    rule = ["rule=quantile", "q=0.9"]
    threshold([f"checkpoint={checkpoint}", *rule, f"normals={tmp_path / 'normals'}", f"out={tmp_path / 'new'}"])
    renewed = tmp_path / "new/calibrated.ckpt"
    kept = torch.load(renewed, weights_only=True)["calibration"]["looks"]
    assert kept == looks_to_keep([looks_of(image, image.shape[:2]) for image in dark], None)
    assert inspect(renewed, (pictures(60, seed=8) * 0.6).astype(np.uint8), tmp_path / "out", "strict=true")[0] == 0
    threshold([f"checkpoint={checkpoint}", *rule, f"out={tmp_path / 'same'}"])
    before = torch.load(checkpoint, weights_only=True)["calibration"]["looks"]
    assert torch.load(tmp_path / "same/calibrated.ckpt", weights_only=True)["calibration"]["looks"] == before


# on photographs --------------------------------------------------------------------------------------------------


def looks(images):
    return np.array([looks_of(prepare(image, 64), image.shape[:2]) for image in images])


@pytest.fixture(scope="module")
def photographs():
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"no photographs in {PHOTOGRAPHS}")
    files = sorted((PHOTOGRAPHS / "solder_joints/normal").iterdir())
    files = [files[row] for row in np.random.default_rng(0).permutation(len(files))]
    images = [read_image(file) for file in files]
    seen = kept_looks({"looks": looks_to_keep(looks(images[:286]), None)})
    return images[286:], seen


def drift(batch, seen):
    return compare(dict(zip(LOOKS, np.array(batch).T, strict=True)), seen, len(batch))


@pytest.mark.slow
def test_held_out_photographs_raise_no_alarm(photographs):
    """200 batches, and 200 more in which a quarter are defects."""
    held_out, seen = photographs
    good, generator = looks(held_out), np.random.default_rng(0)
    folders = ("excessive_solder", "insufficient_solder", "shifted_component", "short")
    for folder in folders:
        bad = looks([read_image(file) for file in sorted((PHOTOGRAPHS / "solder_joints" / folder).iterdir())])
        told = 0
        for _ in range(50):
            batch = good[generator.choice(len(good), 160, replace=False)]
            told += drift(batch, seen).told
            batch[:40] = bad[generator.integers(0, len(bad), 40)]
            told += drift(batch, seen).told
        assert told == 0, folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: np.clip(image * 1.3, 0, 255).astype(np.uint8), "overexposed pixels"),
        (lambda image: np.clip(image * 1.6, 0, 255).astype(np.uint8), "brightness 1.2"),
        (lambda image: np.clip(image * [1.08, 1, 0.9], 0, 255).astype(np.uint8), "share of blue 0.9"),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 1), "sharpness 0.4"),
    ],
    ids=["gain 1.3", "gain 1.6", "another lamp", "blur"],
)
def test_changed_photographs_are_told(change, words, photographs):
    held_out, seen = photographs
    changed, generator = looks([change(image) for image in held_out[:600]]), np.random.default_rng(0)
    found = [drift(changed[generator.choice(600, 160, replace=False)], seen) for _ in range(20)]
    assert sum(each.told for each in found) >= 19
    assert sum(words in each.sentence for each in found) >= 15


def test_another_board_is_told(photographs):
    _, seen = photographs
    files = sorted((PHOTOGRAPHS / "th_joints/round/normal").iterdir())[:160]
    assert "brightness 0.1" in drift(looks([read_image(file) for file in files]), seen).sentence
