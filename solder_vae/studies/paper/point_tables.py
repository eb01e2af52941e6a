"""What the report says of the paper's operating point: the tables there, what is ability, what "50 runs" may mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from solder_vae.studies.paper import published as paper
from solder_vae.studies.paper.operating_point import (
    CLOSE,
    MEAN_RULE,
    PAPER_RATE,
    PRINTED,
    RATE_ERROR,
    ability,
    f1_at,
    implied,
    origin,
)
from solder_vae.studies.paper.plan import CLAIMS, Comparison, Row
from solder_vae.studies.paper.results import Results
from solder_vae.studies.paper.sampled import SampledTests
from solder_vae.studies.sweeps.table import spread
from solder_vae.utils.document import Block, Bullets, Heading, Table, Text

COMMON_RATE = 0.19
"""About the mean of the rates that the paper's columns imply."""


def operating_point_blocks(results: Results, sampled: Mapping[Row, SampledTests]) -> Iterator[Block]:
    """The sections on the operating point.

    Args:
        results: of the finished runs.
        sampled: sampled tests of one run a row, where they were made.
    """
    rates = [implied(cell).false_call_rate for cell in PRINTED.values()]
    yield Heading("At the paper's operating point")
    yield Text(
        f"Precision and recall on {paper.ABNORMAL} abnormal and {paper.NORMAL} normal images imply a false-call rate: "
        f"{min(rates):.2f} to {max(rates):.2f}, another one in each column of the paper (good to about {RATE_ERROR}, "
        "since they come from means). Here each row's threshold is the quantile of its validation normals that should "
        "give the rate of its column; nothing is trained anew. Precision and F1 are those of the paper's mix of images."
    )
    yield point_table(results, PAPER_RATE)
    yield Text(
        "The same with the threshold that the authors' published script takes, the mean of the validation scores. The "
        "paper's figures stand beside it, since its text gives no rule."
    )
    yield point_table(results, MEAN_RULE)
    yield Heading("What of the paper's order is ability, and what operating point")
    yield Text(
        "The AUROC that two normal distributions of equal variance have at a column's recall and rate does not depend "
        f"on where the threshold is. Beside it: the paper's F1 if every column had a rate of {COMMON_RATE}. "
        f"Differences of implied AUROC below {CLOSE} are within what the rates leave open."
    )
    yield ability_table(results)
    yield Bullets([("", sentence) for sentence in order_sentences()])
    yield Heading(f"What {paper.RUNS} runs may mean")
    yield from readings(results, sampled)


def point_table(results: Results, point: str) -> Table:
    """Every row at one of the two points, beside the paper's figures."""
    header = ["", "False calls", "paper", "Recall", "paper", "Precision", "paper", "F1", "paper", "F1, this mix"]
    lines = []
    for row, result in results.rows.items():
        cell = PRINTED[row]
        line = [str(row), spread(result.values[f"{point}/false_call_rate"]), f"{implied(cell).false_call_rate:.3f}"]
        for key, printed in (("recall", cell.recall), ("precision", cell.precision), ("f1", cell.f1)):
            line += [spread(result.values[f"{point}/{key}"]), f"{printed.mean:.3f}"]
        lines.append([*line, spread(result.values[f"{point}/f1_here"])])
    return Table(header, lines)


def ability_table(results: Results) -> Table:
    header = ["", "AUROC here", "implied by the paper", "F1, paper", f"F1, paper, at {COMMON_RATE}", "its rate"]
    lines = []
    for row, result in results.rows.items():
        cell = PRINTED[row]
        rate, auroc = implied(cell)
        figures = [f"{auroc:.3f}", f"{cell.f1.mean:.3f}", f"{f1_at(cell, COMMON_RATE):.3f}", f"{rate:.3f}"]
        lines.append([str(row), spread(result.values["auroc"]), *figures])
    return Table(header, lines)


def order_sentences() -> Iterator[str]:
    """For each claim, which of the paper's comparisons are ability; made of the paper's figures alone."""
    for claim in CLAIMS:
        by_origin: dict[str, list[str]] = {}
        for comparison in claim.comparisons:
            by_origin.setdefault(origin(comparison), []).append(differences(comparison))
        parts = [f"{name}: {'; '.join(texts)}" for name, texts in by_origin.items()]
        yield f"{claim.sentence} " + ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def differences(comparison: Comparison) -> str:
    better, worse = (PRINTED[row].f1.mean for row in comparison)
    return f"{comparison} (F1 {better - worse:+.3f}, implied AUROC {ability(comparison):+.3f})"


def readings(results: Results, sampled: Mapping[Row, SampledTests]) -> Iterator[Block]:
    """The two readings of "50 runs", each with its spread."""
    yield Text(
        f'"At least an average of {paper.RUNS} runs" may mean {paper.RUNS} runs of training, or {paper.RUNS} tests of '
        "one trained model, each with latents drawn anew for each image. Mean ± standard deviation of F1 at the "
        "paper's rate and mix, beside the paper's. The CAE draws nothing, so tests of one CAE have no spread, where "
        "the paper prints 0.01 for precision and recall."
    )
    if not sampled:
        yield Text("Tests with drawn latents were not made (sampled_tests=0).")
    lines = [
        [str(row), *map(spread_with_count, (result.values[f"{PAPER_RATE}/f1"], sampled.get(row))), str(PRINTED[row].f1)]
        for row, result in results.rows.items()
    ]
    yield Table(["", "training runs here", "tests of seed 0's run", "paper"], lines)


def spread_with_count(values: Sequence[float | None] | None) -> str:
    return f"{spread(values)} ({len(values)})" if values is not None else "-"
