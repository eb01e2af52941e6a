"""After training: score validation and test, set the thresholds, measure, compare with the trivial baselines."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.image_files import Image
from solder_vae.data.table import Images, ImageTable
from solder_vae.data.transforms import to_images
from solder_vae.evaluation.anomaly_map import IMAGES_FOR_SCALE, map_scale, mean_image_maps, output_map
from solder_vae.evaluation.baselines import trivial_scores
from solder_vae.evaluation.fit_scores import fit_scores, independent
from solder_vae.evaluation.looks import looks_of_table, looks_to_keep
from solder_vae.evaluation.rule_sentence import VALIDATION, WITH_TRAINING
from solder_vae.evaluation.run_model import batches_of, run_model
from solder_vae.metrics.by_type import ALL, OfType, fit_by_type, group, limits, own_thresholds
from solder_vae.metrics.classification import Metrics, evaluate
from solder_vae.metrics.localisation import evaluate_localisation
from solder_vae.metrics.threshold import Labelled, Rule, Threshold, fit_threshold, refit_rule
from solder_vae.models.classifier import Likeness
from solder_vae.models.detector import Detector
from solder_vae.models.scores import ModelOutput
from solder_vae.utils.threads import tracked

log = logging.getLogger(__name__)

Scores = dict[str, NDArray[np.float64]]  # by name of the score, each (N,), higher = more anomalous

RECONS_KEPT = 4096  # 50 MB at 64 px


@dataclass(frozen=True)
class Evaluation:
    """What is known of a trained model once it is tested.

    Attributes:
        primary: the score that decides.
        validation: the objective's terms and what else the validation says, by the names of the curves.
        thresholds: by score, from validation normals.
        val: scores of the validation normals.
        test: scores of the test images, in the order of the test table.
        metrics: :func:`solder_vae.metrics.classification.evaluate` of each score.
        baselines: the same of each trivial baseline, thresholded by the same rule.
        table: the test images.
        recons: reconstructions of the test images ``(N, S, S, 3)`` uint8; None for more than :data:`RECONS_KEPT`,
            and of a model that does not reconstruct.
        map_scale: unit of the anomaly maps, from validation normals, see
            :func:`solder_vae.evaluation.anomaly_map.map_scale`.
        localisation: :func:`solder_vae.metrics.localisation.evaluate_localisation` of the model's anomaly maps (None
            where the test table has no masks) ...
        trivial_localisation: ... and of the trivial ones, the difference from the mean training image.
        likeness: which type of known defect each test image looks like; None where no types are told apart.
        of_types: validation normals and thresholds by component type, where the source knows types.
        looks: how the validation normals look, see :func:`solder_vae.evaluation.looks.looks_to_keep`.
        left_out: how many of ``val``'s primary scores, the last ones, are of training normals that were left out.
    """

    primary: str
    validation: dict[str, float]
    thresholds: dict[str, Threshold]
    val: Scores
    test: Scores
    metrics: dict[str, Metrics]
    baselines: dict[str, Metrics]
    table: ImageTable
    recons: Image | None
    map_scale: float
    localisation: Metrics | None
    trivial_localisation: Metrics | None
    likeness: list[Likeness] | None = None
    of_types: dict[str, OfType] = field(default_factory=dict)
    looks: dict[str, list[float]] = field(default_factory=dict)
    left_out: int = 0

    @property
    def of_normals(self) -> str:
        """What the normals are that the primary score's threshold comes from."""
        return WITH_TRAINING if self.left_out else VALIDATION

    @property
    def threshold(self) -> Threshold:
        """The primary score's threshold."""
        return self.thresholds[self.primary]

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """``(N,)``: the primary score's decision on each test image, True = abnormal."""
        called: NDArray[np.bool_] = self.test[self.primary] > self.limits
        return called

    @property
    def limits(self) -> NDArray[np.float64]:
        """``(N,)``: the primary score's threshold that each test image is judged by."""
        own = own_thresholds(self.of_types, self.primary)
        return limits(self.threshold, own, self.table.types, len(self.table))

    @property
    def judged_among(self) -> list[str]:
        """N: the type that each test image is judged within, or :data:`~solder_vae.metrics.by_type.ALL`."""
        own = own_thresholds(self.of_types, self.primary)
        return [kind if kind in own else ALL for kind in self.table.types or [""] * len(self.table)]

    def decision_state(self) -> dict[str, Any]:
        """What a checkpoint needs to decide on new images, see :func:`decision_state`."""
        state = decision_state(self.primary, self.thresholds, self.val, self.map_scale, self.of_types, self.looks)
        return {**state, "normals": self.of_normals} if self.left_out else state


