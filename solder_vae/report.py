"""``python -m solder_vae.report DIR``: the runs below a folder as one table, averaged over seeds.

Prints Markdown and leaves it as ``DIR/report.md``. Runs that failed or are still going have no ``metrics.json`` and are
counted, not shown.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from solder_vae.cli import command
from solder_vae.errors import UserError
from solder_vae.files import replacing

Run = Mapping[str, Any]  # a run's metrics.json

COLUMNS = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "false_call_rate": "False calls",
    "escape_rate": "Escapes",
}
SCORES = ("recon", "elbo", "gradcon")


def find_runs(folder: Path) -> tuple[list[Run], int]:
    """Every finished run below ``folder``, and how many runs there have no result (yet).

    Raises:
        UserError: there is no finished run.
    """
    files = sorted(folder.rglob("metrics.json"))
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if not runs:
        raise UserError(f"No finished run below {folder}: give the folder of a sweep or a run.")
    return runs, len(list(folder.rglob(".hydra"))) - len(runs)


def spread(values: Sequence[float | None]) -> str:
    """Mean and, over several seeds, sample standard deviation."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.3f}"
    return f"{mean(known):.3f} ± {stdev(known):.3f}"


def report(runs: Sequence[Run]) -> str:
    """A Markdown table: a row for each model, constraint and score; below them the floor and the trivial baselines.

    The baselines and the floor do not depend on the model, so each seed counts once.
    """
    header = ["model", "beta", "trained with constraint", "score", "seeds", *COLUMNS.values()]
    groups: dict[tuple[str, str, bool], list[Run]] = defaultdict(list)
    for run in runs:
        beta = "" if run["beta"] is None else f"{run['beta']:g}"
        seen = "" if run.get("view", "plain") == "plain" else f" ({run['view']} view)"
        groups[run["model"] + seen, beta, run["alpha"] > 0].append(run)
    rows = []
    for (model, beta, constrained), runs_of_group in sorted(groups.items()):
        # Runs that differ in the primary score alone are the same training: each seed counts once.
        members = list({run["seed"]: run for run in runs_of_group}.values())
        for score in SCORES:
            if f"test/{score}/auroc" in members[0]:
                cells = [spread([run[f"test/{score}/{key}"] for run in members]) for key in COLUMNS]
                rows.append([model, beta, "yes" if constrained else "no", score, str(len(members)), *cells])
    seeds = {run["seed"]: run for run in runs}.values()
    floor = ["0.500", spread([run["test/floor_average_precision"] for run in seeds])]
    floor += [spread([run["test/floor_precision"] for run in seeds]), "1.000"]
    floor += [spread([run["test/floor_f1"] for run in seeds]), "1.000", "0.000"]
    rows.append(["all abnormal", "", "", "", str(len(seeds)), *floor])
    for name in ("mean colour", "contrast", "sharpness", "size"):
        cells = [spread([run[f"baseline/{name}/{key}"] for run in seeds]) for key in COLUMNS]
        rows.append([f"{name} alone", "", "", "", str(len(seeds)), *cells])
    return markdown(header, rows)


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
    """Print the table and write it beside the runs."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE)
        return 0
    if len(arguments) != 1:
        raise UserError(f"report takes one folder. {USAGE}")
    folder = Path(arguments[0])
    runs, unfinished = find_runs(folder)
    text = report(runs)
    if unfinished > 0:
        text += f"\n{unfinished} runs have no result: they failed (see their train.log) or are not finished.\n"
    with replacing(folder / "report.md") as path:
        path.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    main()
