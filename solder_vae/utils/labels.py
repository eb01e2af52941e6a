"""Names of what a joint is: normal, or the defect's."""

from __future__ import annotations

NORMAL = "normal"

ABNORMAL = "abnormal"

UNDECIDED = "undecided"
"""In a table of verdicts: whoever looked could not tell, so the joint counts for nothing."""
