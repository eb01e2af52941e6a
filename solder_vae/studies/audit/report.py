"""An audit as JSON and as one HTML file that needs nothing else.

All that varies is one JSON object inside the page, see :func:`~solder_vae.utils.document.fill_page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from solder_vae.data.controlled import RESOLUTION
from solder_vae.data.image_files import base64_of_jpeg
from solder_vae.data.transforms import PLAIN, VIEWS
from solder_vae.evaluation.baselines import AUROC
from solder_vae.studies.audit.examine import Audit, Group, class_facts
from solder_vae.studies.audit.verdict import HEADLINES, measured_on, verdict, worst
from solder_vae.utils.document import fill_page
from solder_vae.utils.errors import UserError

SAMPLES = 14
"""How many images of each class are shown."""

_GROUPS, _OF_GROUP, _ODD, _UNREADABLE = 60, 12, 200, 500  # how many are shown; audit.json has all
_SIDE = 64  # pixels of a thumbnail


def facts(audit: Audit, source: str) -> dict[str, Any]:
    """What audit.json holds.

    Args:
        audit: what was found out.
        source: names the data, for the reader.
    """
    findings = verdict(audit)
    name = [item.name for item in audit.items]

    def listed(groups: Sequence[Group]) -> list[dict[str, Any]]:
        return [
            {"images": [name[row] for row in group.rows], "classes": group.classes, "splits": group.splits}
            for group in groups
        ]

    return {
        "source": source,
        "verdict": worst(findings),
        "findings": [finding._asdict() for finding in findings],
        "images": len(audit.items),
        "unreadable": [{"path": path, "reason": reason} for path, reason in audit.unreadable],
        "odd": [{"path": name[row], "why": why} for row, why in audit.odd],
        "classes": class_facts(audit),
        "shortcut_test": {
            "how": measured_on(audit),
            "plain": [result._asdict() for result in audit.plain],
            "controlled": [result._asdict() for result in audit.controlled],
        },
        "copies": listed(audit.copies),
        "near_duplicates": listed(audit.near),
    }


def page(audit: Audit, content: dict[str, Any]) -> str:
    """The report as HTML.

    Args:
        audit: what was found out.
        content: :func:`facts` of it.
    """
    data = {
        "headline": HEADLINES[content["verdict"]],
        "resolution": RESOLUTION,
        "limit": AUROC,
        **content,
        "unreadable": content["unreadable"][:_UNREADABLE],
        "odd": [{**_card(audit, row), "why": why} for row, why in audit.odd[:_ODD]],
        "copies": _shown(audit, audit.copies),
        "near_duplicates": _shown(audit, audit.near),
        "totals": {
            "unreadable": len(audit.unreadable),
            "odd": len(audit.odd),
            "copies": len(audit.copies),
            "near_duplicates": len(audit.near),
        },
        "samples": [_sample(audit, defect) for defect in audit.classes],
    }
    return fill_page("audit.html", data)


def _shown(audit: Audit, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The groups to show, those across classes or splits first."""
    order = sorted(groups, key=lambda group: (len(group.classes) < 2, len(group.splits) < 2, -len(group.rows)))
    return [
        {
            "images": len(group.rows),
            "classes": group.classes,
            "splits": group.splits,
            "cards": [_card(audit, row) for row in group.rows[:_OF_GROUP]],
        }
        for group in order[:_GROUPS]
    ]


def _card(audit: Audit, row: int) -> dict[str, Any]:
    item = audit.items[row]
    height, width = item.native_size
    return {
        "name": item.name,
        "class": item.defect,
        "split": item.split or "no split",
        "size": f"{width}x{height} px",
        "picture": _picture(audit, PLAIN, row),
    }


def _sample(audit: Audit, defect: str) -> dict[str, Any]:
    """Images of a class, spread evenly over its names, in both views."""
    rows = np.array(audit.rows_of(defect))
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLES).astype(int))]
    return {
        "name": defect,
        "names": [audit.items[row].name for row in chosen],
        **{view: [_picture(audit, view, row) for row in chosen] for view in VIEWS},
    }


def _picture(audit: Audit, view: str, row: int) -> str:
    """An item's thumbnail; black where its file has gone or changed since it was examined."""
    try:
        image = audit.pictures[view][row]
    except UserError:
        image = np.zeros((1, 1, 3), np.uint8)
    return base64_of_jpeg(cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
