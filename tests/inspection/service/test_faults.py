"""What goes wrong between a client and the service, done for real: nothing crashes, nothing is answered wrongly."""

import http.client
import io
import json
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checkpoints import pictures, png, write_checkpoint
from PIL import Image
from service import answer_on, multipart, request, running

from solder_vae.inspection.joints import BATCH

COUNT = 40
IMAGES = pictures(COUNT, size=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    write_checkpoint(folder / "best.ckpt")
    return folder


@pytest.fixture(scope="module")
def service(folder):
    with running("best.ckpt", "timeout=2", "body_mb=4", cwd=folder) as service:
        yield service


@pytest.fixture(scope="module")
def right(service):
    """What the service says while nothing is wrong, by name."""
    status, answer = service.post("/pictures", map(part, range(COUNT)))
    assert status == 200
    return {row["path"]: row for row in answer["predictions"]}


def part(index):
    return "picture", f"{index}.png", png(IMAGES[index])


def check(service, right):
    """That the service is as well as before."""
    status, answer = service.post("/pictures", [part(3), part(4)])
    assert status == 200
    for row in answer["predictions"]:
        assert row["scores"] == pytest.approx(right[row["path"]]["scores"], rel=2e-5)
    deadline = time.monotonic() + 120
    while service.get("/health")[1]["waiting"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height, data):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_of_many_scans():
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data.index(b"\xff\xda")
    one = data[scan : scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")] + b"\0"
    return data[:scan] + one * 50_000 + b"\xff\xd9"


BOMBS = {
    "4 gigapixels claimed": lambda: png_of(65_535, 65_535, b"x"),
    "half a gigabyte behind the last pixel": lambda: png_of(16, 16, zlib.compress(bytes(1 << 29), 9)),
    "50,000 scans": jpeg_of_many_scans,
    "a chunk of 4 GiB claimed": lambda: png(IMAGES[0])[:33] + struct.pack(">I", 0x7FFFFFFF) + b"IDAT",
}


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_and_cost_little(service, right, bomb):
    data = BOMBS[bomb]()
    used = service.metric("process_resident_memory_bytes")
    started = service.metric("process_cpu_seconds_total")
    status, answer = service.post("/pictures", [("picture", "bomb", data)])
    assert (status, list(answer)) == (422, ["error"])
    assert answer["error"].startswith("bomb: ")
    assert service.metric("process_cpu_seconds_total") - started < 5
    assert service.metric("process_resident_memory_bytes") - used < 300 << 20
    check(service, right)


def test_uploads_that_are_cut_off(service, right):
    whole = request("/pictures", [part(0), part(1)])
    gone = service.metric('solder_vae_requests_total{path="/pictures",status="499"}')
    places = [1, 40, whole.index(b"\r\n\r\n") + 4, len(whole) // 2, len(whole) - 1]
    for place in places:
        with service.connection() as connection:
            connection.sendall(whole[:place])
    check(service, right)
    deadline = time.monotonic() + 120
    with_header = sum(place >= whole.index(b"\r\n\r\n") + 4 for place in places)
    while service.metric('solder_vae_requests_total{path="/pictures",status="499"}') < gone + with_header:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.measured
def test_slow_clients_are_sent_away_and_hold_nobody_up(service, right):
    """Header or body byte by byte; 40 of them, while others are served."""
    whole = request("/pictures", [part(0)])
    head = whole.index(b"\r\n\r\n") + 4
    connections = [service.connection() for _ in range(40)]
    sent = [0 if index % 2 else head for index in range(40)]
    for index, connection in enumerate(connections):
        connection.sendall(whole[: sent[index]])
    ended = [False] * 40
    started = time.monotonic()
    while not all(ended) and time.monotonic() < started + 120:
        for index, connection in enumerate(connections):
            try:
                connection.sendall(whole[sent[index] : sent[index] + 1])
                sent[index] += 1
            except OSError:
                ended[index] = True
        time.sleep(0.15)
        check(service, right)
    assert all(ended)
    for connection in connections:
        connection.close()


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize("place", ["header", "body"])
def test_a_client_that_falls_silent_is_told_so(service, place):
    whole = request("/pictures", [part(0)])
    head = whole.index(b"\r\n\r\n") + 4
    with service.connection() as connection:
        connection.sendall(whole[: head + 10 if place == "body" else 20])
        status, answer = answer_on(connection)
        assert status == 408
        assert "did not arrive within 2 s" in answer["error"]
        assert connection.recv(1) == b""


@pytest.mark.slow
@pytest.mark.measured
def test_one_that_is_slow_on_its_second_request(service):
    whole = request("/pictures", [part(0)])
    with service.connection() as connection:
        connection.sendall(whole)
        assert answer_on(connection)[0] == 200
        connection.sendall(whole[:10])
        assert answer_on(connection)[0] == 408


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 2000,
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00" * 30,
        b"POST /pictures HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
    ],
    ids=["zeros", "half a line", "TLS", "endless header"],
)
def test_what_is_no_http_gets_an_answer_in_json(service, right, garbage):
    with service.connection() as connection:
        connection.sendall(garbage)
        status, answer = answer_on(connection)
    assert (status, list(answer)) == (400, ["error"])
    check(service, right)


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_are_too_large_are_not_kept(service, right, chunked):
    """With their length in the header, or without an end."""
    used = service.metric("process_resident_memory_bytes")
    kind, body = multipart([("picture", "a.png", bytes(1 << 16))])
    body = body[: body.rindex(b"\r\n--")]
    length = "transfer-encoding: chunked" if chunked else f"content-length: {1 << 40}\r\nexpect: 100-continue"
    with service.connection() as connection:
        connection.sendall(f"POST /pictures HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n{length}\r\n\r\n".encode())
        try:
            for piece in (body, *[bytes(1 << 16)] * 200) if chunked else ():
                connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        except OSError:  # closed before all was sent
            pass
        else:
            status, answer = answer_on(connection)
            assert status == 413
            assert "The request is larger than 4 MiB" in answer["error"]
    assert service.metric("process_resident_memory_bytes") - used < 50 << 20
    check(service, right)


def test_random_damage_to_a_request(service, right):
    """Bytes changed, left out or repeated: an answer in JSON, or none where the end of the request was damaged."""
    whole = request("/pictures", [part(0), part(1), ("maps", "false")])

    def damaged(case):
        random = np.random.default_rng(case)
        data = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(data)))
            data[place : place + int(random.integers(0, 3))] = random.bytes(int(random.integers(0, 3)))
        with service.connection() as connection:
            connection.sendall(bytes(data))
            connection.shutdown(socket.SHUT_WR)
            try:
                return answer_on(connection)
            except http.client.HTTPException:
                return None, {}

    with ThreadPoolExecutor(16) as clients:
        for status, answer in clients.map(damaged, range(100)):
            assert status in (None, 200, 400, 404, 405, 408, 413, 415, 422), (status, answer)
            assert status in (None, 200) or list(answer) == ["error"]
    check(service, right)


