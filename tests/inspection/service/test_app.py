"""What the service answers: the very verdicts of ``predict``, whoever else asks meanwhile."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from checkpoints import SIZE, pictures, png, write_checkpoint, write_images
from commands import run_command
from service import answer_on, request, running

from solder_vae.evaluation.joint_report import overlay
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.joints import BATCH

COUNT = 70
IMAGES = pictures(COUNT, size=24)
PADS = "name,x,y,width,height\nR1.1,2,3,20,16\nR1.2,30,3,20,16\nC7.1,2,40,22,22\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, the pictures, a board, and what ``predict`` says of them."""
    folder = tmp_path_factory.mktemp("service")
    write_checkpoint(folder / "best.ckpt")
    write_images(folder / "pictures", IMAGES)
    (folder / "board.png").write_bytes(png(pictures(1, size=64, seed=5)[0]))
    (folder / "pads.csv").write_text(PADS)
    for given, out in (("images=pictures", "said"), ("board=board.png pads=pads.csv", "said_of_board")):
        result = run_command("predict", "checkpoint=best.ckpt", *given.split(), f"out={out}", cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def said(folder):
    return json.loads((folder / "said/predictions.json").read_text())


@pytest.fixture(scope="module")
def service(folder):
    with running("best.ckpt", "pictures=80", "body_mb=1", cwd=folder) as service:
        yield service


def part(index):
    return "picture", f"pictures/{index:03d}.png", png(IMAGES[index])


def test_pictures_get_the_very_answer_of_predict(service, said):
    assert service.post("/pictures", map(part, range(COUNT))) == (200, said)


def test_a_board_gets_the_very_answer_of_predict(service, folder):
    said = json.loads((folder / "said_of_board/predictions.json").read_text())
    files = [("board", "b.png", (folder / "board.png").read_bytes()), ("pads", "p.csv", PADS)]
    assert service.post("/board", files) == (200, said)
    status, answer = service.post("/board", [*files, ("drawn", "true"), ("margin", "0")])
    assert (status, answer["predictions"]) == (200, said["predictions"])
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(answer["drawn"]), np.uint8), cv2.IMREAD_COLOR)
    assert (drawn == cv2.imread(str(folder / "said_of_board/../said_of_board/board.png"))).all()


def test_maps_are_those_of_the_report(service, folder):
    status, answer = service.post("/pictures", [part(0), part(1), ("maps", "true")])
    verdicts = Inspector.load(folder / "best.ckpt").score(list(IMAGES[:2]))
    assert status == 200
    for row, verdict in zip(answer["predictions"], verdicts, strict=True):
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(row["map"]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert shown.shape == (SIZE, SIZE, 3)
        assert (shown == overlay(verdict.image, verdict.heat_map)).all()


def test_answers_are_not_mixed_up_and_exact_among_others(service, said):
    """Full batches are predict's own, to the bit, whoever asks meanwhile; others, scored together, up to rounding."""
    rows = said["predictions"]
    scores = sorted(row["score"] for row in rows)
    assert min(np.diff(scores)) > 1e-6 * scores[-1], "pictures must be told apart by their scores"
    start = threading.Barrier(8)

    def client(number):
        start.wait()
        random = np.random.default_rng(number)
        for _ in range(6):
            if number < 2:
                status, answer = service.post("/pictures", map(part, range(BATCH * number, BATCH * (number + 1))))
                assert (status, answer["predictions"]) == (200, rows[BATCH * number : BATCH * (number + 1)])
                continue
            chosen = random.choice(COUNT, random.integers(1, 6), replace=False).tolist()
            status, answer = service.post("/pictures", map(part, chosen))
            assert status == 200
            assert [row["path"] for row in answer["predictions"]] == [rows[index]["path"] for index in chosen]
            for row, index in zip(answer["predictions"], chosen, strict=True):
                assert row["scores"] == pytest.approx(rows[index]["scores"], rel=2e-5)
                assert row["label"] == rows[index]["label"]

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(client, range(8)))
    assert service.metric("solder_vae_waiting") == 0


def test_a_picture_that_cannot_be_read_does_not_hold_up_the_others(service, said):
    status, answer = service.post("/pictures", [part(0), ("picture", "half.png", png(IMAGES[1])[:60]), part(2)])
    assert status == 200
    assert [row["path"] for row in answer["predictions"]] == ["pictures/000.png", "pictures/002.png"]
    assert [item["path"] for item in answer["unreadable"]] == ["half.png"]
    assert answer["unreadable"][0]["reason"].startswith("half.png: is ")


GOOD = ("picture", "a.png", png(IMAGES[0]))
BOARD = ("board", "b.png", png(IMAGES[0]))


