"""``python -m solder_vae.crop``: cut the joints out of a board's picture, a PNG file for each."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from solder_vae.inspection.boards.options import BOARD_USAGE, BoardOptions
from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import check_new, new_directory

if TYPE_CHECKING:
    from solder_vae.inspection.boards.board import Board

USAGE = f"""\
Cut the joints out of a board's picture.

  python -m solder_vae.crop board=IMAGE pads=CSV out=DIR
  python -m solder_vae.crop board=IMAGE pads=PLACEMENT.csv fiducials=CSV footprints=CSV out=DIR

{BOARD_USAGE}  out=DIR           a new folder for the joints' PNG files and crops.csv

docs/crop.md describes the files. Either all joints are cut out or none.
"""

_LONGEST_NAME = 80
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps to itself


@dataclass(frozen=True)
class Options(BoardOptions):
    out: str


def run(arguments: list[str]) -> int:
    """Crop as the command line says; returns the exit status."""
    options = parse(Options, arguments, USAGE)
    from solder_vae.inspection.boards.board import read_board

    out = Path(options.out)
    check_new(out)
    board = read_board(options)
    with new_directory(out) as directory:
        write_crops(board, directory)
    print(board)
    print(f"Their pictures and crops.csv are in {out}.")
    return 0


def write_crops(board: Board, directory: Path) -> None:
    """Write each joint as PNG and the table crops.csv: path, name, and the box in the board's picture.

    Raises:
        UserError: a file can't be written.
    """
    import cv2

    from solder_vae.data.layouts import printable
    from solder_vae.inspection.batch import cell_safe

    names = file_names([joint.name for joint in board.joints])
    try:
        for name, crop in zip(names, board.crops(), strict=True):
            packed = cv2.imencode(".png", crop[..., ::-1])[1]
            (directory / name).write_bytes(packed.tobytes())
        with (directory / "crops.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", "name", "x", "y", "width", "height"])
            for name, joint in zip(names, board.joints, strict=True):
                called, *box = asdict(joint).values()
                writer.writerow([name, cell_safe(printable(called)), *box])
    except OSError as error:
        raise UserError(f"The crops can't be written ({error.strerror}): give another folder.") from error


def file_names(designators: Iterable[str]) -> list[str]:
    """A PNG file name for each designator: safe on every system, within the folder, no two alike whatever the case."""
    taken: set[str] = set()
    names = []
    for designator in designators:
        stem = re.sub(r"[^A-Za-z0-9._+-]+", "_", designator).lstrip("._+-").rstrip("._")[:_LONGEST_NAME] or "joint"
        if _RESERVED.fullmatch(stem):
            stem = f"joint_{stem}"
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names


def main() -> None:
    command(run)


if __name__ == "__main__":
    main()
