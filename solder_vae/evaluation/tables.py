"""The tables at the end of a run: each score beside the floor and the trivial baselines.

The text is ASCII (rich itself picks lines that the terminal can draw): it prints anywhere and into any log.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.box import HORIZONTALS
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from solder_vae.evaluation.rule_sentence import VALIDATION, rule_sentence
from solder_vae.metrics.classification import FEW, SHOWN, Metrics, defect_recalls, of_few, worst
from solder_vae.metrics.localisation import CHANCE_AUPRO, FPR_LIMIT
from solder_vae.metrics.threshold import Threshold

#: What :func:`~solder_vae.metrics.classification.evaluate` returned, by the name of the score or baseline.
Results = Mapping[str, Metrics]

Rows = list[list[str]]

_HEADERS = ["", "AUROC\n[95 %]", "AP", "Prec.", "Recall", "F1", "False\ncalls\n%", "Escapes\n%"]
WIDTH = 80
"""Columns that a table has; where shares of each defect type do not fit, counts stand alone."""

_LEGEND = (
    "False calls: normal joints called abnormal. Escapes: abnormal joints called normal. * decides. Below "
    "the scores: calling every joint abnormal, then trivial baselines under the same threshold rule."
)


def result_table(
    scores: Results, baselines: Results, primary: str, threshold: Threshold, of_normals: str = VALIDATION
) -> RenderableType:
    """What a run prints at its end; fits 80 columns.

    Args:
        scores: the model's scores.
        baselines: the trivial baselines, each under the same threshold rule.
        primary: the one of ``scores`` that decides; marked ``*``.
        threshold: the primary score's threshold.
        of_normals: what the normals are that it comes from.
    """
    metrics = scores[primary]
    counts = f"{metrics['n']} joints, {metrics['n_normal']} normal and {metrics['n_abnormal']} abnormal"
    sections = [
        [_row(_marked(name, primary), each) for name, each in scores.items()],
        [_row("all abnormal", _floor(metrics))],
        [_row(name, each) for name, each in baselines.items()],
    ]
    parts: list[RenderableType] = [Text(f"Test set: {counts}", style="bold"), _rich(_HEADERS, sections)]
    headers, defects = _defects(scores, primary)
    if defects:
        types = len(defect_recalls(metrics))
        title = "Caught of each defect type" + (f": the {SHOWN} worst of {types}" if types > SHOWN else "")
        parts += [Text(f"\n{title}", style="bold"), _rich(headers, [defects])]
    notes = [f"Note: {remark}" for remark in remarks(metrics, primary, threshold)]
    parts += [Text(f"\n{_LEGEND}", style="dim"), Text(threshold_sentence(threshold, primary, metrics, of_normals))]
    return Group(*parts, *(Text(note, style="yellow") for note in notes))


def threshold_sentence(threshold: Threshold, primary: str, metrics: Metrics, of_normals: str = VALIDATION) -> str:
    """The threshold, how it was set, the false-call rate to expect of it and the one on the test set."""
    sentence = rule_sentence(threshold, primary, of_normals).removesuffix(".")
    if metrics["n_normal"]:
        low_high = ", ".join(_percent(metrics[f"false_call_rate_{end}"]) for end in ("low", "high"))
        sentence += f"; on the test set: {_percent(metrics['false_call_rate'])} % [{low_high}]"
    return f"{sentence}."


def localisation_table(metrics: Metrics, trivial: Metrics) -> RenderableType:
    """How well the anomaly maps find the defects, type by type.

    Args:
        metrics: what :func:`~solder_vae.metrics.localisation.evaluate_localisation` returned of the model's maps.
        trivial: the same of the trivial maps.
    """
    prefixes = [key.removesuffix("n") for key in metrics if key.startswith("defect/") and key.endswith("/n")]
    types = len(prefixes)
    if types > SHOWN:
        prefixes = sorted(sorted(prefixes, key=lambda prefix: metrics[f"{prefix}aupro"] or 0)[:SHOWN])
    rows = [["all defects", "", *_located(metrics, trivial, "")]]
    rows += [
        [prefix.split("/")[1], str(metrics[f"{prefix}n"]), *_located(metrics, trivial, prefix)] for prefix in prefixes
    ]
    headers = ["", "n", "Regions", "Pixel\nAUROC", "AUPRO", "Trivial\nAUROC", "Trivial\nAUPRO"]
    legend = (
        f"AUPRO: share of each defect region found, up to a false-positive rate of {FPR_LIMIT:g} of the pixels. "
        f"A random map has {CHANCE_AUPRO:.2f}, and a pixel AUROC of 0.50. Trivial: the difference from the mean "
        "training image."
    )
    return Group(
        Text(
            "\nWhere the anomaly map finds them" + (f": the {SHOWN} worst of {types}" if types > SHOWN else ""), "bold"
        ),
        _rich(headers, [rows[:1], rows[1:]]),
        Text(f"\n{legend}", style="dim"),
    )


def _located(metrics: Metrics, trivial: Metrics, prefix: str) -> list[str]:
    keys = [f"{prefix}pixel_auroc", f"{prefix}aupro"]
    return [
        str(metrics[f"{prefix}regions"]),
        *(_decimal(numbers[key]) for numbers in (metrics, trivial) for key in keys),
    ]


def remarks(metrics: Metrics, primary: str, threshold: Threshold) -> list[str]:
    """Plain sentences on why the primary score's numbers must not be taken at face value; none if they may.

    Floor and trivial baselines are the verdict's (training/verdict.py).
    """
    if not metrics["n_abnormal"]:
        return ["The test set has no abnormal joints: only the false-call rate is defined."]
    if not metrics["n_normal"]:
        return ["The test set has no normal joints: false-call rate, AUROC and AP are undefined."]
    found = []
    if of_few(metrics):
        found.append(
            f"{metrics['n_abnormal']} abnormal and {metrics['n_normal']} normal joints: an AUROC from fewer than {FEW} "
            "of a class, marked ~, says little."
        )
    if _number(metrics, "auroc_high") < 0.5:
        found.append(f"{primary} puts normal joints above abnormal ones (AUROC {_number(metrics, 'auroc'):.3f}).")
    if _number(metrics, "false_call_rate_low") > threshold.interval[1]:
        found.append(
            "The test set's normals are called more often than the validation set's: they look different "
            "(another board, light, focus or crop?), so the expected rate does not hold for them."
        )
    return found


def _floor(metrics: Metrics) -> Metrics:
    """What calling every joint abnormal scores, in the keys that a row shows."""
    abnormal, normal = bool(metrics["n_abnormal"]), bool(metrics["n_normal"])
    return {
        "auroc": 0.5 if abnormal and normal else None,
        "auroc_low": None,
        "average_precision": metrics["floor_average_precision"],
        "precision": metrics["floor_precision"],
        "recall": 1.0 if abnormal else None,
        "f1": metrics["floor_f1"],
        "false_call_rate": 1.0 if normal else None,
        "escape_rate": 0.0 if abnormal else None,
    }


def _row(name: str, metrics: Metrics) -> list[str]:
    auroc = ("~" if of_few(metrics) else "") + _decimal(metrics["auroc"])
    if metrics["auroc_low"] is not None:
        auroc += f" [{_decimal(metrics['auroc_low'], 2)}, {_decimal(metrics['auroc_high'], 2)}]"
    ratios = [_decimal(metrics[key]) for key in ("average_precision", "precision", "recall", "f1")]
    return [name, auroc, *ratios, _percent(metrics["false_call_rate"]), _percent(metrics["escape_rate"])]


def _defects(scores: Results, primary: str) -> tuple[list[str], Rows]:
    """Headers and rows of the worst types: one, its n, what each score caught of it, the primary's interval."""
    headers, rows = _caught(scores, primary, shares=True)
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    return (headers, rows) if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else _caught(scores, primary, shares=False)


