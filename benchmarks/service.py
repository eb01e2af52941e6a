"""Load on the service: ``python -m benchmarks.service checkpoint=PATH images=DIR [seconds=60]``.

Starts it, lets eight clients ask without a pause for single pictures, then for eight at once, and holds the joints a
second against ``predict`` on the same pictures. Then everything goes wrong at once for as long while they go on asking:
bombs, uploads that are cut off, clients that send a byte a second, garbage, a checkpoint that is replaced; and at last
SIGTERM. Every answer is compared with predict's. The clients run on the same cores as the service.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from solder_vae.inspection.joints import find_joints
from solder_vae.utils.cli import command, parse

CLIENTS = 8
SLOW = 50
ROUNDING = 1e-4
"""By which a score may differ relatively: the size of the batch changes its last digits."""


@dataclass(frozen=True)
class Options:
    checkpoint: str
    images: str
    seconds: float = 60.0
    most: int = 2000


@dataclass
class Load:
    """What clients found: the seconds of each request, how requests ended, wrong scores."""

    seconds: list[float] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    joints: int = 0
    wrong: int = 0


class Server:
    """The command in a process of its own."""

    def __init__(self, checkpoint: Path, *options: str) -> None:
        arguments = [sys.executable, "-m", "solder_vae.serve", f"checkpoint={checkpoint}", "port=0", *options]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout
        said = self.process.stdout.readline()
        found = re.search(r":(\d+): ", said)
        assert found, said
        self.port = int(found[1])
        self.errors: list[str] = []
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        assert self.process.stderr
        self.errors += [line for line in self.process.stderr if not line.startswith("libpng ")]

    def metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        found = re.search(rf"^{name} (\S+)$", connection.getresponse().read().decode(), re.MULTILINE)
        connection.close()
        return float(found[1]) if found else 0.0

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


def form(parts: Sequence[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Content type and body of pictures ``(name, content)``."""
    boundary = uuid.uuid4().hex
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="picture"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in parts
    )
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def raw(kind: str, body: bytes) -> bytes:
    head = f"POST /pictures HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ask(
    server: Server, files: Sequence[Path], expected: dict[str, float], together: int, until: Callable[[], bool]
) -> Load:
    """Eight clients, each asking again as soon as it has its answer."""
    load, lock, numbers = Load(), threading.Lock(), count()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        while not until():
            with lock:
                first = next(numbers) * together
            chosen = [files[(first + index) % len(files)] for index in range(together)]
            kind, body = form([(path.as_posix(), path.read_bytes()) for path in chosen])
            started = time.perf_counter()
            try:
                connection.request("POST", "/pictures", body, {"content-type": kind})
                answer = connection.getresponse()
                content = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with lock:
                    load.ended[type(error).__name__] += 1
                time.sleep(0.1)
                continue
            with lock:
                load.ended[str(answer.status)] += 1
                if answer.status == 200:
                    load.seconds.append(time.perf_counter() - started)
                    load.joints += len(content["predictions"])
                    load.wrong += wrong(content["predictions"], chosen, expected)

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return load


def wrong(rows: Sequence[dict[str, Any]], files: Sequence[Path], expected: dict[str, float]) -> int:
    """How many answers are not predict's."""
    names = [path.as_posix() for path in files]
    if [row["path"] for row in rows] != names:
        return len(names)
    scores = np.array([row["score"] for row in rows]), np.array([expected[name] for name in names])
    return int((~np.isclose(*scores, rtol=ROUNDING, atol=0)).sum())


