"""What the reproduction's report says: a plain summary first, then tables beside the paper's, claims, pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from solder_vae.evaluation.style import BLUE, GREY, VERMILION, style_axes
from solder_vae.metrics.paired import FEWEST_SEEDS
from solder_vae.studies.paper import published as paper
from solder_vae.studies.paper.heads import MeasuredHead, head_blocks
from solder_vae.studies.paper.latent import DISENTANGLEMENT, KINDS, Disentanglement
from solder_vae.studies.paper.operating_point import f1_of, implied
from solder_vae.studies.paper.plan import CLAIMS, ROWS, TABLE_2, TABLE_3, Comparison, Row
from solder_vae.studies.paper.point_tables import operating_point_blocks
from solder_vae.studies.paper.results import (
    MEASURES,
    PAPER_F1,
    Interval,
    Results,
    RowResult,
    TestedComparison,
    above,
    difference,
)
from solder_vae.studies.paper.runs import Failure
from solder_vae.studies.paper.sampled import SampledTests
from solder_vae.studies.sweeps.table import COLUMNS, known, known_mean, spread
from solder_vae.training.verdict import FALL
from solder_vae.utils.document import OF_VERDICT, Block, Bullets, Code, Heading, Picture, Table, Text


def document(
    results: Results,
    failed: Sequence[Failure],
    measured: Sequence[Disentanglement],
    heads: Sequence[MeasuredHead],
    sampled: Mapping[Row, SampledTests],
    pictures: Mapping[str, Picture],
    facts: Mapping[str, Any],
    config: str,
) -> Iterator[Block]:
    """The whole report.

    Args:
        results: of the finished runs, one at least.
        failed: runs without a result.
        measured: disentanglement, if the data set's factors are known.
        heads: the table of heads, if asked for.
        sampled: tests with drawn latents, by row.
        pictures: those that could be made, by ``f1``, ``figure 4``, ``figure 5``, ``figure 6``, ``traversal``.
        facts: name and value, of how this was run.
        config: as YAML.
    """
    yield Heading("In short")
    yield from summary(results, failed)
    if "f1" in pictures:
        yield pictures["f1"]
    yield Heading("The paper's claims")
    yield Text(
        f"Paired t-tests over seeds: the difference of the two means, its 95 % t interval, and the p-value after "
        f"Holm's correction for all {len(results.tested)} tests of this table. A claim holds if all its comparisons "
        f"do; not shown means that these runs cannot tell. With fewer than {FEWEST_SEEDS} seeds nothing is shown. The "
        "paper's rate is the false-call rate that a column of the paper implies (below); the threshold is the run's "
        "own, as a line would set it."
    )
    yield claims_table(results)
    yield from operating_point_blocks(results, sampled)
    yield Heading("Table II: models and scores")
    yield Text(
        "Mean ± standard deviation over seeds, at the threshold set on validation normals: what a line gets. The "
        "paper's figures are of other false-call rates, which stand in the last column. Recon and ELBO are of "
        "models trained without the gradient constraint, GradCon of models trained with it."
    )
    yield beside_paper(TABLE_2, results)
    yield Heading("Table III: beta")
    yield Text("β-VAE trained with the gradient constraint, scored by GradCon. β=1 is the VAE.")
    yield beside_paper(TABLE_3, results)
    yield Heading("The same rows without F1's blind spots")
    yield Text(
        "Below them stand the floor of calling every joint abnormal and the trivial baselines, under the same rule. "
        "Intervals: 95 % bootstrap of the mean, seeds and test images both resampled."
    )
    yield rates_table(results)
    for name, title in (
        ("figure 4", "Fig. 4: reconstructions"),
        ("figure 5", "Fig. 5: latent space, trained with the gradient constraint"),
        ("figure 6", "Fig. 6: latent space, trained on the ELBO alone"),
        ("traversal", "Latent traversals"),
    ):
        if name in pictures:
            yield Heading(title)
            yield pictures[name]
    yield Heading("Disentanglement")
    yield from disentanglement_blocks(measured)
    if heads:
        yield Heading("What the heads do")
        yield from head_blocks(heads)
    if failed:
        yield Heading("Runs that failed")
        for failure in failed:
            yield Code(str(failure.training), failure.traceback)
    yield Heading("How this was made")
    yield Bullets([("", f"{name}: {value}") for name, value in facts.items()])
    yield Code("Configuration of a run, before the sweep's own values", config)


# in words -------------------------------------------------------------------------------------------------------------


def summary(results: Results, failed: Sequence[Failure]) -> Iterator[Block]:
    seeds = max(result.seeds for result in results.rows.values())
    verdicts = [results.claim(claim, PAPER_F1) for claim in CLAIMS]
    holding = verdicts.count("holds")
    yield Text(
        f"Of the paper's {len(CLAIMS)} claims, measured by F1 at the paper's false-call rates over {seeds} "
        f"seed{'s' * (seeds != 1)}, {holding} hold{'s' * (holding == 1)} here, {verdicts.count('does not hold')} do "
        f"not, and {verdicts.count('not shown')} are not shown either way."
    )
    items = [
        (
            OF_VERDICT[by_f1],
            f"{claim.sentence} By F1 at the paper's rate: {by_f1}; by AUROC: {results.claim(claim, 'auroc')}; by F1 at "
            f"the threshold: {results.claim(claim, 'f1')}. " + evidence(claim.comparisons, results),
        )
        for claim, by_f1 in zip(CLAIMS, verdicts, strict=True)
    ]
    if failed:
        items.append(("fails", f"{len(failed)} runs failed and are missing from all numbers; see below."))
    items += [("", text) for text in (*standing(results), lengths(results), *caveats(seeds))]
    yield Bullets(items)


def evidence(comparisons: Sequence[Comparison], results: Results) -> str:
    """The claim's weakest comparison by F1 at the paper's rate: what decides whether it holds."""
    tests = [(results.tested[comparison, PAPER_F1].test, comparison) for comparison in comparisons]
    known = [(test.mean, str(comparison), test) for test, comparison in tests if test.n]
    if not known:
        return ""
    _, name, test = min(known, key=lambda item: item[0])
    return f"Weakest part: {name}, difference {difference(test)}."


def standing(results: Results) -> Iterator[str]:
    """How the models stand beside the floor and the trivial baselines."""
    rows = list(results.rows.values())
    if floor := known_mean(results.floor["f1"]):
        share = 2 * paper.ABNORMAL / (paper.ABNORMAL + paper.NORMAL + paper.ABNORMAL)
        yield (
            f"Calling every joint abnormal scores F1 {floor:.3f} here, and {share:.3f} in the paper's mix. With their "
            f"whole 95 % interval, {len(above(rows, share, PAPER_F1))} of {len(rows)} rows lie above that at the "
            f"paper's false-call rates, {len(above(rows, floor, 'f1'))} at the run's own threshold."
        )
    levels = {name: known_mean(values["auroc"]) or 0 for name, values in results.baselines.items()}
    if best := max(filter(levels.get, levels), key=levels.__getitem__, default=None):
        level = levels[best]
        yield (
            f"The best trivial baseline, {best} alone, reaches AUROC {level:.3f}. {len(above(rows, level, 'auroc'))} "
            f"of {len(rows)} rows lie above that with their whole 95 % interval; the others say little about joints."
        )


def lengths(results: Results) -> str:
    """Whether the runs were long enough, as each of them judged its own validation loss."""
    falls = [trend.fall for trend in results.trends if trend.fall is not None]
    if not falls:
        return "Whether the validation loss has flattened cannot be told from so few epochs."
    steps = sorted({trend.steps for trend in results.trends})
    span = f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else str(steps[0])
    told = [trend.falling for trend in results.trends if trend.falling is not None]
    end = (
        f"In {sum(told)} of them it was still falling: by {100 * FALL:.0f} % or more, and not within its scatter."
        if told
        else "The learning rate ends with a run, and the fall of its loss with it: only longer runs would show whether "
        "more steps lower it."
    )
    return (
        f"Over the last third of a run's epochs its validation loss fell by {100 * median(falls):.1f} % (median over "
        f"{len(falls)} runs of {span} steps; from {100 * min(falls):.1f} % to {100 * max(falls):.1f} %, negative where "
        f"it rose). {end}"
    )


def caveats(seeds: int) -> Iterator[str]:
    yield "The paper's images are private, so its figures can be compared with ours but not matched."
    if seeds < FEWEST_SEEDS:
        yield f"With fewer than {FEWEST_SEEDS} seeds nothing can be shown: give seeds={FEWEST_SEEDS} or more."
    if seeds < paper.RUNS:
        yield f"The paper averages {paper.RUNS} runs, this report {seeds}: scale=paper runs all of it."


# tables ---------------------------------------------------------------------------------------------------------------


def beside_paper(rows: Mapping[Row, paper.Cell], results: Results) -> Table:
    """Precision, recall and F1 of the rows of one of the paper's tables, each with the paper's figure."""
    header = ["", "Seeds"]
    for name in ("Precision", "Recall", "F1", "False calls"):
        header += [name, "paper"]
    lines = []
    for row, cell in rows.items():
        result = results.rows.get(row)
        line = [str(row), str(result.seeds if result else 0)]
        for key, printed in zip(("precision", "recall", "f1"), cell, strict=True):
            line += [spread(result.values[key]) if result else "-", str(printed)]
        line += [spread(result.values["false_call_rate"]) if result else "-", f"{implied(cell).false_call_rate:.3f}"]
        lines.append(line)
    lines.append(["all abnormal", "", spread(results.floor["precision"]), "", spread(results.floor["recall"]), ""])
    share = paper.ABNORMAL / (paper.ABNORMAL + paper.NORMAL)
    lines[-1] += [spread(results.floor["f1"]), f"{2 * share / (1 + share):.3f}", "1.000", "1.000"]
    lines[-1][3], lines[-1][5] = f"{share:.3f}", "1.000"
    return Table(header, lines)


def rates_table(results: Results) -> Table:
    keys = ("auroc", "average_precision", "escape_rate", "f1")
    lines = [
        [
            str(row),
            spread(result.values["auroc"]),
            interval(result, "auroc"),
            *(spread(result.values[key]) for key in keys[1:]),
            interval(result, "f1"),
        ]
        for row, result in results.rows.items()
    ]
    references = {"all abnormal": results.floor}
    references |= {f"{name} alone": values for name, values in results.baselines.items()}
    for name, values in references.items():
        lines.append([name, spread(values["auroc"]), "", *(spread(values[key]) for key in keys[1:]), ""])
    return Table(["", "AUROC", "95 % bootstrap", *(COLUMNS[key] for key in keys[1:]), "95 % bootstrap"], lines)


def claims_table(results: Results) -> Table:
    """A cell has the verdict in its first line, the difference and the p-value below: nine columns would not fit."""
    lines = []
    for claim in CLAIMS:
        lines.append([claim.sentence, *(results.claim(claim, measure) for measure in MEASURES)])
        for comparison in claim.comparisons:
            tests = [results.tested[comparison, measure] for measure in MEASURES]
            lines.append([f"   {comparison}", *map(tested_cell, tests)])
    return Table(["", *(f"by {name}" for name in MEASURES.values())], lines)


def tested_cell(tested: TestedComparison) -> str:
    """Verdict and Holm's p-value, below them the difference with its interval."""
    return f"{tested.verdict}, p {p_value(tested.adjusted)}\n{difference(tested.test)}"