def decision_state(
    primary: str,
    thresholds: dict[str, Threshold],
    normals: Scores,
    map_scale: float,
    of_types: Mapping[str, OfType] | None = None,
    looks: Mapping[str, list[float]] | None = None,
) -> dict[str, Any]:
    """What a checkpoint needs to decide on new images, in plain containers.

    Args:
        primary: the score that decides.
        thresholds: by score.
        normals: scores of the normals that the thresholds come from.
        map_scale: unit of the anomaly maps.
        of_types: the same by component type; left out without types, as in files of earlier versions.
        looks: how the normals look; not in files of earlier versions.
    """
    types = {"types": {kind: each.to_dict() for kind, each in of_types.items()}} if of_types else {}
    return {
        "primary": primary,
        **OfType(normals, thresholds).to_dict(),
        "map_scale": map_scale,
        **types,
        **({"looks": dict(looks)} if looks else {}),
    }


def evaluate_model(model: Detector, data: SolderDataModule, rule: Rule) -> Evaluation:
    """Score validation and test images, each in one pass through the network, under every score of the model.

    Args:
        model: trained, in evaluation mode, on the device to use.
        data: set up.
        rule: the threshold's. It holds for the primary score; the others and the baselines get the same rule on
            their own validation scores.

    Raises:
        UserError: the rule does not fit the data, or scores are not finite.
    """
    left_out, left_out_types = fit_scores(model, data.tables, data.batch_size, data.seed)
    primary = model.primary_score
    validation, val, unit = validate(model, data)
    counted = independent(data.tables["val"])
    val = with_left_out({name: scores[counted] for name, scores in val.items()}, left_out)
    thresholds = fit_thresholds(rule, primary, val)
    table = data.tables["test"]
    test, maps, recons, likeness = run_test(model, data)

    types = data.tables["val"].types
    val_types = None if types is None else [types[row] for row in counted]
    all_types = None if val_types is None else [*val_types, *left_out_types]
    of_types = fit_by_type(group(val, all_types), lambda _, normals: fit_thresholds(rule, primary, normals))

    def measured(scores: NDArray[np.float64], limit: Threshold, own: Mapping[str, Threshold]) -> Metrics:
        each = limits(limit, own, table.types, len(table)) if own else None
        return evaluate(scores, table.labels, table.defects, limit.value, limits=each)

    def of_baseline(scores: NDArray[np.float64], normals: NDArray[np.float64]) -> Metrics:
        normals = normals[counted]
        by_type = group({"": normals}, val_types)
        own = {
            kind: refit_rule(rule, threshold, by_type[kind][""])
            for kind, threshold in own_thresholds(of_types, primary).items()
        }
        return measured(scores, refit_rule(rule, thresholds[primary], normals), own)

    trivial_val = trivial_scores(data.tables["train"], data.tables["val"])
    trivial_test = trivial_scores(data.tables["train"], table)
    located, trivially_located = None, None
    if table.masks is not None and maps is not None:
        located = evaluate_localisation(maps, table.masks, table.defects)
        trivial_maps = mean_image_maps(data.tables["train"].images, table.images)
        trivially_located = evaluate_localisation(trivial_maps, table.masks, table.defects)
    return Evaluation(
        primary=primary,
        validation=validation,
        thresholds=thresholds,
        val=val,
        test=test,
        metrics={
            name: measured(test[name], thresholds[name], own_thresholds(of_types, name))
            for name in model.admitted_scores
            if name in test
        },
        baselines={name: of_baseline(scores, trivial_val[name]) for name, scores in trivial_test.items()},
        table=table,
        recons=recons,
        map_scale=unit,
        localisation=located,
        trivial_localisation=trivially_located,
        likeness=likeness,
        of_types=of_types,
        looks=looks_to_keep(looks_of_table(data.tables["val"]), model.preprocessing),
        left_out=len(left_out.get(primary, ())),
    )


def with_left_out(normals: Scores, left_out: Mapping[str, Tensor]) -> Scores:
    """Scores of few validation normals, and those of the training normals as if each had not been learnt from.

    Args:
        normals: scores of the validation normals by name.
        left_out: what :func:`~solder_vae.evaluation.fit_scores.fit_scores` returns.
    """
    if left_out:
        log.info(
            "Only %d validation normals: thresholds of %s are set by training normals, too, left out in turn.",
            len(next(iter(normals.values()))),
            ", ".join(left_out),
        )
    more = {name: values.double().numpy() for name, values in left_out.items()}
    return {name: np.concatenate([values, more.get(name, values[:0])]) for name, values in normals.items()}