def bombs() -> Iterator[bytes]:
    """Bodies that would cost much to decode or are no pictures at all."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(width: int, height: int, data: bytes) -> bytes:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")

    pixels = zlib.compress(bytes(8192 * (3 * 8192 + 1)), 9)
    yield png(65_535, 65_535, b"x")
    yield png(16, 16, zlib.compress(bytes(1 << 29), 9))
    yield png(8192, 8192, pixels)  # allowed: the largest there may be, in 200 kB
    yield png(16, 16, b"x")[:33] + struct.pack(">I", 0x7FFFFFFF) + b"IDAT"
    yield os.urandom(100_000)


def trouble(
    server: Server, checkpoint: Path, files: Sequence[Path], made: Sequence[bytes], until: Callable[[], bool]
) -> Counter[str]:
    """Does to the service what should not happen, all at once; returns how often each kind ended how."""
    ended: Counter[str] = Counter()
    kind, body = form([(path.as_posix(), path.read_bytes()) for path in files[:8]])
    whole = raw(kind, body)
    random = np.random.default_rng(0)

    def answer_to(data: bytes) -> str:
        with server.socket() as connection:
            connection.sendall(data)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert "error" in json.loads(answer.read()) or answer.status == 200
            return str(answer.status)

    def repeat(name: str, work: Callable[[], str], pause: float) -> None:
        while not until():
            try:
                ended[f"{name}: {work()}"] += 1
            except (OSError, http.client.HTTPException) as error:
                ended[f"{name}: {type(error).__name__}"] += 1
            time.sleep(pause)

    def cut() -> str:
        with server.socket() as connection:
            connection.sendall(whole[: int(random.integers(1, len(whole)))])
        return "cut"

    def garbage() -> str:
        return answer_to(os.urandom(2000) + b"\r\n\r\n")

    def wrong_type() -> str:
        return answer_to(raw("application/json", b'{"picture": 1}'))

    def slow() -> str:
        with server.socket() as connection:
            for place in range(len(whole)):
                connection.sendall(whole[place : place + 1])
                time.sleep(1)
        return "sent"

    def replace() -> str:
        with checkpoint.open("r+b") as file:
            file.write(os.urandom(1 << 16))
        return "replaced"

    works = [
        *((f"bomb {number}", lambda data=data: answer_to(data), 2.0) for number, data in enumerate(made)),
        ("cut off", cut, 0.05),
        ("garbage", garbage, 0.2),
        ("wrong type", wrong_type, 0.2),
        ("checkpoint", replace, 5.0),
        *(("slow", slow, 0.1) for _ in range(SLOW)),
    ]
    threads = [threading.Thread(target=repeat, args=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def predicted(checkpoint: Path, files: Sequence[Path], folder: Path) -> tuple[dict[str, float], float, float]:
    """Scores of ``predict`` by path, its joints a second by the clock, and milliseconds of processor time for each."""
    table = folder / "images.csv"
    table.write_text("path\n" + "".join(f'"{path}"\n' for path in files), encoding="utf-8")
    arguments = [f"checkpoint={checkpoint}", f"images={table}", f"out={folder / 'predicted'}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        [sys.executable, "-m", "solder_vae.predict", *arguments],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    ).stdout  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    content = json.loads((folder / "predicted/predictions.json").read_text())
    rate = re.search(r"(\d+) joints a second", said)
    assert rate, said
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    scores = {row["path"]: row["score"] for row in content["predictions"]}
    return scores, float(rate[1]), 1000 * used / len(files)


def timer(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def told(name: str, load: Load, seconds: float, used: float) -> None:
    p50, p99 = (1000 * np.quantile(load.seconds, share) for share in (0.5, 0.99))
    print(
        f"{name}: {load.joints} joints in {seconds:.0f} s, {load.joints / seconds:.0f} a second, "
        f"{1000 * used / max(1, load.joints):.2f} ms of processor time each; p50 {p50:.0f} ms, p99 {p99:.0f} ms; "
        f"{dict(load.ended)}; wrong: {load.wrong}",
        flush=True,
    )


def run(arguments: list[str]) -> int:
    """Load, then trouble, then the end."""
    options = parse(Options, arguments, __doc__ or "")
    with tempfile.TemporaryDirectory(prefix="solder_vae_") as name:
        folder = Path(name)
        checkpoint = folder / "best.ckpt"
        shutil.copy(options.checkpoint, checkpoint)
        files = [joint.image.resolve() for joint in find_joints(options.images) if isinstance(joint.image, Path)]
        files = [files[index] for index in np.random.default_rng(0).permutation(len(files))[: options.most]]
        load_average = os.getloadavg()[0]
        expected, rate, used = predicted(checkpoint, files, folder)
        print(f"load average before: {load_average:.1f}; {os.cpu_count()} cores, {len(files)} pictures")
        print(
            f"predict: {rate:.0f} joints a second from file to report; {used:.2f} ms of processor time each, all told"
        )
        server = Server(checkpoint, "timeout=10")
        sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        for together in (1, 8):
            before = server.metric("process_cpu_seconds_total")
            load = ask(server, files, expected, together, timer(options.seconds))
            told(f"{together} a request", load, options.seconds, server.metric("process_cpu_seconds_total") - before)
        made = [raw(*form([("bomb", bomb)])) for bomb in bombs()]
        until = timer(options.seconds)
        ended: Counter[str] = Counter()
        troubled = threading.Thread(target=lambda: ended.update(trouble(server, checkpoint, files, made, until)))
        troubled.start()
        before = server.metric("process_cpu_seconds_total")
        load = ask(server, files, expected, 8, until)
        told("8 a request, with trouble", load, options.seconds, server.metric("process_cpu_seconds_total") - before)
        print(f"memory at most so far: {server.metric('process_resident_memory_bytes') / 1e6:.0f} MB at the end of it")
        troubled.join()
        for what, number in sorted(ended.items()):
            print(f"  {what}: {number}")
        assert server.metric(rf'solder_vae_checkpoint_info\{{model="\w+",path="[^"]+",sha256="{sha256}"\}}') == 1
        return the_end(server, files, expected)


def the_end(server: Server, files: Sequence[Path], expected: dict[str, float]) -> int:
    """SIGTERM while eight clients ask for eight pictures each; what they have sent by then must be answered."""
    gone = threading.Event()
    loads: list[Load] = []
    asking = threading.Thread(target=lambda: loads.append(ask(server, files, expected, 8, gone.is_set)))
    asking.start()
    time.sleep(5)
    server.process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    status = server.process.wait(timeout=90)
    took = time.monotonic() - sent
    gone.set()
    asking.join()
    (load,) = loads
    refused = load.ended.pop("ConnectionRefusedError", 0)
    print(
        f"SIGTERM under load: status {status} after {took:.1f} s, stderr {server.errors or 'empty'}; "
        f"{dict(load.ended)}, then refused ({refused} times); wrong: {load.wrong}"
    )
    return 0 if status == 0 and not server.errors and not load.wrong else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        command(run)