def disentanglement_blocks(measured: Sequence[Disentanglement]) -> Iterator[Block]:
    if not measured:
        yield Text(
            "Not measured: it needs 20 or more validation images whose generative factors are known, as they are in "
            "the embedded data set."
        )
        return
    seeds = len({entry.seed for entry in measured})
    yield Text(
        "MIG, SAP and DCI of the models of Table III, and of others if asked for, on validation normals: mean ± "
        f"standard deviation over {seeds} "
        f"seed{'s' * (seeds != 1)}; 1 would be one latent unit for each factor. Chance: the same codes dealt out to "
        "the images at random. Rotated: the same latent space along random axes; measures that are no higher than "
        "these two show no disentanglement."
    )
    lines = [
        [
            model if kind == KINDS[0] else f"   {kind}",
            *(
                spread([entry.measures[kind][key] for entry in measured if entry.model == model])
                for key in DISENTANGLEMENT
            ),
        ]
        for model in dict.fromkeys(entry.model for entry in measured)
        for kind in KINDS
    ]
    yield Table(["", *DISENTANGLEMENT.values()], lines)


def interval(result: RowResult | None, measure: str) -> str:
    found: Interval | None = result.intervals.get(measure) if result else None
    return f"{found[0]:.3f} to {found[1]:.3f}" if found else "-"