def validate(model: Detector, data: SolderDataModule) -> tuple[dict[str, float], Scores, float]:
    """The validation's numbers of a trained model, the scores of its normals, and the unit of the anomaly maps."""
    table = data.tables["val"]
    images = table.images
    every = math.ceil(len(images) / IMAGES_FOR_SCALE)
    terms: dict[str, Tensor] = {}
    batches: list[dict[str, Tensor]] = []
    maps, seen = [], 0
    for number, output in enumerate(outputs(model, table, data.batch_size, "validation")):
        size = len(output.images)
        seen += size
        with torch.no_grad():
            code = output.code
            of_batch = {} if code is None else model.validation_terms(output.images, code, number)
            for name, value in of_batch.items():
                terms[name] = terms.get(name, torch.zeros((), device=value.device)) + value * size
        batches.append(output.scores)
        chosen = slice((size - seen) % every, None, every)  # evenly spaced images
        maps.append(output_map(rows_of(output, chosen)).cpu().numpy())
    summary = {f"val/{name}": float(value / len(images)) for name, value in terms.items()}
    return {**summary, **model.validation_summary()}, joined(batches), map_scale(np.concatenate(maps))


def run_test(
    model: Detector, data: SolderDataModule
) -> tuple[Scores, NDArray[np.float32] | None, Image | None, list[Likeness] | None]:
    """Scores of the test images; their anomaly maps where masks say what these should be; their reconstructions; which
    type of known defect each looks like.
    """
    table = data.tables["test"]
    batches: list[dict[str, Tensor]] = []
    maps, recons = [], []
    likeness: list[Likeness] = []
    for output in outputs(model, table, data.batch_size, "test"):
        batches.append(output.scores)
        likeness += model.likeness(output.features) or []
        if table.masks is not None:
            maps.append(output_map(output).cpu().numpy())
        if len(table) <= RECONS_KEPT and output.recon is not None:
            recons.append(to_images(output.recon))
    return (
        joined(batches),
        np.concatenate(maps) if maps else None,
        np.concatenate(recons) if recons else None,
        likeness or None,
    )


def outputs(model: Detector, table: ImageTable, batch_size: int, what: str) -> Iterable[ModelOutput]:
    """:func:`run_model` of a table's images, with progress on a terminal."""
    ran = run_model(model, batches_of(table.images, batch_size), types=table.types)
    return tracked(ran, what, math.ceil(len(table) / batch_size))


def joined(batches: Sequence[Mapping[str, Tensor]]) -> Scores:
    """Scores of batches, one after the other."""
    return {name: torch.cat([batch[name] for batch in batches]).cpu().double().numpy() for name in batches[0]}


def rows_of(output: ModelOutput, rows: slice) -> ModelOutput:
    """An output's images and what anomaly maps are made of, of some rows."""
    recon, anomaly = output.recon, output.anomaly
    return output._replace(
        images=output.images[rows],
        recon=None if recon is None else recon[rows],
        anomaly=None if anomaly is None else anomaly[rows],
    )


def anomaly_maps(model: Detector, table: ImageTable, rows: Sequence[int]) -> NDArray[np.float32]:
    """Anomaly maps ``(n, S, S)`` of some of a table's images."""
    types = None if table.types is None else [table.types[row] for row in rows]
    ran = run_model(model, batches_of(table.images[rows]), types=types)
    return np.concatenate([output_map(output).cpu().numpy() for output in ran])


def reconstruct(model: Detector, images: Images, rows: Sequence[int]) -> Image:
    """Reconstructions ``(n, S, S, 3)`` uint8 of some of a table's images."""
    outputs = run_model(model, batches_of(images[rows]), names=())
    return np.concatenate([to_images(output.recon) for output in outputs if output.recon is not None])


def fit_thresholds(
    rule: Rule, primary: str, normals: Scores, labelled: Mapping[str, Labelled] | None = None
) -> dict[str, Threshold]:
    """The primary score's threshold, and for the other scores the same rule on their own normals.

    Args:
        rule: of the primary score.
        primary: its name.
        normals: every score of the normals.
        labelled: every score of a labelled set, for a rule that needs one.
    """
    sets: Mapping[str, Labelled | None] = dict.fromkeys(normals) if labelled is None else labelled
    threshold = fit_threshold(normals[primary], rule, sets[primary])
    return {
        name: threshold if name == primary else refit_rule(rule, threshold, normals[name], sets[name])
        for name in normals
    }
