"""``data=mvtec`` and ``data=visa``: the published layouts as they are, with their masks."""

import pytest
from published import write_mvtec, write_mvtec_2, write_visa

from solder_vae.data.folder import FolderSource
from solder_vae.data.visa import VisaSource
from solder_vae.utils.errors import UserError


def counts(tables):
    return {split: (len(table), int(table.labels.sum())) for split, table in tables.items()}


def assert_masks_lie_on_the_white_squares(table, pixels=25):
    for image, mask, label in zip(table.images[:], table.masks, table.labels, strict=True):
        assert mask.sum() == pixels * label
        assert not label or image[mask].mean() > 240  # JPEG's edges are not quite white


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (write_mvtec, {"train": (24, 0), "val": (6, 0), "test": (14, 8)}),
        (write_mvtec_2, {"train": (30, 0), "val": (8, 0), "test": (10, 4)}),
    ],
)
def test_mvtec(write, expected, tmp_path):
    write(tmp_path)
    tables = FolderSource(tmp_path, layout="split_folders", image_size=16, fractions=(4, 1, 1)).tables()
    assert counts(tables) == expected
    assert_masks_lie_on_the_white_squares(tables["test"])


def test_visa_by_its_table(tmp_path):
    write_visa(tmp_path)
    tables = VisaSource(tmp_path, category="pcb1", image_size=16, fractions=(3, 1, 1)).tables()
    assert counts(tables) == {"train": (18, 0), "val": (6, 0), "test": (12, 6)}
    assert set(tables["test"].defects) == {"normal", "anomaly"}
    assert all("/pcb1/" in path for table in tables.values() for path in table.paths)
    assert_masks_lie_on_the_white_squares(tables["test"])


def test_training_defects_of_a_two_class_protocol_are_known(tmp_path):
    write_visa(tmp_path)
    tables = VisaSource(tmp_path, category="pcb1", protocol="2cls_highshot", image_size=16).tables()
    assert counts(tables)["known"] == (2, 2)
    assert counts(tables)["test"] == (10, 4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "data.category=None is no object of .*: use one of candle, pcb1"),
        ({"category": "pcb9"}, "data.category=pcb9 is no object"),
        ({"category": "pcb1", "protocol": "3cls"}, "3cls.csv: is not there; give data.root=PATH of VisA as published"),
    ],
)
def test_what_is_missing_is_named(options, sentence, tmp_path):
    write_visa(tmp_path)
    with pytest.raises(UserError, match=sentence):
        VisaSource(tmp_path, **options).tables()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("pcb1,later,normal,a.png,", "line 2: needs train or test as its split, and a label; it has later and normal"),
        ("pcb1,train,,a.png,", "it has train and none"),
        ("pcb1,train,normal,../a.png,", "line 2: ../a.png leads out of the table's folder"),
    ],
)
def test_a_wrong_line_is_named(line, sentence, tmp_path):
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text(f"object,split,label,image,mask\n{line}\n")
    with pytest.raises(UserError, match=sentence):
        VisaSource(tmp_path, category="pcb1").tables()
