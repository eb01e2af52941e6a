"""What a request brings: a multipart body read whole, within limits, or refused with a status and one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from solder_vae.utils.cli import convert
from solder_vae.utils.errors import UserError, unknown_key
from solder_vae.utils.text import printable

MULTIPART = "multipart/form-data"

_FIELDS = 32  # more than any request has
_LAST_SECONDS = 3.0  # that an upload has left when the service is told to stop


class Refused(Exception):
    """A request that is not answered with verdicts.

    Args:
        status: of HTTP.
        sentence: what is wrong and what to do.
        whole: whether all of the request has been read; else the connection is closed.
    """

    def __init__(self, status: int, sentence: str, whole: bool = True) -> None:
        super().__init__(sentence)
        self.status, self.whole = status, whole


class WholeParser(MultiPartParser):
    """Starlette's parser, which keeps files in memory here and says whether the body's end was there.

    Without the latter, a body that was cut off would pass for one of fewer pictures.
    """

    spool_max_size = 1 << 62
    ended = False

    def on_end(self) -> None:
        self.ended = True


@dataclass
class Uploads:
    """Reads bodies of ``limit`` bytes at most, each within ``seconds``, all together of ``together`` bytes at most."""

    limit: int
    seconds: float
    files: int
    together: int
    used: int = 0
    stopping: bool = False
    _deadlines: set[asyncio.Timeout] = field(default_factory=set)

    def reserve(self, request: Request) -> int:
        """Set memory aside for a request's body; returns how much, to be given back.

        Raises:
            Refused: there is none left, or the service is about to end.
        """
        size = min(content_length(request) or self.limit, self.limit)
        if self.stopping:
            raise Refused(503, "The service is shutting down: send this again to the next one.", whole=False)
        if self.used + size > self.together:
            raise Refused(
                503, "The service has no memory left for another request: try again in a second.", whole=False
            )
        self.used += size
        return size

    def release(self, size: int) -> None:
        self.used -= size

    def stop(self) -> None:
        """Give what is being uploaded a few more seconds."""
        self.stopping = True
        last = asyncio.get_running_loop().time() + _LAST_SECONDS
        for deadline in self._deadlines:
            if (when := deadline.when()) is not None:
                deadline.reschedule(min(when, last))

    async def read(self, request: Request) -> FormData:
        """The form that a request's body holds, its files in memory.

        Raises:
            Refused: it is no multipart form, too large, too slow, cut off or damaged.
            starlette.requests.ClientDisconnect: the client has gone.
        """
        check_type(request.headers)
        try:
            async with asyncio.timeout(self.seconds) as deadline:
                self._deadlines.add(deadline)
                try:
                    return await self._form(request)
                finally:
                    self._deadlines.discard(deadline)
        except TimeoutError as error:
            if self.stopping:
                raise Refused(503, "The service is shutting down: send this again to the next one.", False) from error
            raise Refused(
                408, f"The request did not arrive within {self.seconds:g} s: send it faster.", False
            ) from error

    async def _form(self, request: Request) -> FormData:
        too_large = f"The request is larger than {self.limit / 2**20:g} MiB: send fewer pictures at once."
        async with aclosing(request.stream()) as stream:
            if (content_length(request) or 0) > self.limit:
                if request.headers.get("expect", "").lower() == "100-continue":
                    raise Refused(413, too_large, whole=False)
                async for _ in stream:  # many clients read no answer before they have sent everything
                    pass
                raise Refused(413, too_large)
            parser = WholeParser(
                request.headers, self._counted(stream, too_large), max_files=self.files, max_fields=_FIELDS
            )
            try:
                form = await parser.parse()
            except MultiPartException as error:
                if error.message.startswith("Too many files"):
                    raise Refused(413, f"More than {self.files} files in one request: send fewer.", False) from error
                message = error.message.rstrip(".")
                raise Refused(400, f"The body is no whole multipart form ({message}): send it again.", False) from error
        if not parser.ended:
            raise Refused(400, "The body ends before its last boundary, so a part is missing: send it again.")
        return form

    async def _counted(self, stream: AsyncGenerator[bytes, None], too_large: str) -> AsyncGenerator[bytes, None]:
        """The body, refused once it is larger than it may be: without a length in its header, it may be endless."""
        left = self.limit
        async for chunk in stream:
            left -= len(chunk)
            if left < 0:
                raise Refused(413, too_large, whole=False)
            yield chunk


def content_length(request: Request) -> int | None:
    """What the header says; h11 has refused anything but a number."""
    text = request.headers.get("content-length")
    return None if text is None else int(text)


def check_type(headers: Headers) -> None:
    """Check that the body is a multipart form as it stands.

    Raises:
        Refused: it is something else, or compressed.
    """
    given = headers.get("content-type", "")
    if parse_options_header(given)[0] != MULTIPART.encode():
        said = f"is {printable(given)[:80]}" if given else "has no type"
        raise Refused(415, f"The body {said}: send {MULTIPART} (curl -F picture=@FILE).", whole=False)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "The body is compressed: send it as it is.", whole=False)


def files_named(form: FormData, name: str) -> list[UploadFile]:
    """The files under a name, in the order in which they came.

    Raises:
        Refused: text is given under that name.
    """
    found = []
    for value in form.getlist(name):
        if not isinstance(value, UploadFile):
            raise Refused(400, f"{name} must be a file with a name: curl -F {name}=@FILE sends one.")
        found.append(value)
    return found


def texts_in(form: FormData, hints: Mapping[str, Any], files: set[str]) -> dict[str, Any]:
    """The values of a form's text fields, converted to the types that ``hints`` names.

    Args:
        form: of the request.
        hints: each field's type: str, int, float, bool, or one of these ``| None``.
        files: the names of the fields that are files.

    Raises:
        Refused: a field is unknown, given twice, a file, or no such value.
    """
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in files:
            continue
        if name not in hints:
            raise Refused(400, unknown_key(printable(name)[:80], [*files, *hints], "this request"))
        if name in values:
            raise Refused(400, f"{name} is given twice: give it once.")
        if isinstance(value, UploadFile):
            raise Refused(400, f"{name} must be text, not a file: curl -F {name}=VALUE sends it.")
        try:
            values[name] = convert(name, printable(value.strip()), hints[name])
        except UserError as error:
            raise Refused(400, str(error)) from error
    return values
