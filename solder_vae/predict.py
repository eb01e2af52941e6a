"""``python -m solder_vae.predict``: inspect new joints, write predictions.csv, predictions.json and report.html."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solder_vae.inspection.boards.options import BOARD_USAGE, BoardOptions
from solder_vae.utils.checks import no_device
from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_directory, check_new
from solder_vae.utils.plugins import import_plugins

if TYPE_CHECKING:
    from solder_vae.inspection.inspector import Inspector
    from solder_vae.inspection.joints import Joint
    from solder_vae.inspection.records import Records

USAGE = f"""\
Judge new joints, each alone or all of a board, with a trained checkpoint.

  python -m solder_vae.predict checkpoint=PATH images=DIR|FILE|GLOB|CSV out=DIR
  python -m solder_vae.predict checkpoint=PATH board=IMAGE pads=CSV out=DIR
  python -m solder_vae.predict checkpoint=PATH watch=DIR database=PATH.sqlite [pads=CSV]

  checkpoint=PATH   best.ckpt of a run, or calibrated.ckpt of solder_vae.threshold; it holds preprocessing, threshold,
                    scores of the validation normals and reference gradients
  images=...        a folder (with its sub-folders), one image, a pattern such as 'board7/**/*.png' in quotes, or a CSV
                    file with a column path, relative to that file's folder
  out=DIR           a new folder for predictions.csv, predictions.json and report.html
  database=PATH     an SQLite database, made if it is not there: one row for each joint, one for each board. A picture
                    that the same checkpoint has judged before is written anew, not twice (docs/use/line.md)
  watch=DIR         instead of images= or board=, and of out=: judge each picture that comes into a folder, until Ctrl-C
                    or SIGTERM; a picture shows a joint, or with pads=CSV a board
  poll=2            seconds between two looks into that folder; a file waits until two looks find it unchanged
  serial=REGEX      finds a board's serial number in a picture's path, in its first parentheses; without it, a board's
                    is its file's name without the ending
  strict=false      true: exit status 4 if the joints do not look like those the model was trained on
  threads=0         how many threads share the images, each with a core; 0: one for each core (OMP_NUM_THREADS, where it
                    is set). Scores do not depend on it
  processes=1       how many processes share the images and the cores; the tables stay the same
  device=cpu        or cuda: the network runs on GPUs, one for each process
  plugins=MODULE    of yours, where the checkpoint's model, score or rule is defined; several with commas

Instead of images=, the joints of a board's picture (docs/use/crop.md), whose verdicts are drawn into board.png; or of
several boards, by a folder, a pattern or a CSV file:

