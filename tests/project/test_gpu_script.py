"""``benchmarks/gpu.sh``, made for a machine with a GPU, goes the whole way on a CPU, and bears parts that fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.sh"


def run_script(out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPT, "--quick"],
        env={**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", "OUT": str(out), **environment},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@pytest.mark.slow
def test_every_part_goes_through_on_a_cpu(tmp_path):
    done = run_script(tmp_path, PYTHON=str(warm.python()))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "gpu_results.json").read_text())
    assert (tmp_path / "gpu.log").read_text() == done.stdout
    parts = {"facts", "render", "checks", "commands", "steps", "scores_per_second", "processes", "runs", "summary"}
    assert results.keys() == parts
    assert results["facts"]["device"] == "cpu: no GPU was measured"
    assert all(check["good"] for check in results["checks"].values())
    assert results["commands"]["same_training_twice_equal"]
    assert results["commands"]["predict_largest_difference_from_cpu"] < 1e-6
    assert all(value > 0 for part in ("render", "steps", "scores_per_second") for value in results[part].values())
    assert [row["trainings_per_hour"] > 0 for row in results["processes"].values()] == [True, True]
    assert results["runs"]["epochs_done"] == 4
    assert len(results["runs"]["runs_at_their_end"]) == 2
    assert all(value > 0 for value in results["summary"].values())


@pytest.mark.slow
def test_a_part_that_fails_is_named_and_the_others_run(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$3" = facts ] || [ "$3" = scores ] || exit 7\nexec {warm.python()} "$@"\n')
    python.chmod(0o755)
    done = run_script(tmp_path, PYTHON=str(python))
    assert done.returncode == 1
    assert "== steps: FAILED, exit status 7" in done.stdout
    assert "== scores: done" in done.stdout
    assert "7 parts not done" in done.stdout
    assert json.loads((tmp_path / "gpu_results.json").read_text()).keys() == {"facts", "scores_per_second"}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_stops(tmp_path):
    done = run_script(tmp_path, PYTHON=str(warm.python()), DEVICE="cuda")
    assert done.returncode == 1
    assert "no GPU is there: DEVICE=cpu bash benchmarks/gpu.sh --quick tries the script without one" in done.stdout
    assert "checks" not in done.stdout
