"""The table at the end of a run: every score beside the floor and the trivial baselines, on the terminal or in Markdown.

Everything here is ASCII, so that it prints on any terminal and into any log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from solder_vae.metrics import Metrics, defect_recalls
from solder_vae.threshold import Threshold

FLOOR = "all abnormal"

_HEADERS = ("", "AUROC [95 %]", "AP", "Prec.", "Recall", "F1", "False calls %", "Escapes %")
_UNDEFINED = "-"

Results = Mapping[str, Metrics]


def result_table(scores: Results, baselines: Results, primary: str, threshold: Threshold) -> RenderableType:
    """What is printed at the end of a run, 80 columns wide at most for names of usual length.

    Args:
        scores: :func:`~solder_vae.metrics.evaluate` of each score of the model, by the score's name.
        baselines: the same of each trivial baseline, by its name, under the same threshold rule.
        primary: the score whose threshold decides; marked with ``*``.
        threshold: the primary score's threshold.

    Raises:
        ValueError: ``primary`` is not one of ``scores``.
    """
    metrics = _primary(scores, primary)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, header in enumerate(_HEADERS):
        table.add_column(header.replace(" [", "\n[").replace(" c", "\nc").replace("s %", "s\n%") if column else "")
    parts: list[RenderableType] = [Text(_counts(metrics)), Text(), table, Text()]
    parts += [Text(line) for line in (threshold_line(threshold, primary), *remarks(scores, baselines, primary, threshold))]
    return Group(*parts)


def markdown_table(scores: Results, baselines: Results, primary: str) -> str:
    return ""


def _primary(scores: Results, primary: str) -> Metrics:
    return scores[primary]


def _counts(metrics: Metrics) -> str:
    return ""


def threshold_line(threshold: Threshold, primary: str) -> str:
    return ""


def remarks(scores: Results, baselines: Results, primary: str, threshold: Threshold) -> Sequence[str]:
    return defect_recalls({}) and ()
