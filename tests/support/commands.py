"""Running the package's commands as a user does: in a process of their own, from another folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm

# A few small images of the embedded set and half the width: enough to go the whole way, too few to learn much.
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
    "model.width=8",
)


# Read while libraries are imported, so that a process which has imported them would not follow a change of them.
READ_AT_IMPORT = ("PYTHON", "OMP_", "MKL_", "LC_", "LANG", "OPENCV_", "CUDA_", "LD_", "MPL")


def run_python(
    *arguments: str | Path, cwd: Path, fresh: bool = False, timeout: float = 600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python <arguments>`` (``-m``, a module ... or a script ...); its output as text.

    It runs in a process of its own, forked from one that has imported the libraries (:mod:`warm`); in an interpreter
    that starts anew if ``fresh``, or if ``environment`` holds what is read at the start. Each command but
    ``serve`` has a test in a new interpreter.
    """
    command = [str(argument) for argument in arguments]
    changed = {"OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment}
    fresh = fresh or any(name.startswith(READ_AT_IMPORT) for name in environment)
    if fresh:
        return subprocess.run(
            [sys.executable, *command], cwd=cwd, env={**os.environ, **changed}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
    return warm.run(command, cwd=cwd, environment={**os.environ, **changed}, timeout=timeout)


def run_command(
    *arguments: str, cwd: Path, fresh: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python -m solder_vae.<arguments>``; its output as text. See :func:`run_python`."""
    module, *rest = arguments
    return run_python("-m", f"solder_vae.{module}", *rest, cwd=cwd, fresh=fresh, **environment)


def train(*overrides: str, cwd: Path, fresh: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """A tiny run without pictures, nor Weights & Biases, which takes a fifth of it, unless an override is the logger's.

    ``overrides`` come last, so they win. Flags, such as ``-m``, come first.
    """
    flags = [override for override in overrides if override.startswith("-")]
    values = [override for override in overrides if not override.startswith("-")]
    if not any(value.startswith("logger") for value in values):
        values.insert(0, "logger.mode=disabled")
    return run_command("train", *flags, *TINY, "pictures=false", *values, cwd=cwd, fresh=fresh, **environment)


def inspect_wandb(run_directory: Path) -> dict[str, Any]:
    """What an offline Weights & Biases run holds, read back from its files."""
    return json.loads(wandb_leet("inspect", "--summary", "--json", run_directory / "wandb/latest-run"))


def wandb_leet(*arguments: str | Path) -> str:
    """What ``wandb leet <arguments>`` prints."""
    done = run_python("-m", "wandb", "leet", *arguments, cwd=Path.cwd(), timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Ray starts workers ahead, which import what may not be needed, while its own processes have fixed 30 s to come up.
SMALL_CLUSTER = {"RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0"}


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
