"""``python -m solder_vae.report DIR``: the runs below a folder as a table and plots.

Leaves ``report.md``, ``report.csv`` (one row a run and score) and ``report.html`` (everything in one file) in the
folder, and prints the table. It may run while the sweep still goes on: what is not there yet is counted.
"""

from __future__ import annotations

from pathlib import Path

from solder_vae.utils.cli import command
from solder_vae.utils.errors import UserError

USAGE = """\
Put the runs of a sweep side by side: a table, plots and report.html in its folder.

  python -m solder_vae.report DIR    the folder of a sweep, such as multirun/2026-01-31_12-00-00, or of one run
"""


def main() -> None:
    command(job)


def job(arguments: list[str]) -> int:
    """Write the report beside the runs and print its table."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE.strip())
        return 0
    if len(arguments) != 1:
        raise UserError("report takes one folder, that of a sweep: python -m solder_vae.report multirun/...")
    from solder_vae.studies.sweeps.report import write_report

    print(write_report(Path(arguments[0])))
    return 0


if __name__ == "__main__":
    main()
