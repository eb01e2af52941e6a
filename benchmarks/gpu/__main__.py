"""``python -m benchmarks.gpu PART``: one part of ``benchmarks/gpu.sh``, which runs them all, each with its limit.

Each part prints what it finds and adds it to a JSON file as it goes, so that what was found before its time ran out is
there.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.part import Part

PARTS = {  # and the module of each
    "facts": "report",
    "render": "trainings",
    "checks": "checks",
    "commands": "trainings",
    "steps": "speed",
    "scores": "speed",
    "processes": "trainings",
    "worker": "speed",
    "runs": "trainings",
    "summary": "report",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of results")
    parser.add_argument("--work", type=Path, required=True, help="a folder for what the parts leave to each other")
    parser.add_argument("--until", type=float, default=float("inf"), help="the time, in seconds, to end at")
    parser.add_argument("--count", type=int, default=0, help="processes")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    options = parser.parse_args()
    options.out, options.work = options.out.absolute(), options.work.absolute()
    getattr(import_module(f"benchmarks.gpu.{PARTS[options.part]}"), options.part)(Part(options))


if __name__ == "__main__":
    main()
