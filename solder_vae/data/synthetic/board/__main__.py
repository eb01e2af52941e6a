"""A picture of a whole board with known joints: ``python -m solder_vae.data.synthetic.board --out DIR``.

Chip components and gull-wing packages under one light and one camera, a few of them defective, and the files that say
where they are, as :mod:`solder_vae.crop` reads them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from solder_vae.data.image_files import write_png
from solder_vae.data.synthetic.board.layout import PACKAGES, WINDOW_MM, inspection_window
from solder_vae.data.synthetic.board.scene import NATIVE_PER_MM, BoardPicture, render_board
from solder_vae.data.synthetic.defects import DEFECTS
from solder_vae.utils.cli import fail
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_directory
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.tables import write_csv


def write_board(board: BoardPicture, directory: Path) -> None:
    """Write board.png, pads.csv, centroid.csv, footprints.csv, fiducials.csv and truth.csv."""
    write_png(directory / "board.png", board.image)
    footprints = [
        [package.name, pad + 1, *map(_mm, inspection_window(package, pad)), WINDOW_MM, WINDOW_MM]
        for package in PACKAGES.values()
        for pad in range(2 * package.count)
    ]
    boxes = []
    for part in board.components:
        package, turn = PACKAGES[part.package], np.radians(part.rotation)
        for pad in range(2 * package.count):
            x, y = inspection_window(package, pad)
            middle = part.x + x * np.cos(turn) - y * np.sin(turn), part.y + x * np.sin(turn) + y * np.cos(turn)
            column, row = board.pixels(*middle)
            half = WINDOW_MM * NATIVE_PER_MM / 2
            boxes.append([f"{part.name}.{pad + 1}", round(column - half), round(row - half), *[round(2 * half)] * 2])
    tables: dict[str, tuple[str, Sequence[Sequence[object]]]] = {
        "pads.csv": ("name,x,y,width,height", boxes),
        "centroid.csv": (
            "Ref,Val,Package,PosX,PosY,Rot,Side",
            [
                [part.name, "", part.package, _mm(part.x), _mm(part.y), part.rotation, "top"]
                for part in board.components
            ],
        ),
        "footprints.csv": ("Package,Pad,X,Y,Width,Height", footprints),
        "fiducials.csv": (
            "name,board_x,board_y,pixel_x,pixel_y",
            [[name, x, y, *(f"{at:.2f}" for at in board.pixels(x, y))] for name, (x, y) in board.fiducials.items()],
        ),
        "truth.csv": ("name,label", list(board.defects.items())),
    }
    for name, (header, rows) in tables.items():
        write_csv(directory / name, [header.split(","), *rows])


def _mm(value: float) -> str:
    return f"{value:.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m solder_vae.data.synthetic.board", description="Render a board with known joints."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--seed", type=int, default=0, help="0 or more (%(default)s)")
    parser.add_argument("--defective", type=int, default=8, help="number of defects (%(default)s)")
    parser.add_argument("--kinds", nargs="+", default=[], metavar="KIND", help="of the defects (all that fit)")
    options = parser.parse_args(arguments)
    try:
        if options.seed < 0:
            raise UserError(f"--seed {options.seed}: give 0 or more.")
        if options.defective < 0:
            raise UserError(f"--defective {options.defective}: give 0 or more.")
        if unknown := [kind for kind in options.kinds if kind not in DEFECTS]:
            raise UserError(f"--kinds {unknown[0]} is no defect: use {', '.join(DEFECTS)}.")
        with atomic_directory(options.out) as directory:
            board = render_board(options.seed, options.defective, options.kinds)
            write_board(board, directory)
    except UserError as error:
        return fail(str(error), 2)
    bad = sum(defect != NORMAL for defect in board.defects.values())
    print(f"{len(board.defects)} joints, {bad} of them defective, in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