def test_a_checkpoint_that_is_replaced_changes_nothing_until_the_next_start(folder, tmp_path):
    (tmp_path / "best.ckpt").write_bytes((folder / "best.ckpt").read_bytes())
    with running("best.ckpt", cwd=tmp_path) as service:
        before, health = service.post("/pictures", [part(0)]), service.get("/health")[1]
        with (tmp_path / "best.ckpt").open("r+b") as file:  # in place: the same file, other bytes
            file.write(bytes(file.seek(0, 2) and 1 << 16))
        assert service.post("/pictures", [part(0)]) == before
        write_checkpoint(tmp_path / "new.ckpt", model="cae", score="recon")
        (tmp_path / "new.ckpt").replace(tmp_path / "best.ckpt")
        assert service.post("/pictures", [part(0)]) == before
        assert service.get("/health")[1] == {**health, "replaced": True}


@pytest.mark.slow
@pytest.mark.measured
def test_the_end_under_load(folder, right):
    """SIGTERM while eight clients ask: what had begun is answered and right, the rest is refused, exit status 0."""
    with running("best.ckpt", cwd=folder) as service:
        whole = request("/pictures", map(part, range(COUNT)))
        half = len(whole) // 2
        begun = [service.connection() for _ in range(4)]
        stuck = service.connection()
        for connection in [*begun, stuck]:
            connection.sendall(whole[:half])
        ended, answered = threading.Event(), []

        def client(_):
            while not ended.is_set():
                try:
                    status, answer = service.post("/pictures", [part(1), part(2)])
                except OSError:  # no longer listening
                    return
                assert status == 200 or (status == 503 and "shutting down" in answer["error"])
                answered.extend(answer.get("predictions", []))

        with ThreadPoolExecutor(8) as clients:
            asking = [clients.submit(client, number) for number in range(8)]
            while len(answered) < 40:
                time.sleep(0.02)
            service.process.terminate()
            for connection in begun:
                connection.sendall(whole[half:])
            for connection in begun:
                status, answer = answer_on(connection)
                assert status == 200
                answers = {row["path"]: row for row in answer["predictions"]}
                assert answers.keys() == right.keys()
                full = [f"{index}.png" for index in range(BATCH)]
                assert [answers[path] for path in full] == [right[path] for path in full]
                for path in answers.keys() - set(full):  # scored with what others ask: up to rounding
                    assert answers[path]["scores"] == pytest.approx(right[path]["scores"], rel=2e-5)
                    for name in ("label", "threshold"):
                        assert answers[path][name] == right[path][name]
            status, answer = answer_on(stuck)
            assert status == 503
            assert "shutting down" in answer["error"]
            ended.set()
            for each in asking:
                each.result()
        for row in answered:
            assert row["scores"] == pytest.approx(right[row["path"]]["scores"], rel=2e-5)
        _, errors = service.process.communicate(timeout=300)
        assert (service.process.returncode, errors) == (0, "")


def test_a_client_that_does_not_wait_for_its_answer(service, right):
    for _ in range(10):
        with service.connection() as connection:
            connection.sendall(request("/pictures", map(part, range(COUNT))))
    check(service, right)
    assert json.loads(service.ask("GET", "/health")[1])["status"] == "ready"
