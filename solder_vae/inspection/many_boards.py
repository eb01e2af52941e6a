"""Several boards in one call: pictures of boards of one kind, read one after the other."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from solder_vae.inspection.boards.board import Board, read_board
from solder_vae.inspection.boards.crops import file_names, write_crops
from solder_vae.inspection.boards.options import BoardOptions
from solder_vae.inspection.joints import Joint, board_joints, board_source, find_joints, serial_of
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import write_csv
from solder_vae.utils.text import cell_safe, printable


@dataclass
class Boards:
    """The boards of one call.

    Attributes:
        options: what says where the joints are; the same for all.
        serial: the regular expression of the serial number, "" for the file's name without its ending.
        names: of the pictures, relative to what was given, by their paths.
        out: the folder of the call.
        rows: of each picture the rows of its joints, as they come.
    """

    options: BoardOptions
    serial: str
    names: dict[Path, str]
    out: Path
    rows: dict[Path, list[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files = file_names(Path(name).stem for name in self.names.values())
        #: The names that each board has in the folder ``boards``.
        self.files = {path: file.removesuffix(".png") for path, file in zip(self.names, files, strict=True)}

    def joints(self) -> Iterator[Joint]:
        """The joints of all boards; in the place of a board that can't be used, one that says why."""
        for path, name in self.names.items():
            try:
                board = self.read(path)
                source = board_source(path, self.serial, self.options.side)
                yield from board_joints(board, source, self.out / "boards" / self.files[path], f"{name}/")
            except UserError as error:
                yield Joint(name, error)

    def count(self) -> int:
        """About how many there are: as many on each board as on the first that can be used.

        Raises:
            UserError: none can; it says of the first one why.
        """
        mistake: UserError | None = None
        for path in self.names:
            try:
                serial_of(path, self.serial)
                return len(self.names) * len(self.read(path).joints)
            except UserError as error:
                mistake = mistake or error
        assert mistake is not None
        raise mistake

    def read(self, path: Path) -> Board:
        """A board and its joints.

        Raises:
            UserError: see :func:`read_board`.
        """
        return read_board(replace(self.options, board=str(path)))

    def told(self, joint: Joint, row: dict[str, Any]) -> None:
        """Take in a joint's row."""
        assert joint.source is not None
        self.rows.setdefault(joint.source.path, []).append(row)

    def write(self, directory: Path) -> None:
        """Write boards.csv, a row a board, and in the folder boards each one's picture with verdicts and its crops."""
        from solder_vae.data.image_files import write_png
        from solder_vae.inspection.boards.picture import predictions_on_board

        (directory / "boards").mkdir()
        table = [["path", "serial", "joints", "abnormal", "label", "worst", "margin", "picture"]]
        for path, rows in self.rows.items():
            board, place = self.read(path), directory / "boards" / self.files[path]
            place.mkdir()
            write_crops(board, place)  # so that the report's verdicts name files that are there
            worst = max(rows, key=lambda row: row["margin"])
            numbers = len(rows), Counter(row["label"] for row in rows)["abnormal"]
            serial = cell_safe(printable(serial_of(path, self.serial, path.stem)))
            table.append(
                [
                    cell_safe(printable(str(path))),
                    serial,
                    *map(str, numbers),
                    worst["label"],
                    worst["path"],
                    f"{worst['margin']:.9g}",
                    f"boards/{place.name}.png",
                ]
            )
            write_png(directory / "boards" / f"{place.name}.png", predictions_on_board(board, rows))
        write_csv(directory / "boards.csv", table)

    def __str__(self) -> str:
        bad = sum(any(row["margin"] > 0 for row in rows) for rows in self.rows.values())
        return f"{len(self.rows)} boards, {bad} of them with a joint called abnormal."


def many_boards(options: BoardOptions, serial: str, out: Path) -> Boards | None:
    """The boards that ``board=`` names as a folder, a pattern or a CSV file; None where it names one picture.

    Raises:
        UserError: there is none, or there are no pads.
    """
    path = Path(options.board)
    many = path.is_dir() or path.suffix.lower() == ".csv" or (glob.has_magic(options.board) and not path.is_file())
    if not options.board or not many:
        return None
    if not options.pads:
        raise UserError("board=... and pads=CSV are needed, both: --help shows an example.")
    found = find_joints(options.board, "board")
    paths = [joint.image for joint in found if isinstance(joint.image, Path)]
    places = [joint.place for joint in found]
    return Boards(options, serial, dict(zip(paths, places, strict=True)), out)
