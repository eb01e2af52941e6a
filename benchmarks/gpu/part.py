"""What every part of ``benchmarks/gpu.sh`` knows: where it computes, how much, how long, where its results go.

No torch here: the parts that only start other processes do without it, for it takes seconds to import.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from solder_vae.utils.files import atomic_file, file_lock

ALPHAS = (0.0, 0.03)  # without the constraint, and with it as conf/score/gradcon.yaml weighs it
SIZES = {  # each, and with `--quick`
    "batch": (64, 8),
    "side": (64, 16),
    "score_batch": (256, 8),
    "steps": (20, 1),
    "blocks": (5, 2),
    "window": (4.0, 0.5),  # seconds
    "epochs": (4, 2),
    "paper_epochs": (100, 2),
    "side_by_side": (os.cpu_count() or 1, 2),
}
Found = dict[str, Any]


class Part:
    """The command line of a part, and its way to the results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = os.environ.get("DEVICE", "cuda")
        self.quick: bool = options.quick
        self.out: Path = options.out
        self.work: Path = options.work
        self.count: int = options.count
        self.until: float = options.until

    def size(self, name: str) -> Any:
        return SIZES[name][self.quick]

    def results(self) -> Found:
        return json.loads(self.out.read_text()) if self.out.exists() else {}

    def add(self, part: str, found: Found) -> None:
        """Put a part's findings beside those that are there."""
        with file_lock(self.out):
            results = self.results()
            results[part] = {**results.get(part, {}), **found}
            with atomic_file(self.out) as temporary:
                temporary.write_text(json.dumps(results, indent=1) + "\n")


def gpu_query(key: str) -> str | None:
    """What ``nvidia-smi`` says of a GPU; None where it says nothing."""
    try:
        return subprocess.run(
            ["nvidia-smi", f"--query-gpu={key}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
