"""What the reproduction shows of latent spaces: t-SNE pictures, traversals, and measured disentanglement."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import joblib  # type: ignore[import-untyped]
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from solder_vae.data.synthetic.factors import normal_factors
from solder_vae.data.table import ImageTable
from solder_vae.evaluation.evaluate import reconstruct
from solder_vae.evaluation.latent_plots import embedding_figure, numbers_text, traversal_figure
from solder_vae.evaluation.latent_space import posterior_kl, posterior_means, strongest_channels, strongest_units
from solder_vae.evaluation.reconstruction_plots import reconstructions
from solder_vae.evaluation.tsne import embed
from solder_vae.metrics.disentanglement import chance, measure, rotated
from solder_vae.metrics.latent_separation import chance_purity, knn_purity, silhouette
from solder_vae.models.autoencoder import Autoencoder
from solder_vae.models.checkpoint import load_model
from solder_vae.studies.paper.plan import FIGURE_BETAS, TABLE_3, further_rows, model_name, of_beta
from solder_vae.studies.paper.published import BETA
from solder_vae.studies.paper.runs import Runs
from solder_vae.utils.labels import NORMAL

log = logging.getLogger(__name__)

Tables = Mapping[str, ImageTable]

DISENTANGLEMENT = {
    "mig": "MIG",
    "sap": "SAP",
    "dci_disentanglement": "DCI disentanglement",
    "dci_completeness": "DCI completeness",
    "dci_informativeness": "DCI informativeness",
}
KINDS = ("measured", "chance", "rotated")  # the codes, the codes dealt out at random, and along random axes


class Disentanglement(NamedTuple):
    """One model's measures, by kind."""

    model: str
    seed: int
    measures: dict[str, dict[str, float]]


def embeddings(runs: Runs, test: ImageTable, constraint: bool, count: int, jobs: int) -> Figure | None:
    """Fig. 5 (trained with the constraint) or Fig. 6 (without) of seed 0; None if too few images or no run is there.

    Args:
        runs: all.
        test: seed 0's test images.
        constraint: which figure.
        count: t-SNE runs a panel.
        jobs: parallel processes.
    """
    panels = []
    for beta in FIGURE_BETAS:
        training = of_beta(beta, "gradcon" if constraint else "elbo").training(0)
        if training in runs.finished and len(test) >= 4:
            codes = posterior_means(trained(runs.finished[training].folder), test.images)
            log.info("t-SNE of β=%g %s constraint", beta, "with" if constraint else "without")
            placed = embed(codes, runs=count, jobs=jobs)
            numbers = (silhouette(codes, test.labels), knn_purity(codes, test.labels), chance_purity(test.labels))
            panels.append((f"β = {beta:g}", placed, test.labels, numbers_text(*numbers)))
    return embedding_figure(panels) if panels else None


def figure_4(runs: Runs, test: ImageTable) -> Figure | None:
    """Fig. 4, the reconstructions of beta-VAE trained with the constraint, by its GradCon score (seed 0)."""
    run = runs.finished.get(of_beta(BETA, "gradcon").training(0))
    if run is None:
        return None
    images = run.test_images("gradcon")
    model = trained(run.folder)
    return reconstructions(partial(reconstruct, model, test.images), test, images.scores, images.threshold)


def traversal(runs: Runs, test: ImageTable) -> Figure | None:
    """What the strongest units and channels of beta-VAE do to the first normal test joint (seed 0)."""
    run = runs.finished.get(of_beta(BETA, "gradcon").training(0))
    normals = [row for row, defect in enumerate(test.defects) if defect == NORMAL]
    if run is None or not normals:
        return None
    model = trained(run.folder)
    kl = posterior_kl(model, test.images[normals])
    return traversal_figure(model, test.images[normals[0]], strongest_units(kl, 4) + strongest_channels(kl, 3))


def disentanglement(
    runs: Runs, tables_of: Callable[[int], Tables], jobs: int, further: Sequence[str] = ()
) -> list[Disentanglement]:
    """Every model of Table III, and further ones, measured on its seed's validation normals.

    Nothing where the factors of these are unknown.

    Args:
        runs: all.
        tables_of: the data of a seed.
        jobs: parallel processes.
        further: models that the paper has not, of :data:`~solder_vae.studies.paper.plan.FURTHER`.
    """
    names = {
        run.training: model_name(row.model, row.beta)
        for row in (*TABLE_3, *further_rows(further))
        for run in runs.of(row).values()
    }
    chosen = [runs.finished[training] for training in names]
    tasks = []
    tables: dict[int, ImageTable] = {}
    for run in sorted(chosen, key=lambda run: run.training.seed):
        seed = run.training.seed
        if seed not in tables:
            tables = {seed: tables_of(seed)["val"]}  # one seed's images in memory at a time
        table = tables[seed]
        if not table.factors or len(table) < 20:
            return []
        codes = posterior_means(trained(run.folder), table.images)
        tasks.append((run, codes, normal_factors(table.factors)))
    log.info("disentanglement of %d models", len(tasks))
    measures = joblib.Parallel(n_jobs=jobs)(joblib.delayed(_measures)(codes, factors) for _, codes, factors in tasks)
    return [
        Disentanglement(names[run.training], run.training.seed, found)
        for (run, *_), found in zip(tasks, measures, strict=True)
    ]


def _measures(codes: NDArray[np.float64], factors: dict[str, NDArray[np.generic]]) -> dict[str, dict[str, float]]:
    kinds = (measure(codes, factors), chance(codes, factors), measure(rotated(codes), factors))
    return dict(zip(KINDS, kinds, strict=True))


def trained(folder: Path) -> Autoencoder:
    """The model of a run, one of the paper's."""
    return cast(Autoencoder, load_model(folder / "best.ckpt"))
