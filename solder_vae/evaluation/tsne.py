"""t-SNE pictures of codes as the paper makes them (Figs. 5 and 6): many random starts, the best one kept.

Apart from the rest of the latent space's tools because parallel processes import this module: importing torch in each
of them took longer than the runs themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import ArrayLike, NDArray
from sklearn.manifold import TSNE  # type: ignore[import-untyped]

from solder_vae.utils.errors import UserError
from solder_vae.utils.threads import tracked

Floats = NDArray[np.float64]


class Embedding(NamedTuple):
    """The best of several t-SNE runs.

    Attributes:
        points: ``(N, 2)``, each axis scaled to [0, 1].
        kl: Kullback-Leibler divergence of the chosen run, the lowest (t-SNE's objective, not the VAE's).
        kls: ``(runs,)`` divergence of every run, in the order of the seeds.
    """

    points: Floats
    kl: float
    kls: Floats


def embed(
    codes: ArrayLike,
    runs: int = 100,
    perplexity: float = 5.0,
    seed: int = 0,
    jobs: int = -1,
    progress: bool = True,
) -> Embedding:
    """t-SNE (van der Maaten and Hinton 2008) from ``runs`` random starts; the run of lowest divergence is kept.

    As in the paper: perplexity 5, 100 runs, axes scaled to [0, 1]. Every run starts from random points, since from
    scikit-learn's default start, the principal components, all runs would end alike. The same codes and seed give the
    same points, whatever ``jobs`` is.

    Seconds a run on one core of a Xeon, D = 640, perplexity 5, 1000 iterations (scikit-learn 1.9.1, openTSNE 1.0.4):

    ============================================  =======  =======
    method                                        N = 150  N = 400
    ============================================  =======  =======
    scikit-learn, Barnes-Hut (van der Maaten 14)  0.24     0.81
    scikit-learn, exact                           0.50     2.14
    openTSNE, Barnes-Hut                          0.22     0.59
    openTSNE, interpolation (FFT)                 7.27     11.78
    ============================================  =======  =======

    Barnes-Hut loses nothing that matters here (best exact divergence of 20 runs at N = 150: 1.415 against 1.392), and
    openTSNE's gain is too small for a further dependency.

    Args:
        codes: ``(N, D)``, N >= 4.
        runs: number of starts, 1 or more, from the seeds ``seed`` to ``seed + runs - 1``.
        perplexity: about how many neighbours of each point count. (N - 1) / 3 where that is less: no more fit.
        seed: of the first run, 0 or more.
        jobs: parallel processes; -1 for one per CPU.
        progress: show a bar where standard error is a terminal.

    Raises:
        UserError: too few points, no run, an impossible perplexity, or codes that are not finite.
    """
    points = np.asarray(codes, dtype=np.float64)
    if len(points) < 4:
        raise UserError(f"t-SNE of {len(points)} images is impossible: give 4 or more.")
    if runs < 1:
        raise UserError(f"t-SNE with {runs} runs is impossible: give 1 run or more.")
    if not perplexity > 0:
        raise UserError(f"t-SNE's perplexity is {perplexity}: give a number greater than 0.")
    if not np.isfinite(points).all():
        raise UserError(
            "The latent codes are not all finite, so they cannot be embedded: the model diverged, train anew."
        )
    fitting = min(perplexity, (len(points) - 1) / 3)
    # Results come in the order of the seeds; only the best is kept, so that 100 embeddings need no memory.
    results = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(_one_run)(points, fitting, number) for number in range(seed, seed + runs)
    )
    kls = np.empty(runs)
    best = np.empty((0, 2))
    for run, (placed, kl) in enumerate(tracked(results, "t-SNE", runs) if progress else results):
        if run == 0 or kl < kls[:run].min():
            best = placed
        kls[run] = kl
    return Embedding(_to_unit_square(best), float(kls.min()), kls)


def _one_run(codes: Floats, perplexity: float, seed: int) -> tuple[Floats, float]:
    tsne = TSNE(perplexity=perplexity, init="random", method="barnes_hut", random_state=seed, n_jobs=1)
    placed = tsne.fit_transform(codes).astype(np.float64)
    return placed, float(tsne.kl_divergence_)


def _to_unit_square(points: Floats) -> Floats:
    """Each axis scaled to [0, 1]; an axis without extent lies in the middle."""
    low, high = points.min(0), points.max(0)
    extent = high - low
    scaled = (points - low) / np.where(extent > 0, extent, 1.0)
    return np.asarray(np.where(extent > 0, scaled, 0.5), dtype=np.float64)
