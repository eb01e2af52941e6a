"""What the report shows of an inspected joint."""

from __future__ import annotations

from typing import Any

from solder_vae.evaluation.joint_report import overlay, strip
from solder_vae.inspection.inspector import Verdict


def picture(verdict: Verdict) -> dict[str, Any]:
    """Joint, reconstruction (of a model that has one) and anomaly map beside each other, as base64 of a JPEG image.

    Beside an abnormal joint come the good joint and the known defect that it is nearest to, and what these are.
    """
    recon = [] if verdict.recon is None else [verdict.recon]
    near = [each.picture.numpy() for each in verdict.near]
    drawn = strip([verdict.image, *recon, overlay(verdict.image, verdict.heat_map), *near])
    return {"picture": drawn, **({"near": [each.caption for each in verdict.near]} if near else {})}
