"""Names of what a joint is: normal, or the defect's; and the tables in which they are a model's word."""

from __future__ import annotations

from collections.abc import Iterable

NORMAL = "normal"

ABNORMAL = "abnormal"

UNDECIDED = "undecided"
"""In a table of verdicts: whoever looked could not tell, so the joint counts for nothing."""


def by_a_model(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is one of ``predict``, whose labels are what the model called the joints."""
    return {"threshold", "rank"} <= set(columns)
