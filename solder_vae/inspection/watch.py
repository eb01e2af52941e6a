"""A folder that is followed: each picture that comes is judged once, and the database remembers which are."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from solder_vae.data.component_types import relative
from solder_vae.data.listing import list_images
from solder_vae.evaluation.looks import looks_of
from solder_vae.inspection.boards.board import read_board
from solder_vae.inspection.boards.options import BoardOptions
from solder_vae.inspection.drift import BatchLooks
from solder_vae.inspection.inspector import Inspector, Unreadable
from solder_vae.inspection.joints import BATCH, Joint, Source, board_joints, board_source, serial_of
from solder_vae.inspection.records import Records, Stamp, digest, now, stamp_of, text_of
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import cell_safe, printable

COMPARED = 160
"""Joints that are compared with the training at a time."""


class ChangedError(Exception):
    """A picture changed while it was judged."""


@dataclass
class Watch:
    """Follows a folder.

    Attributes:
        folder: with the pictures, also in its sub-folders.
        inspector: decides.
        records: where verdicts are written, and which files are done.
        joints_of: the joints of a picture.
        asked: names the options that say so, see :func:`asked_of`; under others a picture is judged anew.
        at_once: pictures that are judged together.
        say: tells the operator something.
    """

    folder: Path
    inspector: Inspector
    records: Records
    joints_of: Callable[[Path], list[Joint]]
    asked: str = ""
    at_once: int = BATCH
    say: Callable[[str], None] = print
    pictures: int = 0
    joints: int = 0
    seconds: float = 0.0
    _seen: dict[Path, Stamp] = field(default_factory=dict)
    _unusable: dict[Path, Stamp] = field(default_factory=dict)
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._done = self.records.finished(self.asked)
        self._looks = BatchLooks(self.inspector)
        self._closed = False

    def follow(self, poll: float, stop: threading.Event) -> None:
        """Look into the folder again and again, until ``stop`` is set; what has begun is finished then.

        Args:
            poll: seconds between two looks.
            stop: ends it.

        Raises:
            UserError: the folder is not there in the beginning, or the database cannot be written.
        """
        list_images(self.folder)
        while not stop.is_set():
            ready = self.ready()
            for start in range(0, len(ready), self.at_once):
                if stop.is_set():
                    return
                self.judge(ready[start : start + self.at_once])
            stop.wait(poll)

    def ready(self) -> list[Path]:
        """The pictures to judge: new or changed ones, but for those that have changed since the last look."""
        try:
            paths = list_images(self.folder).images
        except UserError as error:  # of a share that is away for a while
            if not self._closed:
                self.tell(str(error))
            self._closed = True
            return []
        self._closed = False
        before, self._seen = self._seen, dict(stamps(paths))
        return [
            path
            for path, stamp in self._seen.items()
            if stamp.size
            and before.get(path) == stamp
            and stamp not in (self._done.get(text_of(str(path.absolute()))), self._unusable.get(path))
        ]

    def judge(self, pictures: Sequence[Path]) -> None:
        """Judge pictures and write their verdicts, all or none of them.

        What cannot be used is told, and tried again when it has changed.
        """
        started = time.monotonic()
        usable: dict[Path, tuple[Stamp, str, list[Joint]]] = {}
        for path in pictures:
            try:
                usable[path] = self._seen[path], digest(path), self.joints_of(path)
            except UserError as error:
                self.refuse(path, str(error))
        joints = [joint for _, _, of_picture in usable.values() for joint in of_picture]
        results = iter(list(self.inspector.inspect(joints)))
        found = {path: [next(results) for _ in of_picture] for path, (_, _, of_picture) in usable.items()}
        rows: list[dict[str, Any]] = []
        done: dict[str, Stamp] = {}
        try:
            with self.records.transaction():
                for path, (stamp, picture, of_picture) in usable.items():
                    bad = next((result for result in found[path] if isinstance(result, Unreadable)), None)
                    if bad is not None:
                        self.refuse(path, bad.reason)
                        continue
                    for joint, verdict in zip(of_picture, found[path], strict=True):
                        assert joint.source is not None
                        assert not isinstance(verdict, Unreadable)
                        self.records.write(joint.source, picture, self.inspector.type_of(joint), verdict.row)
                        self._looks.add(looks_of(verdict.image, verdict.native_size))
                        rows.append(verdict.row)
                    if stamp_of(path) != stamp:
                        raise ChangedError
                    self.records.finish(path, stamp, len(of_picture), self.asked)
                    done[text_of(str(path.absolute()))] = stamp
        except (ChangedError, OSError):  # of a file that is gone: they are all seen again at the next look
            self._looks = BatchLooks(self.inspector)
            self._rows.clear()
            return
        self._done |= done
        self._rows += rows
        self.report(len(done), rows, time.monotonic() - started)

    def refuse(self, path: Path, reason: str) -> None:
        """Tell of a picture that cannot be used, and wait for it to change."""
        self._unusable[path] = self._seen[path]
        self.tell(f"{reason} It is tried again when it has changed.")

    def report(self, pictures: int, rows: Sequence[dict[str, Any]], seconds: float) -> None:
        """Say how many were judged, and how fast; and whether they still look like the training's."""
        if rows:
            self.pictures += pictures
            self.joints += len(rows)
            self.seconds += seconds
            abnormal = sum(row["margin"] > 0 for row in rows)
            self.say(
                f"{now()} {pictures} pictures, {len(rows)} joints, {abnormal} abnormal; "
                f"{len(rows) / seconds:.0f} joints a second."
            )
        if len(self._rows) >= COMPARED:
            if sentence := self._looks.drift(self._rows).sentence:
                self.say(f"{now()} {sentence}")
            self._looks = BatchLooks(self.inspector)
            self._rows.clear()

    def __str__(self) -> str:
        """What was done until now."""
        rate = f", {self.joints / self.seconds:.0f} joints a second while there were any" if self.seconds else ""
        return f"{self.pictures} pictures with {self.joints} joints{rate}."

    def tell(self, trouble: str) -> None:
        print(f"{now()} {trouble}", file=sys.stderr, flush=True)


def joints_in(options: BoardOptions, folder: Path, serial: str) -> Callable[[Path], list[Joint]]:
    """What gives the joints of a watched picture: those of a board if ``pads=`` is given, else the picture itself.

    It raises UserError if the picture cannot be used.

    Args:
        options: what says where joints are.
        folder: that is watched.
        serial: the regular expression of the serial number, "" for none.
    """

    def of_board(path: Path) -> list[Joint]:
        board = read_board(replace(options, board=str(path)))
        return board_joints(board, board_source(path, serial, options.side), prefix=f"{relative(path, folder)}/")

    def of_joint(path: Path) -> list[Joint]:
        name = cell_safe(printable(str(path)))
        return [Joint(name, path, place=relative(path, folder), source=Source(path, serial_of(path, serial)))]

    return of_board if options.pads else of_joint


def asked_of(options: BoardOptions, serial: str) -> str:
    """A name of the options that say which joints a picture has; it follows the content of their files."""
    values = [getattr(options, each.name) for each in fields(BoardOptions)]
    said = [digest(path) if (path := Path(str(value))).is_file() else repr(value) for value in values]
    return sha256("\n".join([*said, serial]).encode("utf-8", "surrogateescape")).hexdigest()


def stamps(paths: Sequence[Path]) -> Iterator[tuple[Path, Stamp]]:
    """The stamps of the files that are there."""
    for path in paths:
        try:
            yield path, stamp_of(path)
        except OSError:
            continue


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, instead of ending the process at once."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
