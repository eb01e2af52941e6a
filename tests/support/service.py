"""The HTTP service as a client sees it: started as a command, spoken to by the standard library alone."""

import http.client
import json
import re
import signal
import socket
import subprocess
import uuid
from contextlib import contextmanager
from pathlib import Path

import warm


def multipart(parts):
    """Content type and body of a form; ``parts`` are ``(field, text)`` or ``(field, file name, bytes)``."""
    boundary = uuid.uuid4().hex
    body = bytearray()
    for field, *name, content in parts:
        named = f'; filename="{name[0]}"' if name else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{named}\r\n\r\n'.encode()
        body += (content if isinstance(content, bytes) else content.encode()) + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", bytes(body) + f"--{boundary}--\r\n".encode()


def request(path, parts, length=None, **headers):
    """A whole request as bytes; its header says ``length`` instead of the body's own, if given."""
    kind, body = multipart(parts)
    lines = {"host": "x", "content-type": kind, "content-length": len(body) if length is None else length, **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Service:
    """A running one: ``post``, ``get``, or a bare ``connection``."""

    def __init__(self, process, port):
        self.process, self.port = process, port

    def ask(self, method, path, body=None, kind=None, timeout=300):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"content-type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def post(self, path, parts):
        kind, body = multipart(parts)
        status, text = self.ask("POST", path, body, kind)
        return status, json.loads(text)

    def get(self, path):
        status, text = self.ask("GET", path)
        return status, json.loads(text)

    def metric(self, name):
        """A sample's value, by its name with its labels; 0 if there is none yet."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask("GET", "/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def connection(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=300)

    def end(self):
        """SIGTERM; returns exit status and what was written to standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=300)
        return self.process.returncode, errors


def answer_on(connection):
    """Status and content of the answer that comes on a bare connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())


@contextmanager
def running(checkpoint, *options, cwd):
    """A service in a process of its own, on a free port; it ends without a word when the block does."""
    command = [warm.python(), "-m", "solder_vae.serve", f"checkpoint={checkpoint}", "port=0", *options]
    process = subprocess.Popen(command, cwd=Path(cwd), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        found = re.match(r"Listening on http://127\.0\.0\.1:(\d+): ", said)
        assert found, said + process.stderr.read()
        service = Service(process, int(found[1]))
        yield service
        if process.poll() is None:
            status, errors = service.end()
            errors = re.sub(r"libpng (error|warning): .*\n", "", errors)  # which it writes by itself
            assert (status, errors) == (0, ""), errors or status
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
