"""One reading of the paper's "50 runs": one trained model, tested as often, each test with latents of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from solder_vae.data.table import Images, ImageTable
from solder_vae.evaluation.run_model import batches_of
from solder_vae.models.autoencoder import Autoencoder
from solder_vae.models.checkpoint import Checkpoint, model_of, read_checkpoint
from solder_vae.models.scores import PER_IMAGE
from solder_vae.studies.paper.operating_point import PAPER_RATE, at_point
from solder_vae.studies.paper.plan import TABLE_2, Row
from solder_vae.studies.paper.runs import Run, Runs
from solder_vae.studies.sweeps.table import known

log = logging.getLogger(__name__)


SampledTests = list[float]  # F1 at the paper's rate and mix, one value a test


def sampled_tests(runs: Runs, val: Images, test: ImageTable, count: int) -> dict[Row, SampledTests]:
    """The rows of Table II, seed 0's run of each tested so many times.

    Each image of each test is decoded from a latent drawn for it. The threshold comes from validation normals that are
    drawn once, and stays.

    Args:
        runs: all.
        val: seed 0's validation normals.
        test: seed 0's test images.
        count: tests; 0 makes none.
    """
    found: dict[Row, SampledTests] = {}
    if not count or set(test.labels.tolist()) != {0, 1}:
        return found
    for training, run in runs.finished.items():
        rows = [row for row in TABLE_2 if row.training(0) == training]
        if rows:
            log.info("%d sampled tests of %s", count, training)
            found |= tests_of(run, rows, val, test, count)
    return {row: found[row] for row in TABLE_2 if row in found}


def tests_of(run: Run, rows: list[Row], val: Images, test: ImageTable, count: int) -> dict[Row, SampledTests]:
    """The sampled tests of one run under the scores of these rows."""
    checkpoint = read_checkpoint(run.folder / "best.ckpt")
    names = [row.score for row in rows]
    normals = {name: draws[0] for name, draws in drawn_scores(drawing(checkpoint, 1), val, names).items()}
    drawn = drawn_scores(drawing(checkpoint, count), test.images, names)
    labels = np.asarray(test.labels)
    tests: dict[Row, SampledTests] = {}
    for row in rows:
        draws = drawn[row.score]
        numbers = [at_point(scores, labels, normals[row.score], row, PAPER_RATE)["f1"] for scores in draws]
        tests[row] = known(numbers)
    return tests


def drawing(checkpoint: Checkpoint, draws: int) -> Autoencoder:
    """The checkpoint's model, which draws so many latents for each image."""
    drawn = {"latent": "sample", "noise": PER_IMAGE, "draws": draws}
    model = model_of({**checkpoint, "hyper_parameters": {**checkpoint["hyper_parameters"], **drawn}})
    assert isinstance(model, Autoencoder)  # all of the paper's are
    return model


def drawn_scores(model: Autoencoder, images: Images, names: list[str]) -> dict[str, NDArray[np.float64]]:
    """Each score of each draw ``(draws, N)``; a model that draws nothing gives one draw, as often as was asked."""
    batches = list(_batches(model, images, names))
    joined = {name: np.concatenate([batch[name] for batch in batches], axis=1) for name in names}
    return {name: np.broadcast_to(s, (model.draws, s.shape[1])) for name, s in joined.items()}


def _batches(model: Autoencoder, images: Images, names: list[str]) -> Iterator[dict[str, NDArray[np.float64]]]:
    for x in batches_of(images):
        outputs = model.score_draws(x, names)
        yield {name: torch.stack([output.scores[name] for output in outputs]).double().numpy() for name in names}
