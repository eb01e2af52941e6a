"""From runs to what can be said: means with intervals for each row, and a verdict on each of the paper's claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from solder_vae.evaluation.baselines import BASELINES
from solder_vae.metrics.paired import PairedTest, Verdict, all_of, bootstrap_intervals, holm, paired_test, verdict
from solder_vae.studies.paper import operating_point
from solder_vae.studies.paper.plan import CLAIMS, ROWS, Claim, Comparison, Row
from solder_vae.studies.paper.runs import Runs
from solder_vae.studies.sweeps.table import known_mean

PAPER_F1 = f"{operating_point.PAPER_RATE}/f1"

#: What claims are tested by: at the paper's false-call rate and mix, without a threshold, at the run's own threshold.
MEASURES = {PAPER_F1: "F1 at the paper's rate", "auroc": "AUROC", "f1": "F1 at the threshold"}

Interval = tuple[float, float]


class RowResult(NamedTuple):
    """A row over its seeds.

    Attributes:
        row: which.
        numbers: the seeds.
        values: by key of :func:`solder_vae.metrics.classification.evaluate`, and of
            :func:`~solder_vae.studies.paper.operating_point.values_at_points`, one a seed (None = undefined there).
        intervals: of the means of the MEASURES, seeds and images resampled; none where a class is missing.
    """

    row: Row
    numbers: list[int]
    values: dict[str, list[float | None]]
    intervals: dict[str, Interval]

    @property
    def seeds(self) -> int:
        return len(self.numbers)

    def of_seed(self, key: str) -> dict[int, float]:
        """Where it is defined."""
        values = zip(self.numbers, self.values[key], strict=True)
        return {seed: value for seed, value in values if value is not None}

    def mean(self, key: str) -> float | None:
        return known_mean(self.values[key])


class TestedComparison(NamedTuple):
    """A comparison, tested on one measure."""

    test: PairedTest
    adjusted: float
    verdict: Verdict


class Trend(NamedTuple):
    """How a run's validation loss ended, see :func:`solder_vae.training.verdict.trend`; ``fall`` None: not told.

    ``falling`` is None where the learning rate ended with the run: then so does the fall of the loss.
    """

    steps: int
    fall: float | None
    falling: bool | None


class Results(NamedTuple):
    """All that is measured.

    Attributes:
        rows: of every row with a finished run.
        tested: each comparison on each measure, Holm-corrected over all of them.
        floor: what calling everything abnormal scores, by key, one value a seed.
        baselines: the trivial baselines likewise, by name.
        trends: of the runs that tell how their validation loss ended.
    """

    rows: dict[Row, RowResult]
    tested: dict[tuple[Comparison, str], TestedComparison]
    floor: dict[str, list[float | None]]
    baselines: dict[str, dict[str, list[float | None]]]
    trends: list[Trend]

    def claim(self, claim: Claim, measure: str) -> Verdict:
        """A claim holds if all its comparisons do."""
        return all_of([self.tested[comparison, measure].verdict for comparison in claim.comparisons])


KEYS = ("precision", "recall", "f1", "auroc", "average_precision", "false_call_rate", "escape_rate")


def results(runs: Runs) -> Results:
    """Everything that the tables say of the finished runs."""
    rows = {row: row_result(row, runs) for row in ROWS if runs.of(row)}
    trends = [
        Trend(found["verdict/steps"], found["verdict/val_loss_fall"], found["verdict/val_loss_falling"])
        for found in (run.metrics for run in runs.finished.values())
        if "verdict/steps" in found  # runs of earlier versions tell nothing
    ]
    return Results(rows, tested_claims(rows), *references(runs), trends)


def row_result(row: Row, runs: Runs) -> RowResult:
    of_seed = runs.of(row)
    numbers = sorted(of_seed)
    members = [of_seed[seed] for seed in numbers]
    values = {key: [run.value(row.score, key) for run in members] for key in KEYS}
    at_points = [operating_point.values_at_points(run, row) for run in members]
    values |= {key: [of_run[key] for of_run in at_points] for key in at_points[0]}
    if not all(set(run.labels.tolist()) == {0, 1} for run in members):
        return RowResult(row, numbers, values, {})
    intervals = bootstrap_intervals([run.test_images(row.score) for run in members])
    at_paper_rate = [operating_point.images_at_paper_rate(run, row) for run in members]
    return RowResult(row, numbers, values, {**intervals, PAPER_F1: bootstrap_intervals(at_paper_rate)["f1"]})


def tested_claims(rows: Mapping[Row, RowResult]) -> dict[tuple[Comparison, str], TestedComparison]:
    """Each distinct comparison once on each measure, over the seeds for which both rows have a run."""
    comparisons = dict.fromkeys(comparison for claim in CLAIMS for comparison in claim.comparisons)
    keys = [(comparison, measure) for measure in MEASURES for comparison in comparisons]
    tests = [paired_test(differences(comparison, measure, rows)) for comparison, measure in keys]
    adjusted = holm([test.p for test in tests])
    return {
        key: TestedComparison(test, p, verdict(test, p)) for key, test, p in zip(keys, tests, adjusted, strict=True)
    }


def differences(comparison: Comparison, measure: str, rows: Mapping[Row, RowResult]) -> list[float]:
    """Better minus worse for each seed that has both."""
    better, worse = (rows[row].of_seed(measure) if row in rows else {} for row in comparison)
    return [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]


def references(runs: Runs) -> tuple[dict[str, list[float | None]], dict[str, dict[str, list[float | None]]]]:
    """The floor and the trivial baselines: they depend on the seed's data alone, so one run of each seed counts."""
    of_seed = {training.seed: run.metrics for training, run in runs.finished.items()}.values()
    floor: dict[str, list[float | None]] = {
        key: [metrics[f"test/floor_{key}"] for metrics in of_seed] for key in ("precision", "f1", "average_precision")
    }
    count = len(of_seed)
    floor |= {"recall": [1.0] * count, "auroc": [0.5] * count}
    floor |= {"false_call_rate": [1.0] * count, "escape_rate": [0.0] * count}
    baselines = {
        name: {key: [metrics.get(f"baseline/{name}/{key}") for metrics in of_seed] for key in KEYS}
        for name in BASELINES  # runs of earlier versions lack one
    }
    return floor, baselines


def difference(test: PairedTest) -> str:
    """The mean difference and its interval, in words."""
    if not test.n:
        return "-"
    if math.isnan(test.low):
        return f"{test.mean:+.3f}"
    return f"{test.mean:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"


def above(rows: Sequence[RowResult], level: float, measure: str) -> list[Row]:
    """Rows whose whole interval of a measure is above a level."""
    return [result.row for result in rows if measure in result.intervals and result.intervals[measure][0] > level]
