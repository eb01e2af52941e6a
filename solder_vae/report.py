"""``python -m solder_vae.report DIR``: the runs below a folder as a table and plots.

Leaves ``report.md``, ``report.csv`` (one row a run and score) and ``report.html`` (everything in one file) in the
folder, and prints the table. It may run while the sweep still goes on: what is not there yet is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from solder_vae.cli import command
from solder_vae.errors import UserError

COLUMNS = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "false_call_rate": "False calls",
    "escape_rate": "Escapes",
}


def spread(values: Sequence[float | None]) -> str:
    """Mean and, over several seeds, sample standard deviation."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.3f}"
    return f"{mean(known):.3f} ± {stdev(known):.3f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    lines = (
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in (header, rule, *rows)
    )
    return "\n".join(f"| {line} |" for line in lines) + "\n"


USAGE = "usage: python -m solder_vae.report DIR   (the folder of a sweep, such as multirun/2026-01-31_12-00-00)"


def main() -> None:
    command(job)


def job(arguments: list[str]) -> int:
    """Write the report beside the runs and print its table."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE)
        return 0
    if len(arguments) != 1:
        raise UserError(f"report takes one folder. {USAGE}")
    from solder_vae.sweep_report import write_report

    print(write_report(Path(arguments[0])))
    return 0


if __name__ == "__main__":
    main()
