"""``python -m solder_vae.crop``: cut the joints out of a board's picture, a PNG file for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solder_vae.data.framing import cut_off
from solder_vae.inspection.boards.crops import read_labels, write_boxes, write_crops
from solder_vae.inspection.boards.options import BOARD_USAGE, BoardOptions
from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_directory, check_new

USAGE = f"""\
Cut the joints out of a board's picture.

  python -m solder_vae.crop board=IMAGE pads=CSV out=DIR
  python -m solder_vae.crop board=IMAGE pads=PLACEMENT.csv fiducials=CSV footprints=CSV out=DIR
  python -m solder_vae.crop board=IMAGE pads=CSV boxes=FILE.png

{BOARD_USAGE}  out=DIR           a new folder for the joints' PNG files and crops.csv
  boxes=FILE.png    a new picture of the board with every box and its name, to look at first; out= may then be left out
  label=LABEL       what all joints of this board are, normal or a defect type: crops.csv is then a manifest to train on
  labels=CSV        what each joint is, by its name (columns name and label)

docs/use/crop.md describes the files. Either all joints are cut out or none.
"""


@dataclass(frozen=True)
class Options(BoardOptions):
    out: str = ""
    boxes: str = ""
    label: str = ""
    labels: str = ""


def run(arguments: list[str]) -> int:
    """Crop as the command line says; returns the exit status."""
    options = parse(Options, arguments, USAGE)
    from solder_vae.utils.threads import busy

    out, boxes = Path(options.out), Path(options.boxes)
    if not (options.out or options.boxes):
        raise UserError("Give out=DIR for the joints' pictures, or boxes=FILE.png to see their boxes: --help explains.")
    if options.label and options.labels:
        raise UserError("label= and labels= say different things: give one of them.")
    if options.out:
        check_new(out)
    if options.boxes and boxes.suffix.lower() != ".png":
        raise UserError(f"boxes={boxes} must end in .png: name the file so.")
    if options.boxes and (boxes.exists() or not boxes.parent.is_dir()):
        why = "exists, and nothing is overwritten" if boxes.exists() else "is in a folder that is not there"
        raise UserError(f"boxes={boxes} {why}: name another file.")
    with busy("Reading the board"):
        from solder_vae.inspection.boards.board import read_board

        board = read_board(options)
    names = [joint.name for joint in board.joints]
    labels = read_labels(Path(options.labels), names) if options.labels else [options.label.strip()] * len(names)
    print(board)
    if options.boxes:
        write_boxes(board, boxes)
        print(f"Their boxes are drawn in {boxes}.")
    if options.out:
        with atomic_directory(out) as directory:
            write_crops(board, directory, labels)
        print(f"Their pictures and crops.csv are in {out}.")
    if sentence := cut_off([(joint.height, joint.width) for joint in board.joints]):
        print(sentence)
    return 0


def main() -> None:
    command(run)


if __name__ == "__main__":
    main()
