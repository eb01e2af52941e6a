"""The report of a sweep: how its runs stand, the table, the plots; as Markdown, CSV and one HTML file."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from solder_vae.studies.sweeps.runs import Run, read_runs
from solder_vae.utils.document import Block, Bullets, Code, Heading, Picture, Table, Text, markdown, write_document
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import write_csv

LEGEND = (
    "Mean ± standard deviation over seeds, on the test set, at the threshold from validation normals. False calls: "
    "share of the normal joints called abnormal. Escapes: share of the abnormal joints called normal. Below the "
    "scores: calling every joint abnormal, and trivial baselines under the same threshold rule. The best of many rows "
    "is too good a number if it is picked by looking at this table: pick by a criterion on validation normals. "
    "Its interval: 95 % bootstrap of the "
    "mean, seeds and test images both resampled; it knows nothing of the picking. In the page a click on a heading "
    "sorts the rows."
)


def write_report(folder: Path) -> str:
    """Write ``report.md``, ``report.csv``, ``report.html`` and the plots into ``folder``; what to print.

    Raises:
        UserError: there is no run below it.
    """
    runs = read_runs(folder)
    if not runs:
        raise UserError(f"No run below {folder}: give the folder of a sweep or a run.")
    # Here, since they bring torch, and a mistyped folder should be told at once.
    from solder_vae.evaluation import style
    from solder_vae.studies.sweeps.plots import figures
    from solder_vae.studies.sweeps.table import COLUMNS, cells, flat_rows, marked, rows

    finished = [run for run in runs if run.state == "finished"]
    pictures = []
    for name, figure, caption in figures(rows(finished)):
        path = folder / f"report_{name}.png"
        style.save(figure, path)
        pictures.append(Picture(path, caption))
    blocks: list[Block] = [Text(standing(runs)), *failures(runs)]
    if finished:
        header, lines = cells(finished)
        of_best = header.index(COLUMNS["auroc"]), header.index(COLUMNS["f1"])
        table_block = Table(header, marked(finished, lines, of_best), sortable=True)
        blocks += [Heading("Results"), table_block, Text(LEGEND)]
        header, lines = flat_rows(finished)
        write_csv(folder / "report.csv", [header, *lines])
    if pictures:
        blocks += [Heading("Plots"), *pictures]
    write_document(folder, f"Sweep {folder.resolve().name}", blocks)
    table = markdown(*cells(finished)) if finished else ""
    errors = "".join(f"{run.name} failed: {run.reason}\n" for run in runs if run.state == "failed")
    return f"{table}\n{standing(runs)}\n{errors}Report: {folder / 'report.html'}"


def standing(runs: list[Run]) -> str:
    """How many runs finished, failed and have no result yet."""
    count = Counter(run.state for run in runs)
    text = f"{len(runs)} runs: {count['finished']} finished, {count['failed']} failed, {count['unfinished']} unfinished"
    return f"{text} (still going, or killed)." if count["unfinished"] else f"{text}."


def failures(runs: list[Run]) -> list[Block]:
    """The failed runs, each with what was typed, the last line of its traceback and all of it; then the unfinished."""
    failed = [run for run in runs if run.state == "failed"]
    unfinished = [run.name for run in runs if run.state == "unfinished"]
    blocks: list[Block] = []
    if failed:
        blocks += [Heading("Failed"), Bullets([("fails", f"{run.name}: {run.reason}") for run in failed])]
        blocks += [Code(f"Traceback of {run.name} ({shlex.join(run.overrides)})", run.error) for run in failed]
    if unfinished:
        blocks += [Heading("Unfinished"), Text(", ".join(unfinished))]
    return blocks