def p_value(p: float) -> str:
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


# the picture of Tables II and III -------------------------------------------------------------------------------------


def f1_figure(results: Results) -> Figure:
    """F1 of every row at the paper's rate and mix, its interval and single seeds, beside the paper's figure."""
    printed = {**TABLE_3, **TABLE_2}
    rows = [row for row in ROWS if row in results.rows]
    figure = Figure(figsize=(8.0, 1.3 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(reversed(rows)):
        result, value = results.rows[row], printed[row].f1
        seeds = known(result.values[PAPER_F1])
        axes.plot(seeds, [place] * len(seeds), "|", color=BLUE, alpha=0.5, markersize=9)
        if PAPER_F1 in result.intervals:
            axes.plot(result.intervals[PAPER_F1], [place, place], color=BLUE, linewidth=2)
        axes.plot([result.mean(PAPER_F1) or math.nan], [place], "o", color=BLUE, markersize=6)
        axes.errorbar(
            value.mean, place - 0.25, xerr=value.spread or 0, fmt="D", color=VERMILION, markersize=4, linewidth=1
        )
    floor = f1_of(1.0, 1.0)
    axes.axvline(floor, color=GREY, linestyle="--", linewidth=1.2, label=f"all abnormal, {floor:.3f}")
    axes.plot([], [], "o-", color=BLUE, label="here: mean, 95 % bootstrap interval; | each seed")
    axes.plot([], [], "D-", color=VERMILION, markersize=4, label="paper: mean ± spread, on its private images")
    axes.set_yticks(range(len(rows)), [str(row) for row in reversed(rows)])
    axes.set_xlim(0, 1)
    style_axes(axes, "F1 at the false-call rate of the paper's column, 66 abnormal to 84 normal", "")
    figure.legend(loc="outside upper left", frameon=False, fontsize=9)
    return figure
