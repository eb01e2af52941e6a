"""A sweep's finished runs as a table: each setting and score, averaged over seeds, beside floor and baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np

from solder_vae.evaluation.baselines import BASELINES
from solder_vae.metrics.paired import TestImages, bootstrap_intervals
from solder_vae.studies.sweeps.runs import Run
from solder_vae.training.schema import PSEUDO_DEFECT_AUROC
from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import read_table

COLUMNS = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "false_call_rate": "False calls",
    "escape_rate": "Escapes",
}

#: Shown whether they differ or not.
ALWAYS = ("model", "beta")
# The settings that the floor and the baselines depend on, too.
_OF_THE_DATA = ("data", "threshold")


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but their seed, under one score.

    Attributes:
        settings: what tells them from other runs, by the config's key.
        score: the score's name.
        runs: one a seed.
    """

    settings: dict[str, Any]
    score: str
    runs: list[Run]

    def values(self, metric: str) -> list[float | None]:
        """The metric under this row's score, one a run."""
        return [run.numbers.get(f"test/{self.score}/{metric}") for run in self.runs]


def spread(values: Sequence[float | None]) -> str:
    """Mean and, over several seeds, sample standard deviation."""
    numbers = known(values)
    if not numbers:
        return "-"
    if len(numbers) == 1:
        return f"{numbers[0]:.3f}"
    return f"{mean(numbers):.3f} ± {stdev(numbers):.3f}"


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings that are not the same in all runs, those of ALWAYS first.

    A setting that only one of the models has (a CAE has no reduction) is left out, since the model says it already.
    """
    keys = dict.fromkeys([*ALWAYS, *(key for run in runs for key in run.settings)])
    by_model: dict[str, list[Run]] = {}
    for run in runs:
        by_model.setdefault(str(run.settings.get("model")), []).append(run)

    def varies(key: str) -> bool:
        present = {repr(run.settings[key]) for run in runs if key in run.settings}
        within = (len({key in run.settings for run in group}) for group in by_model.values())
        return len(present) > 1 or max(within) > 1

    return [key for key in keys if key in ALWAYS or varies(key)]


def rows(runs: Sequence[Run]) -> list[Row]:
    """A row for each distinct setting and score.

    Runs that differ in the primary score alone count as one setting. Each seed counts once, by the run whose primary
    score it is if there is one (a fixed threshold holds for that score alone).
    """
    keys = differing(runs)
    found = []
    for picked in grouped(runs, keys):
        for score in dict.fromkeys(score for run in picked for score in run.scores):
            by_seed: dict[int | None, Run] = {}
            for run in sorted(picked, key=lambda run: run.score == score):
                if score in run.scores:
                    by_seed[run.seed] = run
            if by_seed:
                chosen = [by_seed[seed] for seed in sorted(by_seed, key=lambda seed: (seed is None, seed or 0))]
                found.append(Row({key: picked[0].settings.get(key) for key in keys}, score, chosen))
    return found


def grouped(runs: Sequence[Run], keys: Sequence[str]) -> list[list[Run]]:
    """Runs with the same settings under ``keys``, ordered by these."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(repr(run.settings.get(key)) for key in keys), []).append(run)
    return sorted(groups.values(), key=lambda group: [order(group[0].settings.get(key)) for key in keys])