@pytest.mark.parametrize(
    ("path", "parts", "status", "sentence"),
    [
        ("/pictures", [], 400, "No picture is given"),
        ("/pictures", [("picture", "text")], 400, "picture must be a file"),
        ("/pictures", [GOOD, GOOD], 400, "Two pictures are called a.png"),
        ("/pictures", [("picture", "", png(IMAGES[0]))], 400, "A picture has no name"),
        ("/pictures", [GOOD, ("map", "true")], 400, "'map' is no option of this request: did you mean maps?"),
        ("/pictures", [GOOD, ("maps", "maybe")], 400, "maps=maybe is neither true nor false"),
        ("/pictures", [GOOD, ("maps", "true"), ("maps", "true")], 400, "maps is given twice"),
        ("/pictures", [GOOD, ("maps", "a.txt", b"true")], 400, "maps must be text"),
        ("/pictures", [("picture", f"{n}.png", b"x") for n in range(81)], 413, "More than 80 files in one request"),
        ("/pictures", [("picture", "a.png", bytes(1 << 20))], 413, "The request is larger than 1 MiB"),
        ("/pictures", [("picture", "a.png", b"")], 422, "a.png: is empty"),
        ("/pictures", [("picture", "a.png", b"no"), ("picture", "b.png", b"no")], 422, "(and 1 more cannot be used)"),
        ("/pictures", [("picture", "<b>\x1b[31m.png", b"no")], 422, "<b>"),
        ("/board", [BOARD], 400, "pads must be given as one file, and 0 are"),
        ("/board", [BOARD, BOARD, ("pads", "p.csv", PADS)], 400, "board must be given as one file, and 2 are"),
        ("/board", [BOARD, ("pads", "p.csv", "a,b\n1,2\n")], 422, "pads.csv: has the columns a, b"),
        ("/board", [BOARD, ("pads", "p.csv", PADS)], 422, "boxes are not within board.png (24x24 px)"),
        ("/board", [BOARD, ("pads", "../../p.csv", PADS), ("side", "left")], 422, "side=left is unknown"),
        ("/board", [BOARD, ("pads", "p.csv", PADS), ("size", "big")], 400, "size=big is no number"),
        ("/board", [("board", "b.png", b"no"), ("pads", "p.csv", PADS)], 422, "board.png: is no readable image"),
        ("/boards", [BOARD], 404, "There is nothing at /boards: there are POST /pictures"),
        ("/health", [BOARD], 405, "/health does not take POST"),
    ],
)
def test_bad_requests_are_told_in_one_sentence(service, path, parts, status, sentence):
    found, answer = service.post(path, parts)
    assert (found, list(answer)) == (status, ["error"])
    assert sentence in answer["error"]
    assert "/tmp" not in answer["error"]
    assert "\x1b" not in answer["error"]


@pytest.mark.parametrize(
    ("kind", "body", "status", "sentence"),
    [
        (None, b"abc", 415, "The body has no type: send multipart/form-data"),
        ("image/png", png(IMAGES[0]), 415, "The body is image/png"),
        ("application/json", b"{}", 415, "The body is application/json"),
        ("multipart/form-data", b"abc", 400, "Missing boundary"),
        ("multipart/form-data; boundary=x", b"", 400, "ends before its last boundary"),
        ("multipart/form-data; boundary=x", b"no form", 400, "The body is no whole multipart form"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nnameless\r\n--x--\r\n", 400, "no whole multipart form"),
        ("multipart/form-data; boundary=x; charset=\xff", b"--x--", 400, "No picture is given"),
    ],
)
def test_bodies_that_are_no_forms(service, kind, body, status, sentence):
    found, text = service.ask("POST", "/pictures", body, kind)
    answer = json.loads(text)
    assert (found, list(answer)) == (status, ["error"])
    assert sentence in answer["error"]


def test_a_body_that_ends_early_is_not_taken_for_fewer_pictures(service):
    whole = request("/pictures", [part(0), part(1)])
    cut = whole[: whole.rindex(b'name="picture"')]
    head, _, body = cut.partition(b"\r\n\r\n")
    length = str(len(whole) - len(head) - 4).encode()
    with service.connection() as connection:
        connection.sendall(cut.replace(length, str(len(body)).encode(), 1))
        status, answer = answer_on(connection)
    assert status == 400
    assert "ends before its last boundary" in answer["error"]


def test_health_and_metrics_say_what_happens(service, folder):
    status, health = service.get("/health")
    assert status == 200
    assert {
        "status": "ready",
        "checkpoint": "best.ckpt",
        "model": "beta_vae",
        "replaced": False,
    }.items() <= health.items()
    before = {name: service.metric(f'solder_vae_joints_total{{verdict="{name}"}}') for name in ("normal", "abnormal")}
    answered = service.metric('solder_vae_requests_total{path="/pictures",status="200"}')
    _, answer = service.post("/pictures", map(part, range(10)))
    for name, count in before.items():
        found = sum(row["label"] == name for row in answer["predictions"])
        assert service.metric(f'solder_vae_joints_total{{verdict="{name}"}}') == count + found
    assert service.metric('solder_vae_requests_total{path="/pictures",status="200"}') == answered + 1
    assert service.metric("solder_vae_batch_joints_count") > 0
    sha256 = health["sha256"]
    info = f'solder_vae_checkpoint_info{{model="beta_vae",path="best.ckpt",sha256="{sha256}"}}'
    assert service.metric(info) == 1
