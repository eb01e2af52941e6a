"""A checkpoint's log: when it was trained and on which data, what set its thresholds, what its memory was extended by.

An entry is a dict of texts, in a list under the checkpoint's key ``log``: ``when`` (UTC, ISO 8601), ``what``
("trained", "thresholds" or "memory"), ``text`` (a sentence) and ``brief`` (its short form). The times stand nowhere
else, so that two equal runs differ in nothing but their log. Checkpoints of earlier versions have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from solder_vae.utils.text import printable

TRAINED, THRESHOLDS, MEMORY = KINDS = ("trained", "thresholds", "memory")

Entry = dict[str, str]


def entry(what: str, text: str, brief: str) -> Entry:
    """An entry of this moment.

    Args:
        what: one of :data:`KINDS`.
        text: what was done, a sentence without its stop.
        brief: the same in a few words, to which the day is added.
    """
    now = datetime.now(UTC)
    return {
        "when": now.isoformat(timespec="seconds"),
        "what": what,
        "text": printable(text),
        "brief": f"{printable(brief)} ({now:%Y-%m-%d})",
    }


def entries(log: Any) -> list[Entry]:
    """The entries of what a checkpoint holds as its log; what is none is left out, as files come from anywhere."""
    if not isinstance(log, list):
        return []
    keys = ("when", "what", "text", "brief")
    found = [each for each in log if isinstance(each, dict) and all(isinstance(each.get(key), str) for key in keys)]
    return [{key: printable(each[key]) for key in keys} for each in found]


def line(log: Sequence[Entry]) -> str:
    """The log in one line: the latest of each kind; "" without a log."""
    latest = {each["what"]: each["brief"] for each in log}
    told = [latest[what] for what in KINDS if what in latest]
    return f"{'; '.join(told)}." if told else ""


def lines(log: Sequence[Entry]) -> list[str]:
    """The whole log, a line an entry, the oldest first."""
    return [f"{each['when'].replace('T', ' ').replace('+00:00', ' UTC')}: {each['text']}." for each in log]
