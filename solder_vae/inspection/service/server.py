"""uvicorn as this service needs it: deadlines for slow clients, refusals in JSON, an end that answers what is there."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from solder_vae.utils.errors import UserError

if TYPE_CHECKING:
    from solder_vae.inspection.service.app import Service

_GRACE = 60  # seconds that answers may take after the signal to end


class Protocol(H11Protocol):
    """HTTP/1.1 whose clients have ``timeout_keep_alive`` seconds for a request's header, too; uvicorn waits for ever.

    The body has a deadline of its own (:class:`~solder_vae.inspection.service.uploads.Uploads`).
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.timeout_keep_alive, self._late)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._busy:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.timeout_keep_alive, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, f"{msg.rstrip('.')}: is this HTTP/1.1?")

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self._busy and not self.transport.is_closing():
            self._refuse(
                408, f"The request's header did not arrive within {self.timeout_keep_alive} s: send it faster."
            )

    def _refuse(self, status: int, sentence: str) -> None:
        body = json.dumps({"error": sentence}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        with suppress(h11.LocalProtocolError):  # an answer is under way or sent already
            response = h11.Response(status_code=status, headers=headers)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """Says when it listens, and tells the service when it is to end."""

    def __init__(self, config: uvicorn.Config, service: Service, address: str) -> None:
        super().__init__(config)
        self.service, self.address = service, address
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        print(
            f"Listening on {self.address}: docs/use/serve.md says what to send. SIGTERM or Ctrl-C ends it.", flush=True
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.service.uploads.stop)
        super().handle_exit(sig, frame)


def listener(host: str, port: int) -> socket.socket:
    """A socket that is bound, not listening yet; port 0 takes any.

    Raises:
        UserError: that address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"host={host} port={port} cannot be listened on ({reason}): give others.") from error
    return bound


def url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(service: Service, bound: socket.socket) -> None:
    """Answer requests until SIGTERM or Ctrl-C, then those that are there already."""
    for name in ("uvicorn.error", "python_multipart"):  # what clients do wrong is told to them
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        service.app,
        http=Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=service.limits.seconds,
        timeout_graceful_shutdown=_GRACE,
    )
    server = Server(config, service, url(bound))

    def stop(*_: Any) -> None:
        """uvicorn raises the signal again when it has ended, which should then do nothing more."""
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        server.run(sockets=[bound])
    finally:
        service.close()
