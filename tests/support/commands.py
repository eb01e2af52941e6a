"""Running the package's commands as a user does: in a process of their own, from another folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# A few small images of the embedded set: enough to go the whole way, too few to learn much.
TINY = (
    "data.train=48",
    "data.val=24",
    "data.test_normal=9",
    "data.test_abnormal=9",
    "data.image_size=16",
    "data.batch_size=16",
    "data.render_workers=1",
    "trainer.max_epochs=2",
    "model.lr=1e-3",
)


def run_command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m solder_vae.<arguments>``; its output as text."""
    module, *rest = arguments
    return subprocess.run(
        [sys.executable, "-m", f"solder_vae.{module}", *rest],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def train(*overrides: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A tiny run without pictures; ``overrides`` come last, so they win. Flags, such as ``-m``, come first."""
    flags = [override for override in overrides if override.startswith("-")]
    values = [override for override in overrides if not override.startswith("-")]
    return run_command("train", *flags, *TINY, "pictures=false", *values, cwd=cwd, **environment)


def inspect_wandb(run_directory: Path) -> dict[str, Any]:
    """What an offline Weights & Biases run holds, read back from its files."""
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--summary", "--json"]
    offline = run_directory / "wandb/latest-run"
    return json.loads(subprocess.check_output([*command, offline], text=True, timeout=60))


def on_a_cluster(attempt: Callable[[], subprocess.CompletedProcess[str]]) -> subprocess.CompletedProcess[str]:
    """A command that starts a Ray cluster, again where Ray's own processes were not up within its fixed 15 seconds."""
    for _ in range(3):
        result = attempt()
        if result.returncode == 0 or not any(text in result.stderr for text in ("raylet", "node timed out")):
            return result
    pytest.skip(f"Ray did not come up in three attempts: {result.stderr[-300:]}")


def children_of(pid):
    """Of those the ones that train: the process that tracks resources is another."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
