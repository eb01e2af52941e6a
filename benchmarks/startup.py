"""Processor seconds until a command answers: ``python -m benchmarks.startup checkpoint=PATH images=DIR``."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from solder_vae.utils.cli import command, parse

REPEATS = 5

TO_THE_FIRST_VERDICT = """
import sys
from solder_vae.inspection.joints import find_joints
from solder_vae.inspection.batch import Inspector
inspector = Inspector.load(sys.argv[1])
next(inspector.inspect(find_joints(sys.argv[2])[:1]))
"""


@dataclass(frozen=True)
class Options:
    checkpoint: str
    images: str


def run(arguments: list[str]) -> int:
    """Time each in processes of its own: user and system time, all threads together, medians of a few."""
    options = parse(Options, arguments, __doc__ or "")
    first, images = next(iter(sorted(Path(options.images).glob("*.*")))), options.images
    checkpoint = f"checkpoint={options.checkpoint}"
    cases = {
        "import torch": ["-c", "import torch"],
        "to the first verdict, from Python": ["-c", TO_THE_FIRST_VERDICT, options.checkpoint, str(first)],
        "predict, one joint": ["-m", "solder_vae.predict", checkpoint, f"images={first}"],
        "predict, the folder": ["-m", "solder_vae.predict", checkpoint, f"images={images}"],
        "predict --help": ["-m", "solder_vae.predict", "--help"],
        "a mistyped option": ["-m", "solder_vae.predict", "chekpoint=x"],
        "train, a value that does not fit": ["-m", "solder_vae.train", "data.view=grey"],
        "train, one of the model's": ["-m", "solder_vae.train", "model.width=0"],
        "a checkpoint that is not there": ["-m", "solder_vae.predict", "checkpoint=no.ckpt", f"images={images}"],
    }
    for name, case in cases.items():
        print(f"{name:34} {statistics.median(processor_seconds(case) for _ in range(REPEATS)):5.2f} s")
    return 0


def processor_seconds(case: list[str]) -> float:
    """User and system time of ``python`` with these arguments, and ``out=`` a new folder for predict."""
    with tempfile.TemporaryDirectory() as folder:
        if "solder_vae.predict" in case and "--help" not in case:
            case = [*case, f"out={folder}/out"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *case], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    command(run)