def order(value: Any) -> tuple[int, float, str]:
    """Sorts numbers by value, before texts."""
    number = isinstance(value, int | float)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def cells(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table as text.

    The floor and the trivial baselines depend on the data and the threshold's rule, not on the model, so each seed
    counts once there.
    """
    keys = differing(runs)
    searched = any(PSEUDO_DEFECT_AUROC in run.numbers for run in runs)
    header = [*(heading(key) for key in keys), "score", "seeds", *COLUMNS.values(), *(["Criterion"] * searched)]
    lines = []
    for row in rows(runs):
        names = [show(row.settings[key]) for key in keys]
        numbers = [spread(row.values(metric)) for metric in COLUMNS]
        if searched:  # the criterion is the primary score's
            numbers.append(spread([run.numbers.get(PSEUDO_DEFECT_AUROC) for run in row.runs if run.score == row.score]))
        lines.append([*names, row.score, str(len(row.runs)), *numbers])
    of_the_data = [key for key in keys if key.split(".")[0] in _OF_THE_DATA]
    for group in grouped(runs, of_the_data):
        seeds = list({run.seed: run for run in group}.values())
        for name, values in comparisons(seeds):
            places = [show(group[0].settings.get(key)) if key in of_the_data else "" for key in keys]
            places[0] = name
            lines.append([*places, "", str(len(seeds)), *map(spread, values), *([""] * searched)])
    return header, lines


def marked(runs: Sequence[Run], lines: Sequence[Sequence[str]], places: tuple[int, int]) -> list[list[str]]:
    """The lines of :func:`cells` with the best AUROC of a model marked, and its 95 % interval where it is known.

    Args:
        runs: the finished ones.
        lines: of :func:`cells`, those of the models first.
        places: of the columns of AUROC and F1.
    """
    found = [list(line) for line in lines]
    means = [mean(values) if (values := known(row.values("auroc"))) else -1.0 for row in rows(runs)]
    if means and (best := max(means)) > 0:
        number = means.index(best)
        row = rows(runs)[number]
        tests = [images for run in row.runs if (images := test_images(run, row.score)) is not None]
        intervals = bootstrap_intervals(tests) if len(tests) == len(row.runs) else {}
        for place, key in zip(places, ("auroc", "f1"), strict=True):
            low_high = f", {intervals[key][0]:.3f} to {intervals[key][1]:.3f}" if key in intervals else ""
            found[number][place] += f"\nbest{low_high}" if key == "auroc" else low_high.replace(", ", "\n", 1)
    return found


def known(values: Sequence[float | None]) -> list[float]:
    """Those that are not None."""
    return [value for value in values if value is not None]


def known_mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are not None; None where all are."""
    numbers = known(values)
    return mean(numbers) if numbers else None


def test_images(run: Run, score: str) -> TestImages | None:
    """What a run's ``predictions.csv`` says of a score; None where it is missing or has one class only."""
    try:
        lines = [line for _, line in read_table(run.folder / "predictions.csv", ("path", "label", score))]
        labels, scores = (np.array([float(line[key]) for line in lines]) for key in ("label", score))
    except (UserError, ValueError):
        return None
    threshold = run.numbers.get(f"test/{score}/threshold")
    if set(labels.tolist()) != {0, 1} or threshold is None:
        return None
    prefix = "" if run.settings.get("data.root") else f"{run.seed}/"  # rendered images of another seed are others
    return TestImages(scores, labels.astype(np.int64), threshold, [prefix + line["path"] for line in lines])


def comparisons(seeds: Sequence[Run]) -> Iterator[tuple[str, list[list[float | None]]]]:
    """Calling every joint abnormal, then each trivial baseline: name and, of each of COLUMNS, the seeds' values."""
    by_definition: dict[str, float | None]
    by_definition = {"auroc": 0.5, "recall": 1.0, "false_call_rate": 1.0, "escape_rate": 0.0}
    floor = [
        [by_definition[key]] if key in by_definition else [run.numbers.get(f"test/floor_{key}") for run in seeds]
        for key in COLUMNS
    ]
    yield "all abnormal", floor
    for name in BASELINES:
        yield f"{name} alone", [[run.numbers.get(f"baseline/{name}/{key}") for run in seeds] for key in COLUMNS]


def heading(key: str) -> str:
    """A config key as a column's heading; ``score.alpha`` says whether the constraint was trained."""
    return "constraint" if key == "score.alpha" else key


def show(value: Any) -> str:
    """A setting as text."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def flat_rows(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Header and rows for programs: one row a finished run and score, nothing averaged, with every digit."""
    keys = differing(runs)
    criterion = [PSEUDO_DEFECT_AUROC] if any(PSEUDO_DEFECT_AUROC in run.numbers for run in runs) else []
    header = ["run", *keys, "seed", "score", "is_primary", "val/loss", *criterion, *COLUMNS]
    lines = []
    for run in runs:
        for score in run.scores:
            values = [run.numbers.get(key) for key in ("val/loss", *criterion)]
            values += [run.numbers[f"test/{score}/{key}"] for key in COLUMNS]
            names = [run.name, *(run.settings.get(key) for key in keys), run.seed, score, score == run.score]
            lines.append(["" if value is None else str(value) for value in [*names, *values]])
    return header, lines
