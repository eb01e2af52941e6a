"""Names of what a joint is: normal, or the defect's."""

from __future__ import annotations

NORMAL = "normal"
