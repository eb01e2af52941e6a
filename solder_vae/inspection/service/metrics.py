"""What the service counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from solder_vae.inspection.inspector import Unreadable
from solder_vae.inspection.joints import BATCH
from solder_vae.inspection.service.origin import Origin

GONE = 499
"""The status under which a request counts whose client did not wait for the answer; none is sent."""

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_JOINTS = [2**power for power in range(BATCH.bit_length())]


class Metrics:
    """Counters of one service, in a registry of its own.

    Args:
        model: the name of the model.
        origin: of the checkpoint.
    """

    def __init__(self, model: str, origin: Origin) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        about = Info("solder_vae_checkpoint", "What decides.", registry=self.registry)
        about.info({"path": origin.path, "sha256": origin.sha256, "model": model})
        self.requests = Counter(
            "solder_vae_requests",
            f"Requests answered, by path and status ({GONE}: the client had gone).",
            ["path", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "solder_vae_request_seconds",
            "From a request's header to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.joints = Counter(
            "solder_vae_joints", "Joints by verdict: normal, abnormal, unreadable.", ["verdict"], registry=self.registry
        )
        self.batch = Histogram(
            "solder_vae_batch_joints", "Joints scored at once.", buckets=_JOINTS, registry=self.registry
        )
        self.waiting = Gauge("solder_vae_waiting", "Requests that have arrived and wait.", registry=self.registry)

    def count(self, rows: Sequence[Mapping[str, Any]], unreadable: Sequence[Unreadable]) -> None:
        """Count joints by verdict."""
        for row in rows:
            self.joints.labels(row["label"]).inc()
        self.joints.labels("unreadable").inc(len(unreadable))
