"""From verdicts in the report to a better checkpoint: clicks and keys in a browser, and the commands that take them."""

import csv
import json

import numpy as np
import pytest
from checkpoints import SIZE, pictures, write_checkpoint, write_images
from commands import run_command
from pages import in_browser, opened, sideways

from solder_vae.data.known import known_records
from solder_vae.data.table import ImageTable
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.joints import classes, find_joints
from solder_vae.predict import run as predict
from solder_vae.threshold import run as threshold
from solder_vae.utils.errors import UserError

SCENES = pictures(12, seed=7)  # of a new kind, good


def table(images):
    count = len(images)
    return ImageTable(images, [str(row) for row in range(count)], ["normal"] * count, np.full((count, 2), SIZE))


def dimmed(images, seed):
    """The same joints in another light, with other noise of the camera."""
    noise = np.random.default_rng(seed).normal(0, 3, images.shape)
    return (images * 0.4 + 5 + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A folder with a checkpoint, joints that it calls, some of them good, and their report."""
    folder = tmp_path_factory.mktemp("loop")
    tables = {"train": table(pictures(60, seed=1)), "val": table(pictures(30, seed=2))}
    write_checkpoint(folder / "best.ckpt", score="knn", tables=tables, scores={"knn": {}})
    write_images(folder / "line" / "a board", [*dimmed(SCENES, 1), *(255 - pictures(8, seed=3) // 3)])
    arguments = ["rule=false_call_rate", "rate=0.1", f"out={folder / 'calibrated'}"]
    assert threshold([f"checkpoint={folder / 'best.ckpt'}", *arguments]) == 0
    checkpoint = folder / "calibrated" / "calibrated.ckpt"
    assert predict([f"checkpoint={checkpoint}", f"images={folder / 'line'}", f"out={folder / 'seen'}"]) == 0
    assert all(verdict.abnormal for verdict in Inspector.load(checkpoint).score(dimmed(SCENES, 2)))
    return folder


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def cards(page):
    return page.locator("article .name").all_text_contents()


def number(name):
    return int(name.removesuffix(".png"))


@pytest.mark.slow
@in_browser
@pytest.mark.measured
def test_the_whole_loop(seen, tmp_path):
    """Each joint gets its verdict, by keys or by mouse; the table that is saved goes to threshold and to train."""
    with opened(seen / "seen/report.html") as page:
        names = cards(page)
        assert len(names) == 20
        press(page, "j")  # to the first
        for name in names[:-3]:  # each key goes on to the next
            if number(name) < 12:
                press(page, "f")
            elif number(name) < 16:
                press(page, "t")
                page.keyboard.type("void")
                press(page, "Enter", "j")
            else:
                press(page, "1" if page.locator("#numbers kbd").count() else "r")
        last = dict(zip(names, page.locator("article").all(), strict=True))
        for name in names[-3:]:
            last[name].get_by_role("button", name="undecided").click()
        assert not page.locator("dialog").evaluate("node => node.open")  # a click on a verdict enlarges nothing
        assert "3 undecided, 0 without" in page.locator("#tally").inner_text()
        page.reload()
        assert "3 undecided, 0 without" in page.locator("#tally").inner_text()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save verdicts").click()
        assert download.value.suggested_filename == "verdicts.csv"
        download.value.save_as(tmp_path / "elsewhere" / "verdicts.csv")
    verdicts = tmp_path / "elsewhere" / "verdicts.csv"
    with verdicts.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {str(path) for path in (seen / "line/a board").iterdir()}
    undecided = set(names[-3:])
    decided = {row["path"].rpartition("/")[2]: row["label"] for row in rows if row["label"] != "undecided"}
    assert decided.keys() == set(names) - undecided
    for name, label in decided.items():
        assert (label == "normal") == (number(name) < 12)
        assert number(name) < 12 or label in ("void", "defect")
    good = sum(label == "normal" for label in decided.values())

    checkpoint = seen / "calibrated/calibrated.ckpt"
    arguments = [f"checkpoint={checkpoint}", f"labelled={verdicts}", f"out={tmp_path / 'new'}", "memory=add"]
    assert threshold([*arguments, "rule=false_call_rate", "rate=0.1"]) == 0
    before, after = Inspector.load(checkpoint), Inspector.load(tmp_path / "new/calibrated.ckpt")
    assert len(after.model.scores["knn"].memory) == len(before.model.scores["knn"].memory) + good
    assert after.threshold == before.threshold
    again = after.score(dimmed(SCENES, 2))  # other pictures of the same joints
    assert sum(verdict.abnormal for verdict in again) <= 12 - good
    lower, higher = after.score(list(pictures(50, seed=11))), before.score(list(pictures(50, seed=11)))
    assert all(one.score <= other.score + 1e-5 for one, other in zip(lower, higher, strict=True))

    write_images(tmp_path / "root/odd", 255 - pictures(8, seed=4))
    write_images(tmp_path / "root/normal", pictures(60, seed=21))
    trained = run_command(
        "train", "data=folder", "data.root=root", f"data.known={verdicts}", "score=classifier", "data.image_size=16",
        "trainer.max_epochs=1", "pictures=false", "logger.mode=disabled", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    known = json.loads((tmp_path / "run/metrics.json").read_text())
    assert known["known"] == sum(label != "normal" for label in decided.values())
    assert known["known/void"] == sum(label == "void" for label in decided.values())


@pytest.mark.slow
@in_browser
def test_keys_filters_and_width(seen):
    with opened(seen / "seen/report.html") as page:
        worst_first = cards(page)
        press(page, "n")
        assert cards(page) == []
        press(page, "0")
        assert cards(page) == worst_first
        press(page, "/")
        page.keyboard.type("003")
        assert cards(page) == ["003.png"]
        press(page, "Escape")
        assert cards(page) == worst_first
        page.get_by_label("turned round").check()
        assert cards(page) == worst_first[::-1]
        assert "turn=1" in page.url
        page.get_by_label("turned round").uncheck()
        press(page, "Home", "f", "f", "k", "u")
        assert page.locator("[aria-current] [aria-pressed=true]").count() == 0
        page.locator("select[name=verdict]").select_option("undecided")
        assert len(cards(page)) == 1
        press(page, "Escape", "j", "u")  # taken back
        assert "1 false call or good, 0 undecided, 19 without" in page.locator("#tally").inner_text()
    for width in (400, 1280):
        with opened(seen / "seen/report.html", width) as page:
            assert sideways(page) <= 0
            assert page.evaluate("document.querySelector('header').offsetHeight") < 500, "half a phone's screen"


@pytest.mark.slow
def test_undecided_joints_and_mistakes(seen, tmp_path):
    paths = sorted((seen / "line/a board").iterdir())
    table = tmp_path / "verdicts.csv"

    def write(*labels):
        rows = [f"{path},{label}" for path, label in zip(paths, labels, strict=False)]
        table.write_text("\n".join(["path,label", *rows]))

    write("undecided", "Undecided")
    with pytest.raises(UserError, match="all of its 2 joints are undecided"):
        known_records(str(table), ("normal",), False)
    arguments = [f"checkpoint={seen / 'best.ckpt'}", "rule=sigma", f"out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="all of its 2 joints are undecided"):
        threshold([*arguments, f"labelled={table}"])
    write("normal", "undecided", "void")
    assert [(record.path, record.defect) for record in known_records(str(table), ("normal",), False)] == [
        (paths[2], "void")
    ]
    write("void", "undecided")
    with pytest.raises(UserError, match="has no good joints to remember"):
        threshold([*arguments, f"labelled={table}", "memory=add"])
    with pytest.raises(UserError, match="memory=replace needs normals=PATH"):
        threshold([*arguments, f"labelled={table}", "memory=replace"])


def test_what_a_model_called_joints_is_no_truth(seen, tmp_path):
    """Counted on its own verdicts every model looks perfect, and its escapes would be remembered as good joints."""
    called = seen / "seen/predictions.csv"
    arguments = [f"checkpoint={seen / 'calibrated/calibrated.ckpt'}", f"out={tmp_path / 'new'}", "memory=add"]
    with pytest.raises(UserError, match="is a table of predict, whose label is what the model called a joint"):
        threshold([*arguments, "rule=false_call_rate", "rate=0.1", f"labelled={called}"])
    with pytest.raises(UserError, match="is a table of predict"):
        known_records(str(called), ["normal"], skip=True)


def test_what_paths_and_tables_say_of_a_joint(tmp_path):
    """A path says it only below a folder that has one for good joints; what predict called a joint is no truth."""
    places = ["a/ok/1.png", "a/bridge/1.png", "a/OK/R1/1.png", "b/bridge/1.png", "a/1.png", "1.png"]
    assert classes(places, "set") == ["normal", "bridge", "normal", "", "", ""]
    assert classes(["1.png", "x/2.png"], "Good") == ["normal", "normal"]
    write_images(tmp_path / "x", pictures(4))
    names = [f"x/00{at}.png" for at in range(4)]

    def truths(header, *cells):
        rows = [f"{name},{cell}" for name, cell in zip(names, cells, strict=True)]
        (tmp_path / "table.csv").write_text("\n".join([f"path,{header}", *rows]))
        return [joint.truth for joint in find_joints(str(tmp_path / "table.csv"))]

    assert truths("label", "good", "void", "undecided", "") == ["normal", "void", "undecided", ""]
    assert truths("score,threshold,label,rank", *["1,2,abnormal,0.5"] * 4) == [""] * 4
    assert truths("type", *"RRRR") == [""] * 4
