"""What each path of the service answers."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import tempfile
from asyncio import wrap_future
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from solder_vae.data.image_files import Image, decode_image, png_bytes
from solder_vae.evaluation.joint_report import overlay
from solder_vae.evaluation.looks import Looks, looks_of
from solder_vae.inspection.batch import json_head
from solder_vae.inspection.boards.board import Board, read_board
from solder_vae.inspection.boards.options import BoardOptions
from solder_vae.inspection.boards.picture import predictions_on_board
from solder_vae.inspection.drift import BatchLooks
from solder_vae.inspection.inspector import Inspector, Unreadable
from solder_vae.inspection.joints import BATCH, Joint, board_joints, read
from solder_vae.inspection.service.batching import Batcher, Prepared, Results
from solder_vae.inspection.service.metrics import GONE, Metrics
from solder_vae.inspection.service.origin import Origin
from solder_vae.inspection.service.uploads import Refused, Uploads, files_named, texts_in
from solder_vae.metrics.drift import FEWEST
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import cell_safe, printable

T = TypeVar("T")

BODIES = 16
"""How many of the largest bodies fit into the memory that all bodies share."""

_TOGETHER = 8  # pictures decoded by one task
_AHEAD = 2  # batches that a request prepares and has scored at once, so that others get their turn
_BOARDS = 2  # pictures of boards in memory at once
_SUFFIX = re.compile(r"\.[A-Za-z0-9_]{1,16}\Z")

PATHS = ("POST /pictures", "POST /board", "GET /health", "GET /metrics")

PICTURE_FIELDS: dict[str, Any] = {"maps": bool, "component": str}
BOARD_FILES = ("board", "pads", "fiducials", "footprints")
BOARD_FIELDS: dict[str, Any] = {
    "size": float, "fit": str, "side": str, "margin": float, "maps": bool, "drawn": bool,
}  # fmt: skip

Source = UploadFile | Image
"""A joint's picture: uploaded, or cut out of a board's ``(H, W, 3)`` uint8."""


@dataclass(frozen=True)
class Limits:
    """What one request may bring, and how many may wait.

    Attributes:
        body: bytes.
        pictures: in one request; of a board also the most joints whose maps are sent.
        waiting: requests that have arrived and are not answered.
        seconds: that a request's header may take to arrive, and its body.
    """

    body: int = 64 << 20
    pictures: int = 256
    waiting: int = 64
    seconds: int = 30


class Service:
    """An inspector behind HTTP paths; see docs/use/serve.md.

    Args:
        inspector: decides.
        origin: of the checkpoint.
        limits: of requests.
        batch: how many joints of several requests are scored together.
    """

    def __init__(self, inspector: Inspector, origin: Origin, limits: Limits = Limits(), batch: int = BATCH) -> None:
        self.inspector, self.origin, self.limits = inspector, origin, limits
        self.uploads = Uploads(
            limits.body, limits.seconds, files=max(limits.pictures, len(BOARD_FILES)), together=BODIES * limits.body
        )
        self.metrics = Metrics(inspector.model.name, origin)
        self.batcher = Batcher(inspector, batch, self.metrics.batch.observe)
        self.decoders = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decode")
        self.boards = asyncio.Semaphore(_BOARDS)
        self.waiting = 0
        self.app = Starlette(
            routes=[
                Route("/pictures", self.answered(self.pictures), methods=["POST"]),
                Route("/board", self.answered(self.board), methods=["POST"]),
                Route("/health", self.health),
                Route("/metrics", self.scraped),
            ],
            exception_handlers={HTTPException: no_such_thing, Exception: bug},
        )

    def close(self) -> None:
        self.batcher.close()
        self.decoders.shutdown()

    # the paths --------------------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """Whether verdicts can be had, and by which checkpoint."""
        if self.uploads.stopping or not self.batcher.alive:
            return error(503, "The service is shutting down." if self.uploads.stopping else "The network has stopped.")
        about = {"model": self.inspector.model.name, "score": self.inspector.primary}
        return JSONResponse({"status": "ready", **self.origin.to_dict(), **about, "waiting": self.waiting})

    async def scraped(self, request: Request) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def pictures(self, form: FormData) -> dict[str, Any]:
        """Verdicts on uploaded pictures, each of one joint."""
        options = texts_in(form, PICTURE_FIELDS, {"picture"})
        files = files_named(form, "picture")
        if not files:
            raise Refused(400, "No picture is given: curl -F picture=@FILE sends one, and it may be given repeatedly.")
        if len(files) > self.limits.pictures:
            raise Refused(413, f"More than {self.limits.pictures} pictures in one request: send fewer.")
        names = [file.filename or "" for file in files]
        if "" in names:
            raise Refused(400, "A picture has no name: names tell verdicts apart, so give each one.")
        if len(set(names)) < len(names):
            twice = printable(max(names, key=names.count))
            raise Refused(400, f"Two pictures are called {twice}: names tell verdicts apart, so change one.")
        kind = options.get("component", "")
        joints = [Joint(cell_safe(printable(name)), Path(name), kind, name) for name in names]
        return await self.verdicts(list(zip(joints, files, strict=True)), bool(options.get("maps")))

    async def board(self, form: FormData) -> dict[str, Any]:
        """Verdicts on the joints of a board's picture."""
        options = texts_in(form, BOARD_FIELDS, set(BOARD_FILES))
        maps, drawn = bool(options.pop("maps", False)), bool(options.pop("drawn", False))
        files = {name: files_named(form, name) for name in BOARD_FILES}
        for name, given in files.items():
            if len(given) > 1 or (not given and name in ("board", "pads")):
                raise Refused(400, f"{name} must be given as one file, and {len(given)} are: curl -F {name}=@FILE.")
        async with self.boards:
            board = await self.in_pool(located, {name: given[0] for name, given in files.items() if given}, options)
            if maps and len(board.joints) > self.limits.pictures:
                raise Refused(413, f"Maps are sent of {self.limits.pictures} joints at most: ask without maps.")
            answer = await self.verdicts(list(zip(board_joints(board), board.crops(), strict=True)), maps)
            if drawn:
                rows = answer["predictions"]
                answer["drawn"] = await self.in_pool(lambda: base64_of_png(predictions_on_board(board, rows)))
        return answer

    # what they share --------------------------------------------------------------------------------------------------

    def answered(self, handler: Callable[[FormData], Awaitable[dict[str, Any]]]) -> Callable[[Request], Any]:
        """The handler of a form as one of a request, whose refusals are answered in JSON and which is counted."""

        async def endpoint(request: Request) -> Response:
            path = request.url.path
            with self.metrics.seconds.labels(path).time():
                response = await self.respond(request, handler)
            self.metrics.requests.labels(path, response.status_code).inc()
            return response

        return endpoint

    async def respond(self, request: Request, handler: Callable[[FormData], Awaitable[dict[str, Any]]]) -> Response:
        reserved = 0
        try:
            reserved = self.uploads.reserve(request)
            form = await self.uploads.read(request)
            if self.waiting >= self.limits.waiting:
                raise Refused(503, f"{self.waiting} requests are waiting already: try again in a second.")
            self.waiting += 1
            self.metrics.waiting.set(self.waiting)
            try:
                return JSONResponse(await handler(form))
            finally:
                self.waiting -= 1
                self.metrics.waiting.set(self.waiting)
        except Refused as refusal:
            return error(refusal.status, str(refusal), close=not refusal.whole)
        except UserError as mistake:
            return error(422, str(mistake))
        except ClientDisconnect:
            return Response(status_code=GONE)  # nobody reads it
        finally:
            self.uploads.release(reserved)

    async def verdicts(self, joints: Sequence[tuple[Joint, Source]], maps: bool) -> dict[str, Any]:
        """What predictions.json says of joints, in the batches in which ``predict`` scores them.

        Args:
            joints: each with its picture.
            maps: whether each row has a ``map``.

        Raises:
            UserError: no joint has a picture that can be used.
        """
        window = asyncio.Semaphore(_AHEAD)

        compared = len(joints) >= FEWEST

        async def some(batch: Sequence[tuple[Joint, Source]]) -> tuple[list[Any], ...]:
            async with window:
                parts = [batch[start : start + _TOGETHER] for start in range(0, len(batch), _TOGETHER)]
                prepared = await asyncio.gather(*(self.in_pool(self.prepared, part) for part in parts))
                try:
                    results = await wrap_future(self.batcher.submit([joint for part in prepared for joint in part]))
                except UserError as mistake:  # of the checkpoint, not of what was sent
                    raise Refused(500, str(mistake)) from mistake
                if maps or compared:
                    return await self.in_pool(told, results, maps, compared)
                return told(results, maps, compared)

        batches = [joints[start : start + BATCH] for start in range(0, len(joints), BATCH)]
        found = await asyncio.gather(*map(some, batches))
        rows, unreadable, seen = ([*chain.from_iterable(parts)] for parts in zip(*found, strict=True))
        self.metrics.count(rows, unreadable)
        if not rows:
            others = f" (and {len(unreadable) - 1} more cannot be used)" if len(unreadable) > 1 else ""
            raise UserError(unreadable[0].reason + others)
        looks = BatchLooks(self.inspector)
        for each in seen:
            looks.add(each)
        drift = await self.in_pool(looks.drift, rows)
        return json_head(self.inspector, unreadable, self.origin.path, drift) | {"predictions": rows}

    def prepared(self, joints: Sequence[tuple[Joint, Source]]) -> list[Prepared]:
        """Joints with their images as the network takes them, or with what is wrong with these."""
        by = self.inspector.image_size, self.inspector.view, self.inspector.crop
        found: list[Prepared] = []
        for joint, source in joints:
            try:
                image = decoded(source, joint.name) if isinstance(source, UploadFile) else source
                found.append((joint, read(image, *by)))
            except UserError as mistake:
                found.append((joint, mistake))
        return found

    async def in_pool(self, work: Callable[..., T], *arguments: Any) -> T:
        """``work(*arguments)``, done by a thread that decodes."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, partial(work, *arguments))


def decoded(file: UploadFile, name: str) -> Image:
    """An uploaded picture, as :func:`~solder_vae.data.image_files.read_image` gives it.

    Raises:
        UserError: it cannot be used.
    """
    data = np.frombuffer(file.file.read(), np.uint8)
    if not data.size:
        raise UserError(f"{name}: is empty (0 bytes); send it again.")
    return decode_image(data, name)


def located(files: Mapping[str, UploadFile], options: dict[str, Any]) -> Board:
    """A board's picture with its joints, from the files of its fields.

    Raises:
        UserError: see :func:`~solder_vae.inspection.boards.board.read_board`; the message calls files by their fields.
    """
    with tempfile.TemporaryDirectory(prefix="solder_vae_") as folder:
        arguments: dict[str, Any] = dict(options)
        for name, file in files.items():
            path = Path(folder, name + (found[0] if (found := _SUFFIX.search(file.filename or "")) else ""))
            path.write_bytes(file.file.read())
            arguments[name] = str(path)
        try:
            return read_board(BoardOptions(**arguments))
        except UserError as error:
            raise UserError(str(error).replace(f"{folder}{os.sep}", "")) from error


def told(results: Results, maps: bool, compared: bool) -> tuple[list[dict[str, Any]], list[Unreadable], list[Looks]]:
    """Verdicts as in predictions.json, with their maps if these are wanted; what has none; looks if these are to be
    compared.
    """
    verdicts = [result for result in results if not isinstance(result, Unreadable)]
    rows = [each.row for each in verdicts]
    if maps:
        pictures = (base64_of_png(overlay(each.image, each.heat_map)) for each in verdicts)
        rows = [{**row, "map": picture} for row, picture in zip(rows, pictures, strict=True)]
    looks = [looks_of(each.image, each.native_size) for each in verdicts if compared]
    return rows, [result for result in results if isinstance(result, Unreadable)], looks


def base64_of_png(image: Image) -> str:
    return base64.b64encode(png_bytes(image)).decode()


def error(status: int, sentence: str, close: bool = False) -> Response:
    """The one form of every refusal; ``close`` ends the connection, as the rest of the request is not read."""
    headers = {"connection": "close"} if close else {}
    if status == 503:
        headers["retry-after"] = "1"
    return JSONResponse({"error": sentence}, status, headers)


async def no_such_thing(request: Request, exception: Exception) -> Response:
    """An unknown path, or a method that a path does not have."""
    assert isinstance(exception, HTTPException)
    there = ", ".join(PATHS)
    if exception.status_code == 405:
        sentence = f"{printable(request.url.path)} does not take {printable(request.method)}: there are {there}."
    else:
        sentence = f"There is nothing at {printable(request.url.path)[:80]}: there are {there}."
    return error(exception.status_code, sentence, close=request.method != "GET")


async def bug(request: Request, exception: Exception) -> Response:
    """What nobody foresaw; its traceback is in the log."""
    return error(500, "The service failed at this request: its log says why.", close=True)
