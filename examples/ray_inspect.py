"""Inspect joints on a Ray cluster: the verdicts of ``python -m solder_vae.predict``, as Parquet (docs/use/scale.md)."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from pyarrow import parquet

from solder_vae.inspection.inspector import Inspector, Joint, Unreadable
from solder_vae.inspection.joints import find_joints
from solder_vae.utils.cli import command, parse
from solder_vae.utils.files import atomic_directory, check_new

USAGE = """\
Inspect joints on a Ray cluster.

  python examples/ray_inspect.py checkpoint=best.ckpt images=DIR|GLOB|CSV out=NEW_DIR
  python examples/ray_inspect.py checkpoint=best.ckpt images=lot7.csv out=lot7 workers=8 address=auto

  workers=2       actors, each with a core of its own and the model in memory
  address=        of a running cluster, auto for the one this machine belongs to; without it, one is started here
  joints=2000     in a part: what is done again if its worker dies

On a cluster, checkpoint, images and out lie on storage that all machines see under the same path.
"""


@dataclass(frozen=True)
class Options:
    checkpoint: str
    images: str
    out: str
    workers: int = 2
    address: str | None = None
    joints: int = 2000


class Worker:
    """An actor: loads the model once, then turns batches of files into batches of verdicts."""

    def __init__(self, checkpoint: str) -> None:
        torch.set_num_threads(1)
        self.inspector = Inspector.load(checkpoint)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names, paths = batch["name"].tolist(), batch["path"].tolist()
        joints = [Joint(name, Path(os.fsdecode(path))) for name, path in zip(names, paths, strict=True)]
        columns: dict[str, list[Any]] = defaultdict(list)
        for result in self.inspector.inspect(joints):
            for key, value in self.row(result).items():
                columns[key].append(value)
        return {key: np.array(values) for key, values in columns.items()}

    def row(self, result: Any) -> dict[str, Any]:
        """One joint; an unreadable one has its reason and no numbers."""
        failed = isinstance(result, Unreadable)
        return {
            "path": result.name,
            "label": "unreadable" if failed else result.label,
            "score": np.nan if failed else result.score,
            "threshold": self.inspector.threshold.value,
            "rank": np.nan if failed else result.rank,
            **{name: np.nan if failed else result.scores[name] for name in self.inspector.thresholds},
            "reason": result.reason if failed else "",
        }


def run(arguments: list[str]) -> int:
    """Hand the joints out to the actors; each task writes its part, and ``out`` appears once all are there."""
    options = parse(Options, arguments, USAGE)
    out, checkpoint = Path(options.out), str(Path(options.checkpoint).resolve())
    check_new(out)
    Inspector.load(checkpoint)  # a mistake is told here, once
    found = find_joints(options.images)
    files = [{"name": joint.name, "path": os.fsencode(Path(joint.image).resolve())} for joint in found]
    ray.init(address=options.address, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    ray.data.DataContext.get_current().enable_progress_bars = False
    parts = -(-len(files) // options.joints)
    verdicts = ray.data.from_items(files, override_num_blocks=parts).map_batches(
        Worker,
        fn_constructor_args=[checkpoint],
        batch_size=options.joints,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=options.workers),
    )
    with atomic_directory(out) as folder:
        # Writing takes next to nothing: the workers may have all the cores, and one process writes all parts.
        verdicts.write_parquet(str(folder.resolve()), ray_remote_args={"num_cpus": 0}, concurrency=1)
    labels = parquet.read_table(out, columns=["label"])["label"].value_counts().to_pylist()
    counts = ", ".join(f"{entry['counts']} {entry['values']}" for entry in labels)
    print(f"Of {len(files)} joints {counts}. The verdicts are in {out}.")
    return 0


if __name__ == "__main__":
    command(run)
