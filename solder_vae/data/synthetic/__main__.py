"""``python -m solder_vae.data.synthetic --out DIR -n 200 --defect bridge``: rendered joints as files.

Writes ``images/TYPE/TYPE_00000.png`` at native size (a folder that ``data=folder`` reads), ``masks/`` likewise,
``factors.csv`` with one row for each image, and ``sheet.png``, a labelled contact sheet of the first hundred.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from solder_vae.data.image_files import write_png
from solder_vae.data.synthetic.defects import DEFECTS
from solder_vae.data.synthetic.render import Rendered
from solder_vae.data.synthetic.sheet import contact_sheet
from solder_vae.data.synthetic.worker import Order, render_many
from solder_vae.utils.cli import fail
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_directory
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.tables import write_csv
from solder_vae.utils.threads import in_threads, progress_bar

_ON_SHEET = 100
_AT_ONCE = 5000  # images in memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        write_set(options.out, options.count, options.defect, tuple(options.severity), options.seed)
    except UserError as error:
        return fail(str(error), 2)
    print(f"{options.count} joints written to {options.out}")
    return 0


def write_set(out: Path, count: int, defects: Sequence[str], severity: tuple[float, float], seed: int) -> None:
    """Render joints into a folder.

    Args:
        out: the folder, new or empty; it appears once all is in it.
        count: number of images, at least 1.
        defects: defect types, or ``normal``, taken in turn.
        severity: lowest and highest, within [0, 1].
        seed: of the set, at least 0.

    Raises:
        UserError: a value out of its range, a folder that holds something, or one that can't be made.
    """
    if count < 1:
        raise UserError(f"-n {count}: give at least 1 image.")
    if seed < 0:
        raise UserError(f"--seed {seed}: give 0 or more.")
    if not 0 <= severity[0] <= severity[1] <= 1:
        raise UserError(f"--severity {severity[0]} {severity[1]}: give a lowest and a highest value within 0 and 1.")
    with atomic_directory(out) as folder:
        _write_files(folder, count, defects, severity, seed)


def _write_files(out: Path, count: int, defects: Sequence[str], severity: tuple[float, float], seed: int) -> None:
    rows: list[dict[str, float | str]] = []
    shown: list[Rendered] = []
    types = (defects[index % len(defects)] for index in range(count))
    jobs = [("test_normal" if kind == NORMAL else "test_abnormal", index, kind) for index, kind in enumerate(types)]
    with progress_bar("Rendering", count) as advance:
        for begin in range(0, count, _AT_ONCE):
            part = Order(seed, severity, jobs[begin : begin + _AT_ONCE])
            joints = render_many(part, os.cpu_count() or 1, advance)
            names = [f"{kind}/{kind}_{index:05d}.png" for _, index, kind in part.jobs]
            for folder in {str(Path(name).parent) for name in names}:
                for kind in ("images", "masks"):
                    (out / kind / folder).mkdir(parents=True, exist_ok=True)
            for _ in in_threads(partial(_write, out), zip(names, joints, strict=True)):
                pass
            rows += [
                {"image": f"images/{name}", "mask": f"masks/{name}", "defect": joint.defect, **joint.factors}
                for name, joint in zip(names, joints, strict=True)
            ]
            shown += joints[: _ON_SHEET - len(shown)]
    cells = ([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()] for row in rows)
    write_csv(out / "factors.csv", [[*rows[0]], *cells])
    write_png(out / "sheet.png", contact_sheet(shown))


def _write(out: Path, named: tuple[str, Rendered]) -> None:
    name, joint = named
    write_png(out / "images" / name, joint.image)
    write_png(out / "masks" / name, joint.mask.astype(np.uint8) * 255)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m solder_vae.data.synthetic", description="Render solder joints with masks and factors."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("-n", dest="count", type=int, default=200, metavar="N", help="number of images (%(default)s)")
    parser.add_argument(
        "--defect", nargs="+", choices=[NORMAL, *DEFECTS], default=[NORMAL, *DEFECTS], metavar="TYPE",
        help=f"types, taken in turn: {', '.join([NORMAL, *DEFECTS])} (all)",
    )  # fmt: skip
    parser.add_argument(
        "--severity", nargs=2, type=float, default=(0.6, 1.0), metavar=("LOW", "HIGH"), help="0 slight, 1 gross (0.6 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the set (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
