"""Names that users give, made safe for terminals and spreadsheets; durations in words."""

from __future__ import annotations

import unicodedata


def cell_safe(name: str) -> str:
    """The path, with ``./`` before it where a spreadsheet would take it for a formula."""
    return f"./{name}" if name.startswith(("=", "+", "-", "@")) else name


def printable(text: str) -> str:
    """Escape what could harm a terminal or a report: control characters and bytes outside UTF-8."""
    if text.isprintable():  # nearly always, and a hundred times faster
        return text
    unsafe = {"Cc", "Cs", "Zl", "Zp"}
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in unsafe else char for char in text
    )


def duration(seconds: float) -> str:
    """A duration, as exact as one needs it who waits: ``40 s``, ``9 min``, ``2 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
