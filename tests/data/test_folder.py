"""Images on disk: layouts, bad files, copies, groups, and the real photographs."""

import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from solder_vae.data.folder import FolderSource, folder_data
from solder_vae.data.image_files import read_image
from solder_vae.data.layouts import find_records
from solder_vae.data.listing import list_images
from solder_vae.data.transforms import prepare
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import printable

SHARED = Path(os.environ.get("SOLDER_VAE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_photographs = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no photographs in {SHARED}")


def photo(path, content):
    """Write an image whose pixels follow from ``content``, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(content).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(path.suffix.lower(), image)[1].tobytes())
    return path


def photos(root, **folders):
    """Write images: ``photos(root, **{"normal": range(5)})`` makes normal/0.png and so on."""
    for folder, contents in folders.items():
        for number, content in enumerate(contents):
            photo(root / folder / f"{number}.png", content)
    return root


def load(root, **options):
    return FolderSource(root, **{"image_size": 8, **options}).tables()


def found(tables):
    """Number of images by split and defect."""
    return {split: dict(Counter(table.defects)) for split, table in tables.items()}


@pytest.fixture
def root(tmp_path):
    return photos(tmp_path / "set", normal=range(20), short=range(100, 103), **{"defective/void": range(200, 202)})


def test_class_folders(root):
    tables = load(root, fractions=(60, 20, 20))
    assert found(tables) == {
        "train": {"normal": 12},
        "val": {"normal": 4},
        "test": {"normal": 4, "short": 3, "void": 2},
    }
    for table in tables.values():
        for path, image, size in zip(table.paths, table.images, table.native_size, strict=True):
            np.testing.assert_array_equal(image, prepare(read_image(path), 8))
            assert size.tolist() == [12, 10]


@pytest.mark.parametrize("name", ["normal", "Good", "OK"])
def test_names_of_the_normal_class(tmp_path, name):
    photos(tmp_path, **{f"{name}/board 1": range(5), "short": [9]})
    assert sum(counts.get("normal", 0) for counts in found(load(tmp_path)).values()) == 5


def test_suffixes_in_either_case_and_other_files_ignored(root):
    for number, suffix in enumerate([".PNG", ".Tif", ".TIFF", ".bmp", ".BMP", ".webp"]):
        photo(root / "normal" / f"x{suffix}", 300 + number)
    (root / "normal" / "._0.png").write_bytes(b"Mac OS resource fork")
    (root / "normal" / "Thumbs.db").write_bytes(b"?")
    (root / "README.md").write_text("about")
    assert len(list_images(root / "normal").images) == 26


def test_published_layout(tmp_path):
    photos(tmp_path, train=range(6), validation=range(10, 13))
    photos(tmp_path / "test", normal=range(20, 22), anomaly=range(30, 34))
    assert found(load(tmp_path)) == {
        "train": {"normal": 6},
        "val": {"normal": 3},
        "test": {"normal": 2, "anomaly": 4},
    }


def test_mvtec_layout_takes_validation_from_training(tmp_path):
    photos(tmp_path / "train", good=range(40))
    photos(tmp_path / "test", good=range(50, 55), scratch=range(60, 63), bent=[70])
    photos(tmp_path / "ground_truth", scratch=range(80, 83))
    tables = load(tmp_path, fractions=(75, 25, 10))
    assert found(tables) == {
        "train": {"normal": 30},
        "val": {"normal": 10},
        "test": {"normal": 5, "bent": 1, "scratch": 3},
    }


def manifest(folder, text, name="manifest.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_manifest(tmp_path):
    photos(tmp_path, a=range(6))
    path = manifest(
        tmp_path, "Path,label,note\n" + "".join(f"a/{i}.png,{'good' if i < 5 else 'void'},x\n" for i in range(6))
    )
    counts = found(load(path))
    assert counts["test"].pop("void") == 1
    assert sum(sum(count.values()) for count in counts.values()) == 5
    assert found(load(tmp_path)) == found(load(path))  # by the folder's name, too


def test_manifest_with_splits(tmp_path):
    photos(tmp_path, a=range(4))
    path = manifest(
        tmp_path,
        "path,label,split\na/0.png,normal,train\na/1.png,normal,Validation\na/2.png,ok,test\na/3.png,void,test\n",
        "x.csv",
    )
    assert found(load(path)) == {"train": {"normal": 1}, "val": {"normal": 1}, "test": {"normal": 1, "void": 1}}


def test_manifest_groups_never_straddle(tmp_path):
    photos(tmp_path, a=range(60))
    lines = [f"a/{i}.png,{'void' if i in (3, 17) else 'normal'},g{i // 4}" for i in range(60)]
    tables = load(manifest(tmp_path, "path,label,group\n" + "\n".join(lines)), fractions=(50, 30, 20))
    splits = {path: split for split, table in tables.items() for path in table.paths}
    for group in range(15):
        assert len({splits[str(tmp_path / f"a/{i}.png")] for i in range(group * 4, group * 4 + 4)}) == 1
    assert splits[str(tmp_path / "a/16.png")] == "test"  # a normal joint of a board with a defect


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["../secret.png,normal"], "line 2: ../secret.png leads out"),
        (["/etc/passwd,normal"], "/etc/passwd: is no readable image"),
        (["a\\..\\..\\x.png,normal"], "leads out"),
        (["C:\\x.png,normal"], "is a path of another system"),
        (["a/0.png,"], "line 2: path or label is missing"),
        (["a/0.png"], "line 2: path or label is missing"),
        ([",normal"], "path or label is missing"),
        (["a/0.png,normal", "a/0.png,void"], "line 3: a/0.png is listed in line 2"),
        (["a/0.png,normal,holdout"], "unknown split holdout"),
        (["a/0.png,void,train"], "only normal images train"),
        (["a/0.png,normal,train", "a/1.png,normal,"], "1 of 2 lines give a split"),
        ([], "has no rows"),
    ],
)
def test_manifest_errors(tmp_path, lines, says):
    photos(tmp_path, a=range(2))
    with pytest.raises(UserError, match=re.escape(says)):
        load(manifest(tmp_path, "path,label,split\n" + "\n".join(lines)))


def test_all_manifest_errors_are_listed_at_once(tmp_path):
    path = manifest(tmp_path, "path,label\n../a.png,normal\nb.png,\nd/../../c.png,void\n")
    with pytest.raises(UserError, match=r"(?s)line 2.*line 3.*line 4"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"a;b\n1;2\n", b"\xff\xfe\x00p", b'path,label\n"' + b"x" * 200_000])
def test_what_is_no_manifest(tmp_path, content):
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        load(path)


def test_all_bad_files_are_listed_at_once(root):
    (root / "normal/zero.png").write_bytes(b"")
    (root / "short/corrupt.jpg").write_bytes(b"\xff\xd8\xff" + bytes(50))
    (root / "normal/broken link.png").symlink_to("nowhere")
    with pytest.raises(UserError) as caught:
        load(root)
    message = str(caught.value)
    assert "3 of 28 images" in message
    assert "on_bad_file=skip" in message
    assert all(name in message for name in ("zero.png", "corrupt.jpg", "broken link.png"))
    assert len(message.splitlines()) == 4


def test_bad_files_can_be_skipped(root, caplog):
    before = found(load(root))
    (root / "normal/zero.png").write_bytes(b"")
    assert found(load(root, on_bad_file="skip")) == before
    assert "Skipped 1 of 26 images" in caplog.text
    assert "zero.png" in caplog.text


def test_control_characters_of_names_stay_out_of_messages(root):
    (root / "normal/evil\x1b[2J\n.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        load(root)
    assert r"evil\x1b[2J\n.png" in str(caught.value)
    assert printable("焊点 ö\u3000x") == "焊点 ö\u3000x"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: None, "has no images"),
        (lambda root: photos(root, short=range(3)), "no normal images.*Found: short"),
        (lambda root: photos(root, normal=[1]), "Only 1 different normal image"),
        (lambda root: photo(root / "a.png", 1), "images directly in it"),
        (lambda root: photos(root, train=range(3)), "needs folders train and test"),
        (lambda root: photos(root, **{"train/void": [1], "test/void": [2]}), "may hold no others"),
        (lambda root: photos(root, **{"train": [1, 2], "val": [3], "Valid": [3], "test": [2]}), "has both"),
        (lambda root: photos(root, **{"train": [1, 2], "test": [2]}), "images directly in it"),
    ],
)
def test_folders_without_what_is_needed(tmp_path, make, says):
    make(tmp_path)
    with pytest.raises(UserError, match=says) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value) or "Only 1" in says


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"root": None}, "data.root is not set"),
        ({"root": "/nowhere/at all"}, "/nowhere/at all: does not exist"),
        ({"layout": "imagenet"}, "data.layout=imagenet"),
        ({"image_size": 1}, "data.image_size=1"),
        ({"on_bad_file": "ignore"}, "data.on_bad_file=ignore"),
        ({"fractions": [80, 20]}, "data.fractions"),
        ({"fractions": [80, 0, 20]}, "data.fractions"),
        ({"fractions": ["a", 1, 2]}, "data.fractions"),
        ({"fractions": [float("nan"), 1, 2]}, "data.fractions"),
        ({"fractions": 3}, "data.fractions"),
        ({"group_regex": r"^b\d+"}, "parentheses"),
        ({"group_regex": "("}, "no regular expression"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(tmp_path, options, says):
    with pytest.raises(UserError, match=re.escape(says)):
        FolderSource(**{"root": tmp_path, **options})


def test_a_file_is_no_folder(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        load(photo(tmp_path / "a.png", 1), layout="class_folders")


@pytest.mark.parametrize("defects", [0, 1, 2])
def test_classes_of_few_images_work(tmp_path, defects, caplog):
    photos(tmp_path, normal=range(10), short=range(100, 100 + defects))
    (tmp_path / "empty class").mkdir()
    tables = load(tmp_path, fractions=(60, 20, 20))
    assert tables["test"].labels.sum() == defects
    assert ("no defective images" in caplog.text) == (defects == 0)


def test_two_normals_train_and_validate(tmp_path):
    counts = found(load(photos(tmp_path, normal=range(2), short=[9])))
    assert counts == {"train": {"normal": 1}, "val": {"normal": 1}, "test": {"short": 1}}


def test_copies_stay_together_whatever_their_names_and_formats(tmp_path):
    for content in range(12):
        for name in (f"a{content}.png", f"b{content}.TIFF", f"sub/a{content}.bmp"):
            photo(tmp_path / "normal" / name, content)
    tables = load(tmp_path, fractions=(60, 20, 20))
    contents = [{Path(path).stem[1:] for path in table.paths} for table in tables.values()]
    assert [len(one) for one in contents] == [len(table) // 3 for table in tables.values()]
    assert sum(map(len, contents)) == 12
    for table in tables.values():
        once = {Path(path).stem[1:]: row for row, path in reversed(list(enumerate(table.paths)))}
        assert table.different == sorted(once.values())


def test_copies_in_given_splits_are_dropped_from_training(tmp_path, caplog):
    photos(tmp_path, train=[0, 1, 2, 3, 3], validation=[10, 11, 2])
    photos(tmp_path / "test", normal=[0, 20], anomaly=[30])
    assert found(load(tmp_path)) == {
        "train": {"normal": 3},  # 1, 3, 3
        "val": {"normal": 3},
        "test": {"normal": 2, "anomaly": 1},
    }
    assert "Dropped 2 images" in caplog.text


def test_same_pixels_in_two_classes_are_reported_and_tested_only(tmp_path, caplog):
    tables = load(photos(tmp_path, normal=range(10), short=[3, 50]))
    assert "same pixels as one of another class" in caplog.text
    assert str(tmp_path / "normal/3.png") in tables["test"].paths


def test_same_names_in_two_folders_stay_apart(root):
    paths = [path for table in load(root).values() for path in table.paths]
    assert len(set(paths)) == len(paths) == 25


def test_order_and_names_of_files_change_nothing(root, tmp_path):
    before = load(root)
    renamed = tmp_path / "renamed"
    for number, path in enumerate(sorted(list_images(root).images, key=lambda path: path.name[::-1])):
        target = renamed / path.parent.relative_to(root) / f"{number:03}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    after = load(renamed)
    for split, table in before.items():
        np.testing.assert_array_equal(after[split].images, table.images)
        assert after[split].defects == table.defects


def test_seeds_split_differently(root):
    rows = [load(root, seed=seed)["val"].images.tobytes() for seed in (0, 1, 0)]
    assert rows[0] == rows[2] != rows[1]


def test_groups_by_file_name(tmp_path):
    for number in range(40):
        photo(tmp_path / "normal" / f"b{number // 2}_s{number}_0.png", number)
    photo(tmp_path / "short" / "b3_s99_1.png", 100)
    tables = load(tmp_path, group_regex=r"^(b\d+)_", fractions=(60, 20, 20))
    boards = [{Path(path).name.split("_")[0] for path in table.paths} for table in tables.values()]
    assert sum(map(len, boards)) == 20
    assert "b3" in boards[2]
    with pytest.raises(UserError, match="doesn't match"):
        load(tmp_path, group_regex=r"^(c\d+)_")


def test_groups_that_straddle_given_splits_are_refused(tmp_path):
    photo(tmp_path / "train" / "b1_a.png", 1)
    photo(tmp_path / "train" / "b2_a.png", 2)
    photo(tmp_path / "test" / "void" / "b1_b.png", 3)
    with pytest.raises(UserError, match="b1 in train and test"):
        load(tmp_path, group_regex=r"^(b\d+)_")


def test_symlink_loops_end(root):
    (root / "normal" / "loop").symlink_to(root)
    for name in "abcdefgh":  # 8! ways through them
        (root / "normal" / name).symlink_to(root / "normal")
    start = time.process_time()
    assert len(list_images(root).images) == 25
    assert time.process_time() - start < 1


def test_linked_folders_are_read(root, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("normal", "short"):
        (linked / name).symlink_to(root / name)
    assert len(find_records(linked)) == 23


def test_names_outside_utf8_are_read_and_named_printably(tmp_path):
    photos(tmp_path, normal=range(4))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/normal/\xff.png"))
    photo(odd, 9)
    paths = [path for table in load(tmp_path).values() for path in table.paths]
    assert str(tmp_path / r"normal/\udcff.png") in paths
    assert "\n".join(paths).encode("utf-8")


def test_unreadable_folder_is_named(root, monkeypatch):
    def deny(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(UserError, match="can't be read"):
        find_records(root, "class_folders")


def test_the_config_makes_it(root):
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "data" / "folder.yaml")
    config = OmegaConf.create({"seed": 5, "data": config})
    config.data.root = str(root)
    data = instantiate(config.data)
    data.setup()
    assert data.source == FolderSource(str(root), seed=5)
    assert {split: len(table) for split, table in data.tables.items()} == {"train": 16, "val": 3, "test": 6}
    assert next(iter(data.train_dataloader()))["image"].shape == (16, 3, 64, 64)


def test_config_and_defaults_agree(root):
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "data" / "folder.yaml")
    config.root = str(root)
    by_config = instantiate(OmegaConf.create({"seed": 0, "data": config}).data)
    by_default = folder_data(root=str(root))
    assert by_config.source == by_default.source
    assert (by_config.batch_size, by_config.num_workers) == (by_default.batch_size, by_default.num_workers)
    assert str(by_config.augmentation) == str(by_default.augmentation)


@pytest.mark.slow
@needs_photographs
def test_published_photographs():
    start = time.process_time()
    tables = FolderSource(SHARED / "solder_joints").tables()
    assert time.process_time() - start < 20  # 1 s on two idle cores
    assert found(tables) == {
        "train": {"normal": 1516},
        "val": {"normal": 342},
        "test": {
            "normal": 51,
            "excessive_solder": 50,
            "insufficient_solder": 74,
            "shifted_component": 60,
            "short": 118,
        },
    }
    splits = {}
    for split, table in tables.items():
        for path in table.paths:
            pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
            splits.setdefault((pixels.shape, pixels.tobytes()), set()).add(split)
    assert len(splits) == 2107  # of 2211
    assert all(len(names) == 1 for names in splits.values())


@pytest.mark.slow
@needs_photographs
def test_photographs_by_board():
    tables = FolderSource(SHARED / "th_joints/round", group_regex=r"^(b\d+)_", fractions=(70, 15, 15)).tables()
    boards = [{Path(path).name.split("_")[0] for path in table.paths} for table in tables.values()]
    assert len(boards[0] | boards[1] | boards[2]) == sum(map(len, boards))
    assert found(tables)["test"].keys() == {"normal", "insufficient", "other_bad"}
    assert sum(map(len, tables.values())) == 795