{BOARD_USAGE}
Exit status: 0; 2 if nothing could be done; 3 if images could not be read (they are listed or counted, and left out);
4 with strict=true if the joints do not look like those the model was trained on (docs/use/line.md).
"""


@dataclass(frozen=True)
class Options(BoardOptions):
    checkpoint: str
    out: str = ""
    images: str = ""
    database: str = ""
    watch: str = ""
    poll: float = 2.0
    serial: str = ""
    strict: bool = False
    threads: int = 0
    processes: int = 1
    device: str = "cpu"
    plugins: str = ""


def run(arguments: list[str]) -> int:
    """Inspect as the command line says; returns the exit status."""
    options = parse(Options, arguments, USAGE)
    # Imported where they are needed, so that --help and mistakes are answered at once: first those without torch.
    from solder_vae.data.listing import Listing
    from solder_vae.inspection.boards.crops import write_crops
    from solder_vae.inspection.joints import Source, board_joints, board_source, find_joints, serial_of
    from solder_vae.inspection.many_boards import many_boards
    from solder_vae.models.checkpoint_archive import check_there

    check(options)
    check_there(Path(options.checkpoint))
    import_plugins(options.plugins)
    if options.watch:
        return follow(options)
    out = Path(options.out)
    listing = Listing()
    boards = many_boards(options, options.serial, out)
    board = None
    if options.board and not boards:
        from solder_vae.inspection.boards.board import read_board

        board = read_board(options)
    count = boards.count() if boards else None
    if boards:
        joints: Iterable[Joint] = boards.joints()
    elif board:
        joints = board_joints(board, board_source(Path(options.board), options.serial, options.side), out / "crops")
    else:
        joints = [
            joint._replace(source=Source(Path(str(joint.image)), serial_of(Path(str(joint.image)), options.serial)))
            for joint in find_joints(options.images, listing=listing)
        ]
    records = open_records(options)

    from solder_vae.data.image_files import write_png
    from solder_vae.inspection.batch import DRIFTED, UNREADABLE, inspect_into, print_summary

    inspector = load(options)

    def told(joint: Joint, row: dict[str, Any]) -> None:
        if boards:
            boards.told(joint, row)
        if records:
            records.add(joint, inspector.type_of(joint), row)

    with atomic_directory(out) as directory:
        if records:
            records.model = inspector.identity
        inspection = inspect_into(directory, inspector, joints, options.checkpoint, options.processes, count, told)
        if board:
            from solder_vae.inspection.boards.picture import predictions_on_board

            write_png(directory / "board.png", predictions_on_board(board, inspection.predictions))
            (directory / "crops").mkdir()
            write_crops(board, directory / "crops")  # so that the report's verdicts name files that are there
        if boards:
            boards.write(directory)
        if records:
            records.flush()
    if board or boards:
        print(board or boards)
    print_summary(inspector, inspection, out)
    if options.strict and inspection.drift.told:
        return DRIFTED
    return UNREADABLE if listing.incomplete else inspection.status


def follow(options: Options) -> int:
    """Follow a folder until the process is told to end."""
    folder = Path(options.watch)
    records = open_records(options)
    assert records is not None

    from solder_vae.inspection.watch import Watch, asked_of, joints_in, stopped_by_signals

    inspector = load(options)
    records.model = inspector.identity
    watch = Watch(
        folder,
        inspector,
        records,
        joints_in(options, folder, options.serial),
        asked_of(options, options.serial),
        1 if options.pads else 32,
    )
    with stopped_by_signals() as stop:
        print(f"Following {folder}, until Ctrl-C or SIGTERM; verdicts go to {options.database}.", flush=True)
        watch.follow(options.poll, stop)
    records.close()
    print(f"Ended: {watch}")
    return 0


def check(options: Options) -> None:
    """Check what the options alone tell.

    Raises:
        UserError: they do not fit, or what they name is not there.
    """
    from solder_vae.data.component_types import check_regex

    check_regex("serial", options.serial or None, r"(SN\d+)")
    if options.processes < 1:
        raise UserError(f"processes={options.processes} does not fit: use 1 or more.")
    if options.threads < 0:
        raise UserError(f"threads={options.threads} does not fit: use 1 or more, or 0 for one a core.")
    if options.device not in ("cpu", "cuda"):
        raise no_device(options.device)
    if sum(map(bool, (options.images, options.board, options.watch))) != 1:
        raise UserError("Give one of images=..., board=... with pads=CSV, and watch=DIR: --help shows examples.")
    if options.serial and not (options.database or options.board):
        raise UserError("serial=... is recorded with boards: give database=PATH, too, or leave it out.")
    if not options.watch:
        if not options.out:
            raise UserError("out=... must be given: --help shows an example.")
        check_new(Path(options.out))
        return
    if surplus := [name for name, given in (("out", options.out), ("strict", options.strict)) if given]:
        raise UserError(f"{surplus[0]}=... does not go with watch=DIR, which has no end: leave it out.")
    if not options.database:
        raise UserError("watch=DIR needs database=PATH, which remembers what is done.")
    if options.processes > 1:
        raise UserError("processes=... does not go with watch=DIR: start it once for each folder.")
    if not 0.05 <= options.poll <= 3600:
        raise UserError(f"poll={options.poll:g} is out of range: give seconds, 0.05 to 3600.")
    if not Path(options.watch).is_dir():
        raise UserError(f"watch={options.watch} is no folder: give one that is there.")
    if options.pads and not Path(options.pads).is_file():
        raise UserError(f"pads={options.pads} does not exist: give the file that says where joints are.")


def open_records(options: Options) -> Records | None:
    """The database, if there is to be one."""
    from solder_vae.inspection.records import Records

    return Records(Path(options.database), Path(options.checkpoint)) if options.database else None


def load(options: Options) -> Inspector:
    """The inspector on its device."""
    from solder_vae.inspection.inspector import Inspector

    inspector = Inspector.load(options.checkpoint, options.device)
    if options.device == "cpu" and options.processes == 1:
        inspector.share_out(options.threads)
    return inspector


def main() -> None:
    command(run)


if __name__ == "__main__":
    main()
