"""A Weights & Biases workspace for a sweep: which panels it has, saved online or as a layout."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

PICTURES = ("score_histogram", "reconstructions", "roc", "pr", "kl_per_unit")
MEASURES = ("f1", "precision", "recall", "auroc")


def save_online(project: str, entity: str | None) -> str:
    """Save the workspace as a new view of the project; its address.

    Raises:
        Exception: whatever Weights & Biases says.
    """
    import wandb

    api = wandb.Api(timeout=20)  # without a key this raises instead of asking
    view = workspace(entity or str(api.default_entity), project)
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
                for column in (
                    beta,
                    wr.Config("choices.score"),
                    wr.SummaryMetric("test/auroc"),
                    wr.SummaryMetric("test/f1"),
                )
            ]
        ),
        wr.BarPlot(
            title="AUROC and best trivial baselines",
            metrics=[
                wr.SummaryMetric(f"{name}/auroc")
                for name in ("test", "baseline/mean colour", "baseline/sharpness", "baseline/nearest pixels")
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
