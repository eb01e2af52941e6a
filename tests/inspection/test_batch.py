"""The predict command: what it writes, what it leaves out, that it stays in its folder, and its report in a browser."""

import base64
import csv
import json
import re
import shutil
import subprocess
import time
from urllib.parse import urlencode

import cv2
import numpy as np
import pytest
from checkpoints import SIZE, pictures, png, write_checkpoint, write_images
from commands import run_command, train
from pages import Page

from solder_vae.evaluation.joint_report import HEAT_HIGH, HEAT_LOW, axis, overlay, page
from solder_vae.inspection import batch as inspection
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.joints import find_joints
from solder_vae.predict import run
from solder_vae.utils.errors import UserError

HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    '"><script>document.title="owned"<',
    "quote'\".png",
    "line\nbreak\x1b[31m.png",
    "&amp;.png",
    "ünïcödé 焊点.PNG",
    "${HOME}$(id)`id`.png",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")[0]


def rows_of(out):
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_and_report_say_what_the_inspector_says(checkpoint, tmp_path, capsys):
    images = pictures(45)
    paths = write_images(tmp_path / "images", images)
    out = tmp_path / "new" / "out"
    assert run([f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={out}"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["predictions.csv", "predictions.json", "report.html"]
    verdicts = Inspector.load(checkpoint).score(paths)
    content = json.loads((out / "predictions.json").read_text())
    cards = Page((out / "report.html").read_text(encoding="utf-8")).data["joints"]
    assert [card["score"] for card in cards] == sorted((verdict.score for verdict in verdicts), reverse=True)
    by_name = {card["path"]: card for card in cards}
    for row, entry, verdict in zip(rows_of(out), content["predictions"], verdicts, strict=True):
        assert row["path"] == entry["path"] == verdict.name
        assert row["label"] == entry["label"] == by_name[verdict.name]["label"] == verdict.label
        assert entry["score"] == by_name[verdict.name]["score"] == verdict.score
        assert np.float32(row["score"]) == np.float32(verdict.score)
        assert float(row["threshold"]) == entry["threshold"] == verdict.threshold
        assert float(row["margin"]) == pytest.approx(verdict.margin, rel=1e-6)
        assert (float(row["margin"]) > 0) == (row["label"] == "abnormal")
        assert {name: np.float32(row[name]) for name in ("recon", "elbo", "gradcon")} == pytest.approx(verdict.scores)
    abnormal = sum(verdict.abnormal for verdict in verdicts)
    assert 0 < abnormal < 45
    assert f"{abnormal} of 45 joints called abnormal" in capsys.readouterr().out


def test_unreadable_images_are_listed_counted_and_left_out(checkpoint, tmp_path, capsys):
    paths = write_images(tmp_path / "images", pictures(6))
    paths[1].write_bytes(b"no image")
    paths[4].write_bytes(png(pictures(1)[0])[:50])
    out = tmp_path / "out"
    assert run([f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={out}"]) == 3
    assert [row["path"] for row in rows_of(out)] == [str(paths[index]) for index in (0, 2, 3, 5)]
    assert [item["path"] for item in json.loads((out / "predictions.json").read_text())["unreadable"]] == [
        str(paths[1]),
        str(paths[4]),
    ]
    errors = capsys.readouterr().err
    assert "2 of 6 images could not be read" in errors
    assert str(paths[1]) in errors
    assert len(Page((out / "report.html").read_text(encoding="utf-8")).data["unreadable"]) == 2
    shutil.rmtree(out)
    for path in paths:
        path.write_bytes(b"no image")
    assert run([f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={out}"]) == 3
    assert rows_of(out) == []


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_nothing_is_written_outside_and_no_name_becomes_markup(checkpoint, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in HOSTILE:
        (images / name.replace("/", "_")).with_suffix(".png").write_bytes(png(pictures(1)[0]))
    before = tree(tmp_path)
    out = tmp_path / "out"
    assert run([f"checkpoint={checkpoint}", f"images={images}", f"out={out}"]) == 0
    after = tree(tmp_path)
    assert {path for path in after if path not in before} == {out, *out.iterdir()}
    assert all(after[path] == before[path] for path in before)
    report = Page((out / "report.html").read_text(encoding="utf-8"))
    assert not {"img", "article"} & set(report.tags)
    assert report.tags.count("script") == 2
    assert {card["path"] for card in report.data["joints"]} == {row["path"] for row in rows_of(out)}
    assert len(rows_of(out)) == len(HOSTILE)
    assert "\x1b" not in (out / "predictions.csv").read_text()


def test_a_failure_leaves_nothing_behind(checkpoint, tmp_path, monkeypatch):
    write_images(tmp_path / "images", pictures(3))
    monkeypatch.setattr(inspection, "page", lambda *_, **__: 1 / 0)
    before = tree(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run([f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}"])
    assert tree(tmp_path) == before


def test_nothing_is_overwritten(checkpoint, tmp_path):
    write_images(tmp_path / "images", pictures(3))
    arguments = [f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}"]
    (tmp_path / "empty").mkdir()
    assert run([*arguments, f"out={tmp_path / 'empty'}"]) == 0
    for taken in (tmp_path / "empty", tmp_path / "images", tmp_path / "images/000.png"):
        before = tree(tmp_path)
        with pytest.raises(UserError, match="nothing is overwritten"):
            run([*arguments, f"out={taken}"])
        assert tree(tmp_path) == before


def test_images_by_folder_file_pattern_and_table(tmp_path, monkeypatch):
    write_images(tmp_path / "a", pictures(3))
    write_images(tmp_path / "a" / "deep", pictures(2))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "no_suffix").write_bytes(png(pictures(1)[0]))
    table = tmp_path / "list.csv"
    table.write_text("board,Path\n7,a/001.png\n7,a/deep/000.png\n")

    def found(images):
        return [str(joint.image.relative_to(tmp_path)) for joint in find_joints(str(images))]

    everything = ["a/000.png", "a/001.png", "a/002.png", "a/deep/000.png", "a/deep/001.png"]
    assert found(tmp_path / "a") == everything
    assert found(tmp_path / "a" / "no_suffix") == ["a/no_suffix"]
    assert found(tmp_path / "a" / "*") == everything[:3]
    assert found(tmp_path / "**" / "000.png") == ["a/000.png", "a/deep/000.png"]
    assert found(table) == ["a/001.png", "a/deep/000.png"]
    table.write_text(f"path,label\n{tmp_path / 'a/002.png'},normal\na/001.png,normal\n")  # as in predictions.csv
    assert found(table) == ["a/002.png", "a/001.png"]
    (tmp_path / "[odd] *.png").write_bytes(png(pictures(1)[0]))
    assert found(tmp_path / "[odd] *.png") == ["[odd] *.png"]  # a file of that name comes before the pattern
    monkeypatch.chdir(tmp_path)
    (tmp_path / "=cmd.png").write_bytes(png(pictures(1)[0]))
    assert [joint.name for joint in find_joints("=cmd.png")] == ["./=cmd.png"]  # no formula in a spreadsheet


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\n../secret.png\n", "line 2"),
        ("path\nC:\\x.png\n", "is a path of another system"),
        ("path,board\n,7\n", "line 2"),
        ("file\na.png\n", "needs the column path"),
        ("", "needs the column path"),
        ("path\n", "has no rows"),
        (b"path\n\0\n", "is no text"),
    ],
)
def test_wrong_tables(text, message, tmp_path):
    (tmp_path / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        find_joints(str(tmp_path / "list.csv"))


def test_pictures_that_are_not_read_end_with_status_3(checkpoint, tmp_path, caplog):
    write_images(tmp_path / "images", pictures(3))
    shutil.copy(tmp_path / "images/000.png", tmp_path / "images/000_mask.png")
    for name in ("a.gif", "b.GIF", "c.avif"):
        (tmp_path / "images" / name).write_bytes(b"?")
    assert run([f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}"]) == 3
    assert "Left out 3 pictures of formats that are not read: 1 .avif, 2 .gif." in caplog.text
    assert "Left out 1 folder or file that hold masks" in caplog.text
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 4
    # What it wrote names whole paths and can be given back; masks alone are no reason to complain.
    again = [f"checkpoint={checkpoint}", f"images={tmp_path / 'out/predictions.csv'}", f"out={tmp_path / 'again'}"]
    assert run(again) == 0


def test_mistakes_get_one_sentence(checkpoint, tmp_path):
    write_images(tmp_path / "images", pictures(1))
    (tmp_path / "bad.ckpt").write_bytes(b"junk")
    good = {"checkpoint": str(checkpoint), "images": str(tmp_path / "images"), "out": str(tmp_path / "out")}
    for change, message in [
        ({"images": str(tmp_path / "nowhere")}, "does not exist"),
        ({"images": str(tmp_path / "*.png")}, "has no images"),
        ({"checkpoint": str(tmp_path / "bad.ckpt")}, "bad.ckpt"),
        ({"checkpoint": str(tmp_path / "nowhere.ckpt")}, "nowhere.ckpt"),
        ({"out": ""}, "out=... must be given"),
        ({"imges": "x"}, "did you mean images"),
        ({"out": str(checkpoint / "below")}, "cannot be made"),
    ]:
        with pytest.raises(UserError, match=re.escape(message)):
            run([f"{key}={value}" for key, value in {**good, **change}.items()])
        assert not (tmp_path / "out").exists()


def test_the_command_prints_help_and_mistakes(tmp_path):
    shown = run_command("predict", "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "checkpoint=PATH images=DIR|FILE|GLOB|CSV out=DIR" in shown.stdout
    wrong = run_command("predict", "checkpoint=nowhere.ckpt", "images", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: 'images' is not key=value")
    assert len(wrong.stderr.splitlines()) == 1


def test_the_report_keeps_the_worst(checkpoint, tmp_path, monkeypatch):
    write_images(tmp_path / "images", pictures(30))
    monkeypatch.setattr(inspection, "IN_REPORT", 4)
    run([f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}"])
    data = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).data
    scores = sorted((float(row["score"]) for row in rows_of(tmp_path / "out")), reverse=True)
    assert [card["score"] for card in data["joints"]] == pytest.approx(scores[:4])
    assert "4 worst joints" in data["source"]


def test_the_report_shows_joint_reconstruction_and_map(checkpoint, tmp_path):
    images = pictures(4)
    paths = write_images(tmp_path / "images", images)
    run([f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}"])
    verdicts = {verdict.name: verdict for verdict in Inspector.load(checkpoint).score(paths)}
    for card in Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).data["joints"]:
        strip = cv2.imdecode(np.frombuffer(base64.b64decode(card["picture"]), np.uint8), cv2.IMREAD_COLOR_RGB)
        assert strip.shape == (SIZE, 3 * SIZE, 3)
        verdict = verdicts[card["path"]]
        shown = (verdict.image, verdict.recon, overlay(verdict.image, verdict.heat_map))
        for part, expected in zip(np.split(strip, 3, axis=1), shown, strict=True):
            assert np.abs(part.astype(int) - expected).mean() < 12  # JPEG loses some


def test_colour_in_the_map_means_anomaly():
    image = pictures(1, 32)[0]
    calm = overlay(image, np.full((32, 32), HEAT_LOW, np.float32))
    assert (calm == calm[..., :1]).all()  # grey
    hot = np.zeros((32, 32), np.float32)
    hot[5, 7], hot[20, 20] = HEAT_HIGH, 100 * HEAT_HIGH
    shown = overlay(image, hot).astype(int)
    coloured = np.argwhere(np.ptp(shown, axis=-1) > 0)
    assert coloured.tolist() == [[5, 7], [20, 20]]


def test_the_axis_holds_threshold_and_normals():
    for normals, threshold in [(np.linspace(0, 1, 100), 0.95), ([2.0], 2.0), ([1.0, 1.0], -3.0), ([0.0], 0.0)]:
        found = axis(sorted(normals), threshold)
        assert found["low"] <= min(*normals, threshold)
        assert found["high"] > max(*normals, threshold)
        assert max(found["bars"]) == 1
    far = axis([*np.linspace(0, 1, 1000), 1e6], 0.9)
    assert far["high"] < 3


@pytest.mark.slow
def test_the_same_image_scores_the_same_in_training_and_afterwards(tmp_path):
    from solder_vae.data.synthetic.source import SyntheticSource

    options = {"data.train": 48, "data.val": 24, "data.test_normal": 9, "data.test_abnormal": 9, "data.image_size": 16}
    assert train("hydra.run.dir=run", cwd=tmp_path).returncode == 0
    names = {key.removeprefix("data."): value for key, value in options.items()}
    table = SyntheticSource(**names, render_workers=1).tables()["test"]
    write_images(tmp_path / "images", table.images)
    result = run_command("predict", "checkpoint=run/best.ckpt", "images=images", "out=out", cwd=tmp_path, fresh=True)
    assert result.returncode == 0, result.stderr
    trained, new = rows_of(tmp_path / "run"), rows_of(tmp_path / "out")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["test/localisation/regions"] > 0
    assert 0 <= metrics["test/localisation/defect/bridge/aupro"] <= 1
    for one, other in zip(trained, new, strict=True):
        for score in ("recon", "elbo", "gradcon"):
            assert float(one[score]) == pytest.approx(float(other[score]), rel=2e-6)
        assert (one["predicted"] == "1") == (other["label"] == "abnormal")
        assert one["threshold"] == other["threshold"]


# in a browser ---------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")


def browse(report, profile, **filters):
    """The document as it is once its script has run, with filters from the address; and its articles' texts."""
    address = report.resolve().as_uri() + ("#" + urlencode(filters) if filters else "")
    result = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=2000",
            "--window-size=1400,1000",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout, re.findall(r"<article class=\"(\w+)\"", result.stdout)


def report_of(path, count, inspector):
    """A report of ``count`` joints with scores spread around the threshold, every tenth abnormal."""
    threshold = inspector.threshold.value
    image = base64.b64encode(b"x" * 1500).decode()
    cards = [
        {
            "path": f"board{index // 50}/{HOSTILE[index % len(HOSTILE)]}{index}",
            "score": threshold + (1.0 if index % 10 == 0 else -1.0) * (index + 1) / count,
            "margin": (1.0 if index % 10 == 0 else -1.0) * (index + 1) / count,
            "label": "abnormal" if index % 10 == 0 else "normal",
            "rank": 0.5,
            "scores": {"gradcon": 1.0},
            "picture": image,
        }
        for index in range(count)
    ]
    text = page(
        cards,
        [],
        inspector.normals,
        inspector.threshold,
        primary="gradcon",
        reconstructs=True,
        title="a <b>title</b>",
        count=count,
        source="</script><b>",
    )
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.slow
@in_browser
def test_browser_filters_and_shows_names_as_text(checkpoint, tmp_path):
    report = report_of(tmp_path / "report.html", 40, Inspector.load(checkpoint))
    dom, labels = browse(report, tmp_path / "profile")
    assert labels == ["abnormal"] * 4 + ["normal"] * 36  # worst first
    assert "40 of 40 shown" in dom
    assert "&lt;img src=x onerror=alert(1)&gt;" in dom
    assert 'src="x"' not in dom
    assert "owned</title>" not in dom
    assert "a &lt;b&gt;title&lt;/b&gt;" in dom
    _, labels = browse(report, tmp_path / "profile", label="abnormal")
    assert labels == ["abnormal"] * 4
    _, labels = browse(report, tmp_path / "profile", min=-0.2, max=0.1)
    assert labels == ["abnormal"] + ["normal"] * 7
    dom, labels = browse(report, tmp_path / "profile", name="焊点")
    assert len(labels) == 5
    assert "5 of 40 shown" in dom
    _, labels = browse(report, tmp_path / "profile", sort="close")
    assert labels[:3] == ["abnormal", "normal", "normal"]


@pytest.mark.slow
@in_browser
def test_browser_obeys_the_keyboard(checkpoint, tmp_path):
    report = report_of(tmp_path / "report.html", 40, Inspector.load(checkpoint))
    press = "document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }))"

    def after(*keys):
        typed = tmp_path / "typed.html"
        script = f"<script>for (const key of {json.dumps(keys)}) {press};</script></body>"
        typed.write_text(report.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
        return browse(typed, tmp_path / "profile")

    dom, labels = after("n", "j", "j", "k", "j")
    assert labels == ["normal"] * 36
    chosen = [article for article in dom.split("<article")[1:] if "aria-current" in article.split(">")[0]]
    assert len(chosen) == 1
    assert dom.split("<article").index(chosen[0]) == 2  # the second card
    dom, labels = after("a", "End", "Enter")
    assert labels == ["abnormal"] * 4
    shown = re.search(r"<dialog.*</dialog>", dom, re.DOTALL)[0]
    assert re.match(r"<dialog[^>]* open", shown)
    assert "4 of 4" in shown
    assert "(decides)" in shown


@pytest.mark.slow
@in_browser
def test_browser_bears_5000_joints(checkpoint, tmp_path):
    report = report_of(tmp_path / "report.html", 5000, Inspector.load(checkpoint))
    started = time.monotonic()
    dom, labels = browse(report, tmp_path / "profile")
    assert time.monotonic() - started < 120  # for ever, if all of it were drawn at once
    assert "5000 of 5000 shown" in dom
    assert 0 < len(labels) <= 300  # the rest is made when it is scrolled to
