"""``python -m solder_vae.dashboard project=NAME``: a Weights & Biases workspace that shows a sweep.

Panels: F1, precision, recall and AUROC against beta by score, training curves, score histograms, reconstructions,
predictions. Online it is saved as a view of the project; without a key or a network it is written as JSON, and the same
command creates it later.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from solder_vae.studies.sweeps.workspace import layout, save_online, workspace
from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_file

USAGE = """
usage: python -m solder_vae.dashboard project=NAME [entity=NAME] [out=dashboard.json]

  project=NAME          the runs' logger.project
  entity=NAME           user or team; without one, that of the key
  out=dashboard.json    where the layout goes when Weights & Biases cannot be reached
"""


@dataclass(frozen=True)
class Options:
    project: str
    entity: str = ""
    out: str = "dashboard.json"


def main() -> None:
    command(job)


def job(arguments: list[str]) -> int:
    """Create the workspace, or write its layout."""
    options = parse(Options, arguments, USAGE)
    if find_spec("wandb_workspaces") is None:
        raise UserError("The dashboard needs wandb-workspaces: pip install -c constraints.txt '.[sweep]' adds it.")
    view = workspace(options.entity or "entity", options.project)
    try:
        url = save_online(options.project, options.entity)
    except Exception as error:  # no key, no network, no such project: each a class of its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        with atomic_file(Path(options.out)) as path:
            path.write_text(json.dumps(layout(view), indent=2) + "\n", encoding="utf-8")
        print(f"Weights & Biases was not reached: {reason[0]}", file=sys.stderr)
        print(f"Layout: {options.out} (the same command makes the workspace once it can be reached)")
        return 0
    print(f"Workspace: {url}")
    return 0


if __name__ == "__main__":
    main()
