"""The audit: file checks, duplicates against brute force, the shortcut test, the verdict, the command and its page."""

import json
import re
import shutil
import subprocess
import time
import tracemalloc

import cv2
import numpy as np
import pytest
from checkpoints import pictures, png, write_images
from commands import run_command
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page, opened, sideways
from scipy.cluster.hierarchy import DisjointSet

from solder_vae.data.folder import FolderSource
from solder_vae.data.layouts import Record
from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import CONTROLLED, PLAIN, apply_view
from solder_vae.evaluation.baselines import TrivialAuroc, measure, shortcut_warning, shortcuts
from solder_vae.studies.audit.duplicates import BITS, CORRELATION, near_groups, perceptual_hash
from solder_vae.studies.audit.examine import audit
from solder_vae.studies.audit.files import examine, format_of
from solder_vae.studies.audit.report import facts, page
from solder_vae.studies.audit.verdict import verdict, worst
from solder_vae.utils.labels import NORMAL

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

HOSTILE = '<img src=x onerror=alert(1)>"&\u202e'


def encoded(image, suffix):
    return cv2.imencode(suffix, np.ascontiguousarray(image))[1].tobytes()


def source_of(root, **options):
    return FolderSource(root, **{"image_size": 16, **options})


# files one by one


def warnings_of(tmp_path, content, name="a.png"):
    path = tmp_path / name
    path.write_bytes(content)
    examined, _ = examine(Record(path, NORMAL, None, None), 16)
    return examined.error or " | ".join(examined.warnings)


