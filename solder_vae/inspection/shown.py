"""What a checkpoint says of itself: ``python -m solder_vae.threshold show=true``."""

from __future__ import annotations

from pathlib import Path

from solder_vae.evaluation.rule_sentence import rule_sentence
from solder_vae.inspection.inspector import Inspector
from solder_vae.metrics.by_type import types_sentence
from solder_vae.models.history import lines


def shown(path: str | Path) -> list[str]:
    """The threshold that decides, the other scores' thresholds, and the log, line by line.

    Raises:
        UserError: the checkpoint cannot be used.
    """
    inspector = Inspector.load(path)
    told = [rule_sentence(inspector.threshold, inspector.primary, inspector.of_normals)]
    told += [sentence] if (sentence := types_sentence(inspector.of_types, inspector.primary)) else []
    others = [f"{name} {each.value:.4g}" for name, each in inspector.thresholds.items() if name != inspector.primary]
    told += [f"Other scores, which score=NAME makes decide: {', '.join(others)}."] if others else []
    log = lines(inspector.model.log)
    return [*told, "", *(log or ["The checkpoint has no log: an earlier version wrote it."])]
