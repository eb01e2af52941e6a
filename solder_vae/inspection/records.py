"""Verdicts in an SQLite database: a row a joint, a row a board, and which files are done (imports no torch).

SQLite comes with Python, needs no server, and a transaction is whole or not there, also after a power cut. That is what
a station of a line needs; from there a factory's own database is a query away (docs/use/line.md).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from solder_vae.inspection.joints import Joint, Source
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import ABNORMAL

VERSION = 1

SCHEMA = """
CREATE TABLE joints (
  time TEXT NOT NULL, serial TEXT NOT NULL, designator TEXT NOT NULL, package TEXT NOT NULL,
  x REAL, y REAL, side TEXT NOT NULL,
  score REAL NOT NULL, threshold REAL NOT NULL, verdict TEXT NOT NULL, type TEXT NOT NULL,
  model TEXT NOT NULL, checkpoint TEXT NOT NULL,
  path TEXT NOT NULL, picture TEXT NOT NULL, board TEXT NOT NULL,
  PRIMARY KEY (picture, designator, checkpoint)
);
CREATE INDEX joints_of_board ON joints (board, checkpoint);
CREATE INDEX joints_by_time ON joints (time);
CREATE TABLE boards (
  time TEXT NOT NULL, serial TEXT NOT NULL, joints INTEGER NOT NULL, abnormal INTEGER NOT NULL,
  verdict TEXT NOT NULL, worst TEXT NOT NULL, score REAL NOT NULL, threshold REAL NOT NULL, type TEXT NOT NULL,
  model TEXT NOT NULL, checkpoint TEXT NOT NULL, board TEXT NOT NULL,
  PRIMARY KEY (board, checkpoint)
);
CREATE INDEX boards_by_serial ON boards (serial);
CREATE TABLE files (
  path TEXT NOT NULL, checkpoint TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL,
  time TEXT NOT NULL, joints INTEGER NOT NULL, asked TEXT NOT NULL,
  PRIMARY KEY (path, checkpoint)
);
"""

_INSERT = f"INSERT OR REPLACE INTO joints VALUES ({', '.join('?' * 16)})"

# With max() alone, SQLite takes the other columns from the row that has it. Of a joint that was mended and photographed
# anew under the same path the last picture counts; the earlier row stays as what was found then.
_BOARD = f"""
INSERT OR REPLACE INTO boards
SELECT time, serial, joints, abnormal, verdict, worst, score, threshold, type, model, checkpoint, board FROM (
  SELECT max(score - threshold) AS margin, time, serial, count(*) AS joints, sum(verdict = '{ABNORMAL}') AS abnormal,
    verdict, CASE designator WHEN '' THEN path ELSE designator END AS worst, score, threshold, type, model, checkpoint,
    board
  FROM joints WHERE board = ? AND checkpoint = ? AND NOT EXISTS (
    SELECT 1 FROM joints AS later WHERE later.board = joints.board AND later.checkpoint = joints.checkpoint
    AND later.path = joints.path AND later.picture <> joints.picture AND later.time > joints.time)
)
"""

_TOGETHER = 500  # joints that are written at once, or more if a board has more

_WAIT = 60.0  # seconds that a writer waits for another

_MARK = 0x501DE4  # an application's id in the file's header


class Stamp(NamedTuple):
    """What tells whether a file has changed: its size in bytes and the time of its change in nanoseconds."""

    size: int
    modified: int


def stamp_of(path: Path) -> Stamp:
    """A file's stamp.

    Raises:
        OSError: it is gone or can't be read.
    """
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns)


class Records:
    """A database of verdicts; several processes may write to one at the same time.

    Args:
        path: of the file; made if it is not there.
        checkpoint: of the model whose verdicts are written.

    Raises:
        UserError: the file is something else or cannot be used.
    """

    def __init__(self, path: Path, checkpoint: Path) -> None:
        self.path = path
        self.checkpoint = digest(checkpoint)
        self.model = ""
        self._digests: tuple[Path, str] | None = None
        self._waiting: list[tuple[Source, str, str, Mapping[str, Any]]] = []
        self._boards: set[str] = set()
        with self._plain_errors():
            self._connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._make()

    def _make(self) -> None:
        """Make the tables where there are none."""
        with self.transaction():
            version, mark, tables = (
                self._connection.execute(query).fetchone()[0]
                for query in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
            )
            if (version, mark) == (VERSION, _MARK):
                return
            if tables:
                raise UserError(
                    f"database={self.path} holds other tables, or those of another version: give another file."
                )
            for statement in filter(str.strip, SCHEMA.split(";")):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {VERSION}")
            self._connection.execute(f"PRAGMA application_id = {_MARK}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written in the block is there when it ends, or nothing is.

        Raises:
            UserError: the database cannot be written.
        """
        with self._plain_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                for board in sorted(self._boards):
                    self._connection.execute(_BOARD, (board, self.checkpoint))
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._boards.clear()

    def add(self, joint: Joint, package: str, row: Mapping[str, Any]) -> None:
        """Write a joint some time, or write it anew; :meth:`flush` ends that.

        Args:
            joint: with its source.
            package: the component's type, "" if not known.
            row: see :attr:`solder_vae.inspection.inspector.Verdict.row`.

        Raises:
            UserError: its file is gone, or the database cannot be written.
        """
        assert joint.source is not None
        picture = self._digest(joint.source.path)
        if len(self._waiting) >= _TOGETHER and self._waiting[-1][1] != picture:  # a board is written whole
            self.flush()
        self._waiting.append((joint.source, picture, package, row))

    def flush(self) -> None:
        """Write what waits.

        Raises:
            UserError: the database cannot be written.
        """
        with self.transaction():
            for source, picture, package, row in self._waiting:
                self.write(source, picture, package, row)
        self._waiting.clear()
        self._digests = None  # a file may change from now on

    def write(self, source: Source, picture: str, package: str, row: Mapping[str, Any]) -> None:
        """Write a joint, or write it anew, within a transaction that has all joints of its board's picture.

        What the same checkpoint found in that picture before, by other pads maybe, no longer counts.

        Args:
            source: where the joint is.
            picture: the :func:`digest` of its file.
            package: the component's type, "" if not known.
            row: its verdict.
        """
        # The pictures of one board's joints belong together by its serial, if each joint has a picture of its own.
        board = picture if source.designator else text_of(f"serial {source.serial}") if source.serial else ""
        values = (
            now(), source.serial, source.designator, package, source.x, source.y, source.side,
            row["score"], row["threshold"], row["label"], row.get("type", "") if row["label"] == ABNORMAL else "",
            self.model, self.checkpoint, str(source.path.absolute()), picture, board,
        )  # fmt: skip
        if source.designator and board not in self._boards:
            self._connection.execute("DELETE FROM joints WHERE board = ? AND checkpoint = ?", (board, self.checkpoint))
        self._connection.execute(_INSERT, [text_of(value) if isinstance(value, str) else value for value in values])
        if board:
            self._boards.add(board)

    def finish(self, path: Path, stamp: Stamp, joints: int, asked: str) -> None:
        """Write, within a transaction, that a file is done; ``asked`` names the options that it was judged by."""
        self._connection.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
            (text_of(str(path.absolute())), self.checkpoint, *stamp, now(), joints, asked),
        )

    def finished(self, asked: str) -> dict[str, Stamp]:
        """The files that this model is done with under the same options, by :func:`text_of` their absolute paths, and
        what they were then."""
        with self._plain_errors():
            rows = self._connection.execute(
                "SELECT path, size, modified FROM files WHERE checkpoint = ? AND asked = ?", (self.checkpoint, asked)
            )
            return {path: Stamp(size, modified) for path, size, modified in rows}

    def close(self) -> None:
        self._connection.close()

    def _digest(self, path: Path) -> str:
        if self._digests is None or self._digests[0] != path:  # the joints of a board follow one another
            self._digests = path, digest(path)
        return self._digests[1]

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise UserError(
                    f"database={self.path} has been held by another process for {_WAIT:g} seconds: end that first."
                ) from error
            raise UserError(
                f"database={self.path} can't be used ({error}): give a file of this command, on a disk that can be "
                "written."
            ) from error


def text_of(name: str) -> str:
    """A name as the database has it: bytes outside UTF-8, which SQLite's text can't hold, are escaped as ``\\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        UserError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); check the path and the permissions.") from error


def now() -> str:
    """The time in UTC, as ``2026-11-27T10:20:30.123Z``."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