PICTURE = pictures(1, 40)[0]


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (png(PICTURE), "a.png", "^$"),
        (encoded(PICTURE, ".jpg"), "a.JPEG", "^$"),
        (encoded(PICTURE, ".tiff"), "a.tif", "^$"),
        (encoded(PICTURE, ".webp"), "a.webp", "^$"),
        (encoded(PICTURE, ".bmp"), "a.bmp", "^$"),
        (b"", "a.png", "is empty"),
        (b"no image", "a.png", "no readable image"),
        (png(PICTURE)[:60], "a.png", "no readable image|cut short"),
        (encoded(PICTURE, ".jpg")[:-30], "a.jpg", "cut short"),
        (encoded(PICTURE, ".jpg"), "a.png", "content is jpeg, but the name ends in .png"),
        (png(np.full((30, 30, 3), 9, np.uint8)), "a.png", "constant: every pixel"),
        (png((PICTURE // 200 + 20).astype(np.uint8)), "a.png", "nearly constant"),
        (png(PICTURE[:8].copy()), "a.png", "very long: 40x8"),
        (png(PICTURE[:6, :6].copy()), "a.png", "very small: 6x6"),
        (encoded(PICTURE.astype(np.uint16) * 257, ".png"), "a.png", "^16 bit$"),
        (encoded(PICTURE.astype(np.uint16) * 16, ".png"), "a.png", "only 12 bits"),
        (encoded(np.dstack([PICTURE, np.full((40, 40), 255, np.uint8)]), ".png"), "a.png", "opaque all over"),
        (encoded(np.dstack([PICTURE, PICTURE[..., 0]]), ".png"), "a.png", "transparent in places"),
        (encoded(PICTURE.astype(np.float32), ".tiff"), "a.tif", "unknown range"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, content, name, expected):
    assert re.search(expected, warnings_of(tmp_path, content, name))


def test_very_large_images_are_odd(tmp_path, monkeypatch):
    monkeypatch.setattr("solder_vae.studies.audit.files.LARGE", 40 * 40 - 1)
    assert "very large: 40x40 px, surely more than one joint" in warnings_of(tmp_path, png(PICTURE))


@pytest.mark.parametrize("suffix", ["png", "jpeg", "tiff", "bmp", "webp"])
def test_formats_are_told_by_content(suffix):
    data = np.frombuffer(encoded(PICTURE, f".{suffix}"), np.uint8)
    assert format_of(data) == suffix
    assert format_of(data[:3]) in (suffix, "unknown")


# duplicates


def grey(image, size=64):
    return apply_view(image, size, CONTROLLED)[..., 0]


def near(greys):
    hashes = np.array([perceptual_hash(image) for image in greys], np.uint64)
    return near_groups(hashes, np.array(greys)[..., None], np.arange(len(greys)))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(0, 99))
def test_near_groups_are_what_all_near_pairs_connect(count, seed):
    rng = np.random.default_rng(seed)
    base = pictures(max(2, count // 3), 32, seed)
    noisy = base[rng.integers(0, len(base), count)] + rng.normal(0, rng.choice([1, 20, 60]), (count, 32, 32, 3))
    images = [grey(image, 32) for image in noisy.clip(0, 255).astype(np.uint8)]
    connected = DisjointSet(range(count))
    for i in range(count):
        for j in range(i + 1, count):
            if (
                bin(int(perceptual_hash(images[i])) ^ int(perceptual_hash(images[j]))).count("1") <= BITS
                and np.corrcoef(images[i].ravel(), images[j].ravel())[0, 1] >= CORRELATION
            ):
                connected.merge(i, j)
    expected = [sorted(group) for group in connected.subsets() if len(group) > 1]
    assert near(images) == sorted(expected, key=lambda group: (-len(group), group))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda image: cv2.resize(image, (43, 43), interpolation=cv2.INTER_AREA),
        lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR),
        lambda image: (0.7 * image + 40).astype(np.uint8),
        lambda image: image[:, 1:],
        lambda image: (image * [0.9, 0.7, 1.0]).astype(np.uint8),
    ],
    ids=["smaller", "jpeg", "brighter", "shifted", "tinted"],
)
def test_altered_copies_are_found_and_different_pictures_are_not(change):
    images = pictures(40, 64, seed=5)
    assert near([grey(image) for image in images]) == []
    altered = [change(image) for image in images]
    found = near([grey(image) for image in [*images, *altered]])
    right = [group for group in found if group == [group[0], group[0] + 40]]
    assert len(right) >= 38
    assert len(found) == len(right)


def test_chains_are_followed_across_many_pairs(monkeypatch):
    monkeypatch.setattr("solder_vae.studies.audit.duplicates._AT_ONCE", 3 * 64**2)
    first, last = pictures(2, 64, seed=5).astype(float)
    fan = [(first + (last - first) * share).astype(np.uint8) for share in np.linspace(0, 1, 40)]
    alone = pictures(1, 64, seed=2)[0]
    greys = [grey(image) for image in (alone, *fan)]
    assert near(greys) == [list(range(1, 41))]
    assert np.corrcoef(greys[1].ravel(), greys[-1].ravel())[0, 1] < CORRELATION
    assert near(greys[:1]) == []


@pytest.mark.slow
def test_thousands_of_images_take_seconds():
    """Also if all show the same, which makes every pair a pair of near duplicates."""
    images = np.random.default_rng(0).integers(0, 256, (6000, 16, 16), dtype=np.uint8)
    for content in (images, images[:1] // 2 + images // 250):
        start = time.process_time()
        found = near(list(content))
        assert [len(group) for group in found] == ([] if content is images else [6000])
        assert time.process_time() - start < 10


# the shortcut


def table(images, defect=NORMAL):
    images = np.asarray(images, np.uint8)
    return ImageTable(
        images, [str(i) for i in range(len(images))], [defect] * len(images), np.full((len(images), 2), 30)
    )


def joined(*tables):
    images, sizes = (np.concatenate([getattr(one, name) for one in tables]) for name in ("images", "native_size"))
    paths, defects = ([value for one in tables for value in getattr(one, name)] for name in ("paths", "defects"))
    return ImageTable(images, paths, defects, sizes)


def noise(count, mean, seed):
    """Images whose mean colour varies around a mean."""
    rng = np.random.default_rng(seed)
    return (rng.normal(mean, 10, (count, 1, 1, 3)) + rng.normal(0, 20, (count, 16, 16, 3))).clip(0, 255)


def test_the_warning_names_baseline_command_and_way_out():
    tables = {
        "train": table(noise(80, 120, 0)),
        "test": joined(table(noise(40, 120, 1)), table(noise(40, 180, 2), "dark")),
    }
    line = shortcut_warning(tables, PLAIN, "my data")
    assert "\n" not in line
    assert re.search(r"mean colour (1\.000|0\.99\d) \[", line)
    assert "python -m solder_vae.audit data.root='my data' out=audit" in line
    assert "data.view=controlled" in line
    assert "data=synthetic" in shortcut_warning(tables, PLAIN, None)
    assert "and train with data.view" not in shortcut_warning(tables, CONTROLLED, "x")


def test_no_warning_without_a_shortcut_or_without_both_classes():
    train, normal = table(noise(80, 120, 0)), table(noise(40, 120, 1))
    same = joined(normal, table(noise(40, 120, 2), "dark"))
    assert shortcut_warning({"train": train, "test": same}, PLAIN, "x") is None
    assert shortcut_warning({"train": train, "test": normal}, PLAIN, "x") is None
    assert measure(train, normal) == []


def test_size_is_no_shortcut_in_the_controlled_view_and_luck_is_none_at_all():
    size, lucky = TrivialAuroc("size", 0.99, 0.98, 1.0), TrivialAuroc("contrast", 0.9, 0.6, 1.0)
    assert shortcuts([size, lucky], PLAIN) == [size]
    assert shortcuts([size, lucky], CONTROLLED) == []


# the whole


@pytest.fixture
def root(tmp_path):
    """30 normals with a copy, a near duplicate across classes, bright and larger defects, one unreadable file."""
    folder = tmp_path / "data"
    normals = (0.5 * pictures(60, 40)).astype(np.uint8)
    write_images(folder / "normal", normals)
    (folder / "normal" / "copy.bmp").write_bytes(encoded(normals[3][..., ::-1], ".bmp"))
    (folder / "normal" / "broken.png").write_bytes(b"no image")
    defects = (0.4 * pictures(14, 90, seed=7) + 150).astype(np.uint8)
    write_images(folder / "short", defects)
    (folder / "short" / "like.png").write_bytes(png(cv2.resize(normals[5], (39, 39), interpolation=cv2.INTER_AREA)))
    return folder


def titles(found):
    return "\n".join(f"{finding.level} {finding.title}" for finding in verdict(found))


def test_an_audit_says_what_is_there(root):
    found = audit(source_of(root))
    assert (len(found.items), len(found.unreadable)) == (76, 1)
    assert "broken.png" in found.unreadable[0][1]
    names = [sorted(found.items[row].name.rsplit("/", 1)[1] for row in group.rows) for group in found.copies]
    assert names == [["003.png", "copy.bmp"]]
    assert [sorted(found.items[row].name.rsplit("/", 1)[1] for row in group.rows) for group in found.near] == [
        ["005.png", "like.png"]
    ]
    assert found.near[0].classes == [NORMAL, "short"]
    said = titles(found)
    for expected in (
        "stop Defects are told from good joints without looking at solder",
        "stop 1 of 77 images cannot be read",
        "look 1 images are copies, pixel by pixel",
        "look 2 images are near duplicates across classes",
        "look The controlled view removes it",
    ):
        assert expected in said
    assert worst(verdict(found)) == "stop"


@pytest.mark.slow
def test_the_test_is_on_the_normals_that_were_not_fitted(root):
    found = audit(source_of(root))
    tables = source_of(root, on_bad_file="skip").tables()
    for view, results in ((PLAIN, found.plain), (CONTROLLED, found.controlled)):
        tables = source_of(root, on_bad_file="skip", view=view).tables()
        expected = measure(tables["train"], joined(tables["val"], tables["test"]))
        assert results == expected
    assert found.not_fitted == (len(tables["val"]) + int((1 - tables["test"].labels).sum()), 15)


@pytest.mark.slow
def test_memory_is_that_of_numbers_beyond_the_cache_and_the_report_the_same(root, monkeypatch):
    monkeypatch.setattr("solder_vae.studies.audit.duplicates._AT_ONCE", 8 * 96**2)
    write_images(root / "normal" / "more", pictures(250, 20, seed=3))
    contents = []
    for cache_mb in (1024, 0.01, 0):
        source = source_of(root, image_size=96, cache_mb=cache_mb)
        tracemalloc.start()
        found = audit(source)
        content = facts(found, "x")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        contents.append((content, page(found, content)))
        kept = min(1e6 * cache_mb, 326 * 96 * 96)
        assert peak < 6e6 + 2 * kept  # twice for a moment; all pictures in colour would take 18 MB in both views
    assert contents[0] == contents[1] == contents[2]
    assert len(contents[0][0]["near_duplicates"]) == 1


@pytest.mark.slow
def test_a_file_that_goes_after_it_was_examined_costs_its_picture_alone(root):
    found = audit(source_of(root, cache_mb=0))
    before = page(found, facts(found, "x"))
    for path in (root / "short").iterdir():
        path.unlink()
    assert found.rows_of("short")
    after = page(found, facts(found, "x"))
    assert len(after) < len(before)
    assert "short/like.png" in after


def test_a_shortcut_that_the_view_does_not_remove(tmp_path):
    checks = (np.indices((40, 40)).sum(0) // 6 % 2 * 200).astype(np.uint8)[..., None].repeat(3, -1)
    write_images(tmp_path / "normal", (0.3 * pictures(40, 40) + 60).astype(np.uint8))
    fine = (0.3 * pictures(20, 40, 1) + 0.7 * checks).astype(np.uint8)
    write_images(tmp_path / "bad", fine)
    said = titles(audit(source_of(tmp_path, image_size=64)))
    assert "stop The controlled view does not remove it: there sharpness alone" in said


@pytest.mark.slow
def test_clean_data_get_a_clean_verdict(tmp_path):
    write_images(tmp_path / "normal", pictures(400, 40))
    write_images(tmp_path / "short", pictures(100, 40, seed=1))
    found = audit(source_of(tmp_path, fractions=[50, 20, 30]))
    assert {finding.level for finding in verdict(found)} == {"fine"}, titles(found)
    assert "fine No shortcut was found" in titles(found)


def test_equal_pixels_in_two_classes_and_two_splits(tmp_path):
    images = pictures(12, 40)
    write_images(tmp_path / "train" / "good", images[:8])
    write_images(tmp_path / "test" / "good", images[7:10])
    write_images(tmp_path / "test" / "bad", images[9:12])
    found = audit(source_of(tmp_path))
    said = titles(found)
    assert "stop 2 images with equal pixels are in more than one class" in said
    assert "look 2 images with equal pixels are in more than one of the given splits" in said
    assert sum(not item.used for item in found.items) == 1


@pytest.mark.parametrize(("folders", "expected"), [(["bad"], "no normal images"), (["normal"], "cannot be tested")])
def test_what_is_missing_is_said(tmp_path, folders, expected):
    for folder in folders:
        write_images(tmp_path / folder, pictures(6, 40))
    found = audit(source_of(tmp_path))
    assert any(expected in f"{finding.title} {finding.text}" for finding in verdict(found))
    json.dumps(facts(found, "x"), allow_nan=False)
    page(found, facts(found, "x"))


def test_nothing_readable_is_a_report_too(tmp_path):
    (tmp_path / "normal").mkdir()
    (tmp_path / "normal" / "a.png").write_bytes(b"no")
    found = audit(source_of(tmp_path))
    assert "stop 1 of 1 images cannot be read" in titles(found)
    page(found, facts(found, "x"))


@pytest.mark.slow
@pytest.mark.measured
def test_the_embedded_set_is_audited(tmp_path):
    counts = {"train": 12, "val": 4, "test_normal": 5, "test_abnormal": 9}
    found = audit(SyntheticSource(16, **counts, cache_dir=tmp_path, render_workers=1))
    assert len(found.items) == 30
    assert found.not_fitted == (9, 9)
    assert len(found.plain) == len(found.controlled) == 4


# the page


@pytest.fixture
def hostile(tmp_path):
    """Classes, files, unreadable and odd ones with names that are markup."""
    folder = tmp_path / "data"
    write_images(folder / "normal", pictures(12, 40))
    write_images(folder / HOSTILE, pictures(3, 40, seed=1))
    (folder / HOSTILE / f"{HOSTILE}.png").write_bytes(png(pictures(1, 40, seed=2)[0][:8].copy()))
    (folder / HOSTILE / f"{HOSTILE}2.png").write_bytes(png(pictures(1, 40, seed=2)[0][:8].copy()))
    (folder / "normal" / "<b>bad.png").write_bytes(b"no")
    return folder


def test_names_never_become_markup(hostile):
    found = audit(source_of(hostile))
    parsed = Page(page(found, facts(found, "</script><b>")))
    assert parsed.tags.count("script") == 2
    assert not {"img", "b", "figure", "svg"} & set(parsed.tags)
    assert HOSTILE in {entry["name"] for entry in parsed.data["classes"]}
    assert parsed.data["source"] == "</script><b>"
    assert parsed.data["copies"][0]["cards"][0]["name"].endswith(f"{HOSTILE}.png")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
def test_a_browser_shows_every_section_and_runs_nothing_else(hostile, tmp_path):
    found = audit(source_of(hostile))
    report = tmp_path / "audit.html"
    report.write_text(page(found, facts(found, "the </script><b>source")), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=2000",
            "--dump-dom",
            report.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    dom = done.stdout
    with opened(report, width=400) as narrow:
        assert sideways(narrow) <= 0
    assert dom.count("<section") == 9
    assert dom.count("<nav") == 1
    assert 'src="x"' not in dom
    assert "&lt;img src=x onerror=alert(1)&gt;" in dom
    assert "the &lt;/script&gt;&lt;b&gt;source" in dom
    assert "Stop: a result on these images would not mean what it seems to</title>" in dom
    assert len(re.findall(r"<img[^>]*data:image/jpeg;base64", dom)) >= 2 * (12 + 5) + 2 + 2


# the command


@pytest.mark.slow
@pytest.mark.measured
def test_the_command_writes_page_and_json_and_nothing_else(root, tmp_path):
    done = run_command("audit", f"data.root={root}", "data.image_size=16", "out=found", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Stop: ")
    assert "Defects are told from good joints without looking at solder" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "found"]
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["audit.html", "audit.json"]
    content = json.loads((tmp_path / "found" / "audit.json").read_text())
    assert content["verdict"] == "stop"
    assert content["images"] == 76
    assert [entry["name"] for entry in content["classes"]] == [NORMAL, "short"]
    again = run_command("audit", f"data.root={root}", "out=found", cwd=tmp_path)
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
    assert "nothing is overwritten" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=x"], "data.root is not set"),
        (["out=x", "data.root=/nowhere"], "does not exist"),
        (["out=x", "data.rot=y"], "did you mean data.root?"),
        (["data.root=."], "out"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, arguments, message):
    done = run_command("audit", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_training_warns_of_the_shortcut_before_it_begins(root, tmp_path):
    (root / "normal" / "broken.png").unlink()
    done = run_command(
        "train", "data=folder", "few_normals=accept",
        f"data.root={root}", "data.image_size=16", "trainer.max_epochs=1", "hydra.run.dir=run",
        "logger.mode=disabled", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Shortcut: " in done.stderr
    assert done.stderr.index("Shortcut: ") < done.stderr.index("epoch 1")
