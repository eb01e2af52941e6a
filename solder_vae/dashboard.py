"""``python -m solder_vae.dashboard project=NAME``: a Weights & Biases workspace that shows a sweep.

Panels: F1, precision, recall and AUROC against beta by score, training curves, score histograms, reconstructions,
predictions. Online it is saved as a view of the project; without a key or a network it is written as JSON, and the same
command creates it later.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import replacing

USAGE = """
usage: python -m solder_vae.dashboard project=NAME [entity=NAME] [out=dashboard.json]

  project=NAME          the runs' logger.project
  entity=NAME           user or team; without one, that of the key
  out=dashboard.json    where the layout goes when Weights & Biases cannot be reached
"""

PICTURES = ("score_histogram", "reconstructions", "roc", "pr", "kl_per_unit")
MEASURES = ("f1", "precision", "recall", "auroc")


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
        url = save_online(options)
    except Exception as error:  # no key, no network, no such project: each a class of its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        with replacing(Path(options.out)) as path:
            path.write_text(json.dumps(layout(view), indent=2) + "\n", encoding="utf-8")
        print(f"Weights & Biases was not reached: {reason[0]}", file=sys.stderr)
        print(f"Layout: {options.out} (the same command makes the workspace once it can be reached)")
        return 0
    print(f"Workspace: {url}")
    return 0


def save_online(options: Options) -> str:
    """Save the workspace as a new view of the project; its address.

    Raises:
        Exception: whatever Weights & Biases says.
    """
    import wandb

    api = wandb.Api(timeout=20)  # without a key this raises instead of asking
    view = workspace(options.entity or str(api.default_entity), options.project)
    return str(view.save().url)


def workspace(entity: str, project: str) -> Any:
    """The workspace, not saved yet."""
    from solder_vae.models.scores import SCORES

    # By name: their stubs lack most of what they hold.
    wr: Any = import_module("wandb_workspaces.reports.v2")
    ws: Any = import_module("wandb_workspaces.workspaces")

    beta = wr.Config("beta")
    against_beta = [
        wr.ScatterPlot(
            title=f"{measure} of {score} against beta", x=beta, y=wr.SummaryMetric(f"test/{score}/{measure}")
        )
        for measure in MEASURES
        for score in SCORES
    ]
    summary = [
        wr.ParallelCoordinatesPlot(
            columns=[
                wr.ParallelCoordinatesPlotColumn(metric=column)
                for column in (beta, wr.Config("score"), wr.SummaryMetric("test/auroc"), wr.SummaryMetric("test/f1"))
            ]
        ),
        wr.BarPlot(
            title="AUROC and best trivial baselines",
            metrics=[
                wr.SummaryMetric(f"{name}/auroc") for name in ("test", "baseline/mean colour", "baseline/sharpness")
            ],
        ),
    ]
    curves = [wr.LinePlot(title=key, x="epoch", y=[key]) for key in ("val/loss", "val/recon", "val/kl", "train/loss")]
    pictures = [wr.MediaBrowser(title=name.replace("_", " "), media_keys=[f"pictures/{name}"]) for name in PICTURES]
    sections = [
        ws.Section(name="Against beta", panels=against_beta, is_open=True),
        ws.Section(name="Settings and results", panels=summary, is_open=True),
        ws.Section(name="Score histograms and reconstructions", panels=pictures, is_open=True),
        ws.Section(name="Predictions", panels=[wr.WeavePanelSummaryTable(table_name="predictions")], is_open=True),
        ws.Section(name="Training", panels=curves),
    ]
    return ws.Workspace(entity=entity, project=project, name="solder joints", sections=sections)


def layout(view: Any) -> Any:
    """A workspace as Weights & Biases stores it, ready for JSON."""
    return json.loads(view._to_model().model_dump_json(by_alias=True, exclude_none=True))


if __name__ == "__main__":
    main()
