"""What is found below a folder, what is left out, and that every command says so."""

import logging
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from solder_vae.data.folder import FolderSource
from solder_vae.data.layouts import find_records
from solder_vae.data.listing import list_images
from solder_vae.inspection.joints import find_joints
from solder_vae.utils.errors import UserError


def picture(path, content=0):
    """A picture in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(content).integers(0, 256, (40, 44, 3), dtype=np.uint8)
    kind = {".jfif": "JPEG", ".jpe": "JPEG", ".dib": "BMP", ".ras": None}.get(path.suffix.lower(), "")
    if kind is None:
        path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    else:
        Image.fromarray(pixels if path.suffix.lower() != ".pgm" else pixels[..., 0]).save(path, kind or None)
    return path


def pictures(root, *names):
    for content, name in enumerate(names):
        picture(root / name, content)
    return root


def classes(root, **options):
    """Number of pictures by split and class."""
    counts = {}
    for record in find_records(root, **options):
        key = f"{record.split or ''} {record.defect}".strip()
        counts[key] = counts.get(key, 0) + 1
    return counts


def test_every_suffix_that_is_read(tmp_path):
    suffixes = [".jfif", ".jpe", ".jp2", ".pgm", ".ppm", ".dib", ".ras", ".JPG", ".tif", ".webp"]
    pictures(tmp_path / "normal", *(f"{number}{suffix}" for number, suffix in enumerate(suffixes)))
    tables = FolderSource(tmp_path, image_size=8).tables()
    assert sum(map(len, tables.values())) == len(suffixes)


def test_pictures_that_are_not_read_are_counted(tmp_path, caplog):
    pictures(tmp_path, "normal/0.png", "normal/1.png", "void/0.gif", "void/1.GIF", "short/0.png", "short/1.avif")
    (tmp_path / "void/2.heic").write_bytes(b"?")
    assert classes(tmp_path) == {"normal": 2, "short": 1}
    assert "Left out 4 pictures of formats that are not read: 1 .avif, 2 .gif, 1 .heic." in caplog.text
    assert "The class void has no picture that can be read" in caplog.text
    assert "short has" not in caplog.text


def test_a_class_whose_files_are_all_bad_is_named(tmp_path, caplog):
    pictures(tmp_path, "normal/0.png", "normal/1.png", "normal/2.png")
    (tmp_path / "void").mkdir()
    (tmp_path / "void/0.png").write_bytes(b"")
    FolderSource(tmp_path, on_bad_file="skip").tables()
    assert "The class void has no picture that can be read" in caplog.text


@pytest.mark.parametrize("system", ["@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found", ".AppleDouble"])
def test_folders_that_systems_make_are_no_data(tmp_path, system, monkeypatch):
    pictures(
        tmp_path, "normal/0.png", f"normal/{system}/0.png/SYNOPHOTO_THUMB_M.jpg", f"{system}/short/1.png", "short/2.png"
    )
    assert classes(tmp_path) == {"normal": 1, "short": 1}
    assert len(find_joints(str(tmp_path))) == len(find_joints(str(tmp_path / "**/*"))) == 2
    monkeypatch.chdir(tmp_path)
    assert len(find_joints("**/*.*g")) == len(find_joints("./**/*.*g")) == 2


def test_masks_are_left_out_and_named(tmp_path, caplog):
    pictures(
        tmp_path, "good/0.png", "NG/colour/1.png", "mask/colour/1.png", "NG/colour/1_mask.png", "NG/colour/1_GT.bmp"
    )
    assert classes(tmp_path) == {"normal": 1, "colour": 1}
    assert "Left out 3 folders and files that hold masks" in caplog.text
    assert [joint.image.name for joint in find_joints(str(tmp_path))] == ["1.png", "0.png"]


def test_layouts_with_masks(tmp_path):
    pictures(tmp_path / "visa", "Data/Images/Normal/0.JPG", "Data/Images/Anomaly/1.JPG", "Data/Masks/Anomaly/1.png")
    assert classes(tmp_path / "visa") == {"normal": 1, "Anomaly": 1}
    pictures(
        tmp_path / "mvtec", "train/good/0.png", "test/good/1.png", "test/bent/2.png", "ground_truth/bent/2_mask.png"
    )
    assert classes(tmp_path / "mvtec") == {"train normal": 1, "test normal": 1, "test bent": 1}
    pictures(
        tmp_path / "mvtec2", "train/good/0.png", "test_public/bad/1.png", "test_public/ground_truth/bad/1_mask.png",
        "test_private/2.png",
    )  # fmt: skip
    assert classes(tmp_path / "mvtec2") == {"train normal": 1, "test bad": 1}
    pictures(tmp_path / "dagm", "Train/0.png", "Test/defect/1.PNG", "Test/defect/Label/1_label.PNG")
    assert classes(tmp_path / "dagm") == {"train normal": 1, "test defect": 1}


def test_nothing_but_masks(tmp_path):
    pictures(tmp_path, "mask/1.png")
    with pytest.raises(UserError, match=r"has no images.*hold masks"):
        find_records(tmp_path)


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("train_set", "test_set"), ("trn", "tst"), ("TRAIN", "Test"), ("trainset", "test-data")],
)
@pytest.mark.parametrize("place", ["{}/{}/{}.png", "my data/{}/{}/{}.png", "bottle/v1/{}/{}/{}.png"])
def test_splits_that_are_given(tmp_path, train, test, place):
    names = [(train, "good", 0), (test, "good", 1), (test, "bad", 2)]
    pictures(tmp_path, *(place.format(*name) for name in names))
    assert classes(tmp_path) == {"train normal": 1, "test normal": 1, "test bad": 1}


def test_splits_below_classes(tmp_path):
    pictures(tmp_path, "OK/train/0.png", "OK/test/1.png", "NG/test/2.png", "short/test/3.png")
    assert classes(tmp_path) == {"train normal": 1, "test normal": 1, "test NG": 1, "test short": 1}


def test_splits_of_some_pictures_only_are_told(tmp_path, caplog):
    pictures(tmp_path, "a/train/good/0.png", "a/test/good/1.png", "good/2.png")
    assert classes(tmp_path) == {"normal": 3}
    assert "all are split anew" in caplog.text


def test_defects_in_training_point_to_the_layout(tmp_path):
    pictures(tmp_path, "train/OK/0.png", "train/NG/1.png", "test/OK/2.png", "test/NG/3.png")
    with pytest.raises(UserError, match=r"data\.layout=class_folders"):
        find_records(tmp_path)
    assert classes(tmp_path, layout="class_folders") == {"normal": 2, "NG": 2}
    pictures(tmp_path / "b", "train/OK/0.png", "train/NG/1.png")
    with pytest.raises(UserError, match=r"data\.layout=class_folders"):
        find_records(tmp_path / "b")


def test_names_of_the_normal_class_by_option(tmp_path):
    pictures(tmp_path, "OK_front/0.png", "non_defective/1.png", "non_defective/2.png", "short/3.png")
    tables = FolderSource(tmp_path, normal=["ok_front", "Non_Defective"]).tables()
    assert [int(table.labels.sum()) for table in tables.values()] == [0, 0, 1]
    with pytest.raises(UserError, match=r"data.normal=\[NAME\]"):
        FolderSource(tmp_path).tables()
    for wrong in ([], [""], 3, None):
        with pytest.raises(UserError, match=r"data\.normal"):
            FolderSource(tmp_path, normal=wrong)


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder below which one can't be read, whoever runs the test."""
    pictures(tmp_path, "normal/0.png", "normal/1.png", "normal/2.png", "normal/closed/3.png")
    scandir = os.scandir

    def deny(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    return tmp_path


def test_a_closed_folder(closed, caplog):
    with pytest.raises(UserError, match=r"closed: can't be read \(Permission denied\).*on_bad_file=skip"):
        FolderSource(closed).tables()
    tables = FolderSource(closed, on_bad_file="skip").tables()
    assert sum(map(len, tables.values())) == 3
    assert "closed: can't be read" in caplog.text
    assert list_images(closed).incomplete


def test_nothing_is_said_where_nothing_is_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    pictures(tmp_path, "normal/0.png", "short/solder_mask.png")
    (tmp_path / "README.txt").write_text("about")
    assert classes(tmp_path) == {"normal": 1, "short": 1}
    assert not caplog.text