def _caught(scores: Results, primary: str, shares: bool) -> tuple[list[str], Rows]:
    headers = ["", "n"]
    columns = []
    shown = {row.defect for row in worst(defect_recalls(scores[primary]))}
    for name, metrics in scores.items():
        recalls = [row for row in defect_recalls(metrics) if row.defect in shown]
        headers.append(_marked(name, primary))
        columns.append(
            [f"{row.caught}" + (f" {f'({100 * row.recall:.0f} %)':>7}" if shares else "") for row in recalls]
        )
        if name == primary:
            headers.append("[95 %]")
            columns.append([f"[{100 * row.low:.0f}, {100 * row.high:.0f}]" for row in recalls])
            names = [[row.defect for row in recalls], [str(row.n) for row in recalls]]
    return headers, [list(row) for row in zip(*names, *columns, strict=True)]


def _rich(headers: Sequence[str], sections: Sequence[Rows]) -> Table:
    table = Table(box=HORIZONTALS, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for header in headers:
        # Names, and values with an interval, are aligned left; numbers are aligned right.
        justify: JustifyMethod = "left" if not header or header.startswith("AUROC") else "right"
        table.add_column(Text(header), justify=justify, vertical="bottom", overflow="fold")
    for rows in sections:
        for row in rows:
            table.add_row(*map(Text, row), style="bold" if row[0].endswith(" *") else None)
        table.add_section()
    return table


def _marked(name: str, primary: str) -> str:
    return f"{name} *" if name == primary else name


def _number(metrics: Metrics, key: str) -> float:
    """NaN for None: every comparison with it is false."""
    value = metrics[key]
    return math.nan if value is None else value


def _decimal(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return _decimal(None if value is None else 100 * value, 1)
