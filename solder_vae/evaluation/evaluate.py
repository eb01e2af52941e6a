"""After training: score validation and test, set the thresholds, measure, compare with the trivial baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.table import ImageTable
from solder_vae.evaluation.anomaly_map import anomaly_maps, map_scale, mean_image_maps
from solder_vae.evaluation.baselines import trivial_scores
from solder_vae.metrics.classification import Metrics, evaluate
from solder_vae.metrics.localisation import evaluate_localisation
from solder_vae.metrics.threshold import Threshold, fit_threshold, refit_rule
from solder_vae.models.autoencoder import CAE

Scores = dict[str, NDArray[np.float64]]  # by name of the score, each (N,), higher = more anomalous


@dataclass(frozen=True)
class Evaluation:
    """What is known of a trained model once it is tested.

    Attributes:
        primary: the score that decides.
        thresholds: by score, from validation normals.
        val: scores of the validation normals.
        test: scores of the test images, in the order of the test table.
        metrics: :func:`solder_vae.metrics.classification.evaluate` of each score.
        baselines: the same of each trivial baseline, thresholded by the same rule.
        table: the test images.
        map_scale: unit of the anomaly maps, from validation normals, see
            :func:`solder_vae.evaluation.anomaly_map.map_scale`.
        localisation: :func:`solder_vae.metrics.localisation.evaluate_localisation` of the model's anomaly maps (None
            where the test table has no masks) ...
        trivial_localisation: ... and of the trivial ones, the difference from the mean training image.
    """

    primary: str
    thresholds: dict[str, Threshold]
    val: Scores
    test: Scores
    metrics: dict[str, Metrics]
    baselines: dict[str, Metrics]
    table: ImageTable
    map_scale: float
    localisation: Metrics | None
    trivial_localisation: Metrics | None

    @property
    def threshold(self) -> Threshold:
        """The primary score's threshold."""
        return self.thresholds[self.primary]

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """``(N,)``: the primary score's decision on each test image, True = abnormal."""
        return self.threshold.predict(self.test[self.primary])

    def decision_state(self) -> dict[str, Any]:
        """What a checkpoint needs to decide on new images, see :func:`decision_state`."""
        return decision_state(self.primary, self.thresholds, self.val, self.map_scale)


def decision_state(primary: str, thresholds: dict[str, Threshold], normals: Scores, map_scale: float) -> dict[str, Any]:
    """What a checkpoint needs to decide on new images, in plain containers.

    Args:
        primary: the score that decides.
        thresholds: by score.
        normals: scores of the normals that the thresholds come from.
        map_scale: unit of the anomaly maps.
    """
    return {
        "primary": primary,
        "thresholds": {name: threshold.to_dict() for name, threshold in thresholds.items()},
        "validation_scores": {name: sorted(scores.tolist()) for name, scores in normals.items()},
        "map_scale": map_scale,
    }


def evaluate_model(model: CAE, data: SolderDataModule, trainer: pl.Trainer, rule: dict[str, Any]) -> Evaluation:
    """Score validation and test images in one pass each, under every score that the model admits.

    Args:
        model: trained.
        data: set up.
        trainer: with ``inference_mode=False``: GradCon needs gradients.
        rule: the threshold's rule and its parameter, as in ``conf/threshold``. It holds for the primary score; the
            others and the baselines get the same rule on their own validation scores.

    Raises:
        UserError: the rule does not fit the data, or scores are not finite.
    """
    primary = model.primary_score
    val = predict(model, trainer, data.val_dataloader())
    test = predict(model, trainer, data.test_dataloader())
    threshold = fit_threshold(val[primary], **rule)
    thresholds = fit_thresholds(threshold, primary, val)
    table = data.tables["test"]

    def measured(scores: NDArray[np.float64], limit: Threshold) -> Metrics:
        return evaluate(scores, table.labels, table.defects, limit.value)

    trivial_val = trivial_scores(data.tables["train"], data.tables["val"])
    trivial_test = trivial_scores(data.tables["train"], table)
    return Evaluation(
        primary=primary,
        thresholds=thresholds,
        val=val,
        test=test,
        metrics={name: measured(test[name], thresholds[name]) for name in model.admitted_scores if name in test},
        baselines={
            name: measured(scores, refit_rule(threshold, trivial_val[name])) for name, scores in trivial_test.items()
        },
        table=table,
        map_scale=map_scale(model, data.tables["val"].images),
        localisation=localise(lambda: anomaly_maps(model, table.images), table),
        trivial_localisation=localise(lambda: mean_image_maps(data.tables["train"].images, table.images), table),
    )


def localise(maps: Callable[[], NDArray[np.float32]], table: ImageTable) -> Metrics | None:
    """How well anomaly maps ``(N, S, S)``, made if needed, find the defects, where the table knows where they are."""
    return None if table.masks is None else evaluate_localisation(maps(), table.masks, table.defects)


def fit_thresholds(threshold: Threshold, primary: str, normals: Scores) -> dict[str, Threshold]:
    """The primary score's threshold, and for the other scores the same rule on their own normals."""
    return {name: threshold if name == primary else refit_rule(threshold, normals[name]) for name in normals}


def predict(model: CAE, trainer: pl.Trainer, loader: DataLoader[Any]) -> Scores:
    """Every score of every image, in the order of the images' table."""
    batches: Any = trainer.predict(model, loader) or []
    columns = {key: torch.cat([batch[key] for batch in batches]).cpu().numpy() for key in batches[0]}
    assert (np.diff(columns.pop("index")) == 1).all()
    return {name: scores.astype(np.float64) for name, scores in columns.items()}
