"""Inputs that failed once, each with the right result beside it (shared/cases), where they are at hand."""

import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from solder_vae.data.image_files import read_image
from solder_vae.data.layouts import find_records

SHARED = Path(os.environ.get("SOLDER_VAE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
CASES = SHARED.parent / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases in {CASES}")


@needs_cases
@pytest.mark.parametrize("folder", ["pictures-black", "pictures-wrong"])
def test_pictures(folder):
    expected = sorted((CASES / folder).glob("expected-*.png"))
    assert expected
    for path in expected:
        shown = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        name = path.name.removeprefix("expected-").removesuffix(".png")
        np.testing.assert_array_equal(read_image(path.with_name(name)), shown, err_msg=name)


@needs_cases
@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("verdict-folders", {"normal": 27, "NG": 7}),
        ("nas-thumbnails", {"normal": 24, "short": 4}),
        ("masks-as-defects/ng-and-mask", {"normal": 24, "colour": 4}),
        ("masks-as-defects/visa", {"normal": 24, "Anomaly": 4}),
        ("silently-left-out", {"normal": 24, "short": 4, "void": 5}),
        ("given-split-ignored", {"normal": 32, "bad": 8}),
    ],
)
def test_folders(folder, expected):
    records = find_records(CASES / folder)
    assert Counter(record.defect for record in records) == expected
    splits = {record.split for record in records}
    assert splits == ({"train", "test"} if folder == "given-split-ignored" else {None})
