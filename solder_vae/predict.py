"""``python -m solder_vae.predict``: inspect new joints, write predictions.csv, predictions.json and report.html."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solder_vae.inspection.boards.options import BOARD_USAGE, BoardOptions
from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_directory, check_new
from solder_vae.utils.plugins import import_plugins

USAGE = f"""\
Inspect new joints as a checkpoint says.

  python -m solder_vae.predict checkpoint=PATH images=DIR|FILE|GLOB|CSV out=DIR
  python -m solder_vae.predict checkpoint=PATH board=IMAGE pads=CSV out=DIR

  checkpoint=PATH   best.ckpt of a run, or calibrated.ckpt of solder_vae.threshold; it holds preprocessing, threshold,
                    scores of the validation normals and reference gradients
  images=...        a folder (with its sub-folders), one image, a pattern such as 'board7/**/*.png' in quotes, or a CSV
                    file with a column path, relative to that file's folder
  out=DIR           a new folder for predictions.csv, predictions.json and report.html
  strict=false      true: exit status 4 if the joints do not look like those the model was trained on
  processes=1       how many processes share the images and the cores; the tables stay the same
  device=cpu        or cuda: the network runs on GPUs, one for each process
  plugins=MODULE    of yours, where the checkpoint's model, score or rule is defined; several with commas

Instead of images=, the joints of a board's picture (docs/use/crop.md), whose verdicts are drawn into board.png:

{BOARD_USAGE}
Exit status: 0; 2 if nothing could be done; 3 if images could not be read (they are listed or counted, and left out);
4 with strict=true if the joints do not look like those the model was trained on (docs/use/line.md).
"""


@dataclass(frozen=True)
class Options(BoardOptions):
    checkpoint: str
    out: str
    images: str = ""
    strict: bool = False
    processes: int = 1
    device: str = "cpu"
    plugins: str = ""


def run(arguments: list[str]) -> int:
    """Inspect as the command line says; returns the exit status."""
    options = parse(Options, arguments, USAGE)
    # Imported where they are needed, so that --help and mistakes are answered at once: first those without torch.
    from solder_vae.data.listing import Listing
    from solder_vae.inspection.boards.crops import file_names, write_crops
    from solder_vae.inspection.joints import board_joints, find_joints
    from solder_vae.models.checkpoint_archive import check_there

    out = Path(options.out)
    check_new(out)
    if options.processes < 1:
        raise UserError(f"processes={options.processes} does not fit: use 1 or more.")
    if options.device not in ("cpu", "cuda"):
        raise UserError(no_device(options.device))
    if bool(options.images) == bool(options.board):
        raise UserError("Give either images=... or board=IMAGE with pads=CSV: --help shows examples.")
    check_there(Path(options.checkpoint))
    board = None
    if options.board:
        from solder_vae.inspection.boards.board import read_board

        board = read_board(options)
    listing = Listing()
    if board:
        crops = [out / "crops" / name for name in file_names([joint.name for joint in board.joints])]
        joints = board_joints(board, crops)
    else:
        joints = find_joints(options.images, listing=listing)

    import torch

    from solder_vae.data.image_files import write_png
    from solder_vae.inspection.batch import DRIFTED, UNREADABLE, inspect_into, print_summary
    from solder_vae.inspection.inspector import Inspector

    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError(no_device(options.device))
    import_plugins(options.plugins)
    inspector = Inspector.load(options.checkpoint, options.device)
    with atomic_directory(out) as directory:
        inspection = inspect_into(directory, inspector, joints, options.checkpoint, options.processes)
        if board:
            from solder_vae.inspection.boards.picture import verdicts_on_board

            margins = [row["margin"] for row in inspection.predictions]
            looks = [str(row.get("type", "")) for row in inspection.predictions]
            write_png(directory / "board.png", verdicts_on_board(board, margins, looks))
            (directory / "crops").mkdir()
            write_crops(board, directory / "crops")  # so that the report's verdicts name files that are there
    if board:
        print(board)
    print_summary(inspector, inspection, out)
    if options.strict and inspection.drift.told:
        return DRIFTED
    return UNREADABLE if listing.incomplete else inspection.status


def no_device(device: str) -> str:
    return f"device={device} is not there: use cpu, or cuda where there is a GPU."


def main() -> None:
    command(run)


if __name__ == "__main__":
    main()
