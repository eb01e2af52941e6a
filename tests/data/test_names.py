"""What names say, and what they don't."""

import pytest

from solder_vae.data.names import class_of, holds_masks, is_mask, is_system, split_of


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ("OK", "normal"),
        ("Good/board7", "normal"),
        ("normal/board7", "normal"),
        ("OK/NG", "NG"),
        ("NG/OK", "normal"),
        ("OK/NG/OK", "normal"),
        ("ok/NG/short", "short"),
        ("good/Defective/board 3", "board 3"),
        ("good/NG_short", "NG_short"),
        ("Normal/not ok", "not ok"),
        ("good/bad", "bad"),
        ("good/non_defective", "normal"),
        ("good/no defects", "normal"),
        ("good/bad_light", "normal"),
        ("defective/void", "void"),
        ("short", "short"),
        ("bonding", "bonding"),
        ("good/king", "normal"),
    ],
)
def test_the_deepest_telling_folder_decides(folders, expected):
    assert class_of(folders.split("/")) == expected


def test_other_names_of_the_normal_class():
    names = ("ok_front", "non_defective")
    assert class_of(["OK_Front"], names) == class_of(["a", "non_defective", "b"], names) == "normal"
    assert class_of(["good"], names) == "good"


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX"])
def test_folders_of_systems(name):
    assert is_system(name)
    assert is_system(name.upper())


@pytest.mark.parametrize("name", ["lost+found", ".AppleDouble", "Thumbs.db", "@Recycle", ".Trash-1000", "FOUND.000"])
def test_more_of_them(name):
    assert is_system(name)


@pytest.mark.parametrize("name", ["recycling", "@7", "#7", "$5", "found", "normal", "MACOSX board", "lot#7"])
def test_folders_of_people(name):
    assert not is_system(name)


@pytest.mark.parametrize(
    "name",
    ["mask", "Masks", "ground_truth", "GroundTruth", "ground-truth", "GT", "NG_mask", "defect masks", "Annotations"],
)
def test_folders_of_masks(name):
    assert holds_masks(name)


@pytest.mark.parametrize(
    "name", ["solder_mask", "SolderMask", "solder mask damage", "mask_damage", "label", "labels", "gtx"]
)
def test_folders_of_no_masks(name):
    assert not holds_masks(name)


def test_labels_beside_images():
    assert holds_masks("labels", {"images", "labels"})


@pytest.mark.parametrize("stem", ["000_mask", "a-Mask", "x.mask", "7_GT", "7_label", "7-ground_truth", "7 seg"])
def test_masks_beside_their_pictures(stem):
    assert is_mask(stem, {"7"})


@pytest.mark.parametrize("stem", ["b7_solder_mask", "8_gt", "8_label", "mask", "unmasked", "gt", "7", "7_seg_2"])
def test_pictures_that_are_no_masks(stem):
    assert not is_mask(stem, {"7"})


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Training TRAIN train_set trainset trn train-data training_images 01_train images_train"),
        ("val", "val valid Validation validation_set VAL val-images"),
        ("test", "test Testing test_set TestSet tst test_data 2-test test_public"),
        (None, "trainer testing_station normal t station tests_failed 7 train_wheel contest test_private"),
    ],
)
def test_names_of_splits(split, names):
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)
