"""Joints cut out of a board picture, as PNG files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solder_vae.utils.errors import UserError

if TYPE_CHECKING:
    from solder_vae.inspection.boards.board import Board


_LONGEST_NAME = 80


_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows reserves


def read_labels(path: Path, names: Sequence[str]) -> list[str]:
    """What each joint is, by a table with the columns name and label.

    Args:
        path: of the table; it may have more rows, but none twice.
        names: of N joints.

    Returns:
        N labels.

    Raises:
        UserError: the table can't be used, or lacks a joint.
    """
    from solder_vae.utils.tables import read_table
    from solder_vae.utils.text import printable

    labels: dict[str, str] = {}
    for line, row in read_table(path, ("name", "label")):
        if not row["label"] or row["name"] in labels:
            what = "has no label" if not row["label"] else "comes twice"
            raise UserError(f"{path}, line {line}: {printable(row['name'])} {what}.")
        labels[row["name"]] = row["label"]
    if missing := [name for name in names if name not in labels]:
        raise UserError(f"{path}: has no row for {printable(missing[0])}: every joint of the board needs its label.")
    return [labels[name] for name in names]


def write_crops(board: Board, directory: Path, labels: Sequence[str] = ()) -> None:
    """Write each joint as PNG and the table crops.csv: path, name, and the box in the board's picture.

    Where the board's file tells components' types, there is a column type; with a label one more, and crops.csv is a
    manifest that can be trained on.

    Args:
        board: with its joints.
        directory: where to write.
        labels: of each joint, "normal" or a defect type; "" for none.

    Raises:
        UserError: a file can't be written.
    """
    from solder_vae.data.image_files import write_png
    from solder_vae.utils.tables import write_csv
    from solder_vae.utils.text import cell_safe, printable
    from solder_vae.utils.threads import tracked

    names = file_names([joint.name for joint in board.joints])
    try:
        for name, crop in zip(names, tracked(board.crops(), "Cutting out", len(names)), strict=True):
            write_png(directory / name, crop)
        typed = any(joint.type for joint in board.joints)
        rows: list[list[Any]] = [["path", "name", "x", "y", "width", "height", *["type"] * typed]]
        for name, joint in zip(names, board.joints, strict=True):
            called, *box, kind = asdict(joint).values()
            rows.append([name, cell_safe(printable(called)), *box, *[cell_safe(printable(kind))] * typed])
        if any(labels):
            told = ["label", *(cell_safe(printable(label)) for label in labels)]
            rows = [[*row, label] for row, label in zip(rows, told, strict=True)]
        write_csv(directory / "crops.csv", rows)
    except OSError as error:
        raise UserError(f"The crops can't be written ({error.strerror}): give another folder.") from error


def write_boxes(board: Board, path: Path) -> None:
    """Write the board's picture with the boxes of its joints as a PNG file.

    Raises:
        UserError: it can't be written.
    """
    from solder_vae.data.image_files import write_png
    from solder_vae.inspection.boards.picture import boxes_on_board
    from solder_vae.utils.files import atomic_file

    try:
        with atomic_file(path) as temporary:
            write_png(temporary, boxes_on_board(board))
    except OSError as error:
        raise UserError(f"boxes={path} can't be written ({error.strerror}): name another file.") from error


def file_names(designators: Iterable[str]) -> list[str]:
    """PNG file names for designators: safe on every system, within the folder, and all different even in lower case."""
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
