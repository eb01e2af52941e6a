"""The example for a cluster, run on one that it starts on this machine."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import pictures, write_checkpoint, write_images
from commands import SMALL_CLUSTER, on_a_cluster

from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.joints import find_joints

ROOT = Path(__file__).resolve().parents[2]
missing = [name for name in ("ray", "pyarrow", "pandas") if importlib.util.find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(missing), reason=f"needs ray[data], without {missing}")
def test_verdicts_of_a_cluster_are_those_of_predict(tmp_path, monkeypatch):
    from pyarrow import parquet

    checkpoint, _ = write_checkpoint(tmp_path / "best.ckpt")
    write_images(tmp_path / "joints/b1", pictures(25))
    write_images(tmp_path / "joints/b2", pictures(20, seed=1))
    (tmp_path / "joints/b2/zero.png").touch()
    options = [f"checkpoint={checkpoint}", "images=joints", "out=verdicts", "workers=2", "joints=10"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **SMALL_CLUSTER, "PYTHONPATH": path}
    result = on_a_cluster(
        lambda: subprocess.run(
            [sys.executable, str(ROOT / "examples/ray_inspect.py"), *options],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Of 46 joints" in result.stdout
    assert len(list((tmp_path / "verdicts").glob("*.parquet"))) > 1

    rows = {row["path"]: row for row in parquet.read_table(tmp_path / "verdicts").to_pylist()}
    assert len(rows) == parquet.read_table(tmp_path / "verdicts").num_rows == 46
    unreadable = rows.pop("joints/b2/zero.png")
    assert unreadable["label"] == "unreadable"
    assert "is empty" in unreadable["reason"]
    monkeypatch.chdir(tmp_path)
    joints = [joint for joint in find_joints("joints") if "zero" not in joint.name]
    verdicts = Inspector.load(checkpoint).score([joint.image for joint in joints])
    for verdict in verdicts:
        row = rows.pop(verdict.name)
        assert (row["label"], row["rank"], row["threshold"]) == (verdict.label, verdict.rank, verdict.threshold)
        np.testing.assert_allclose([row[name] for name in verdict.scores], list(verdict.scores.values()), rtol=1e-4)
    assert not rows
