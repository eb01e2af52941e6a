"""What ends the encoder, measured: β-VAE with the paper's heads and with others, on the seeds of the scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from solder_vae.data.table import ImageTable
from solder_vae.evaluation.latent_space import log_variances
from solder_vae.metrics.paired import paired_test
from solder_vae.studies.paper.latent import trained
from solder_vae.studies.paper.plan import OWN_HEAD, of_head
from solder_vae.studies.paper.results import difference
from solder_vae.studies.paper.runs import Runs
from solder_vae.studies.sweeps.table import spread
from solder_vae.utils.document import Block, Table, Text

#: Columns of the table out of a run's metrics.json; a key that no run has makes no column.
NUMBERS = {
    "test/recon/auroc": "AUROC Recon",
    "test/elbo/auroc": "AUROC ELBO",
    "test/knn/auroc": "AUROC knn",
    "val/loss": "Validation loss",
    "val/active_units": "Active units",
}
#: Columns by the share of latent units of validation normals that lie below.
QUANTILES = {0.0: "log σ², lowest", 0.5: "median", 1.0: "highest"}


class MeasuredHead(NamedTuple):
    """The runs with one head: by column, each seed's number."""

    head: str
    columns: dict[str, dict[int, float]]


def measured_heads(
    runs: Runs, tables_of: Callable[[int], Mapping[str, ImageTable]], heads: Sequence[str]
) -> list[MeasuredHead]:
    """The table of heads, from the finished runs.

    Args:
        runs: all.
        tables_of: the data of a seed.
        heads: which; none makes no table.
    """
    titles = [*NUMBERS.values(), *QUANTILES.values()]
    measured = [MeasuredHead(head, {title: {} for title in titles}) for head in dict.fromkeys(heads)]
    for seed in sorted({training.seed for training in runs.finished} if heads else ()):
        images = tables_of(seed)["val"].images
        for head, columns in measured:
            if run := runs.finished.get(of_head(head, seed)):
                values = log_variances(trained(run.folder), images)
                found = {title: run.metrics.get(key) for key, title in NUMBERS.items()}
                found |= zip(QUANTILES.values(), np.quantile(values, list(QUANTILES)).tolist(), strict=True)
                for title, number in found.items():
                    if number is not None:
                        columns[title][seed] = number
    return [each for each in measured if any(each.columns.values())]


def head_blocks(measured: Sequence[MeasuredHead]) -> Iterator[Block]:
    """The table and what it is of."""
    titles = [title for title in measured[0].columns if any(each.columns[title] for each in measured)]
    yield Text(
        "β-VAE β=3 without the gradient constraint. block: batch norm and LeakyReLU end the heads, as the paper draws "
        "them; conv: a convolution does. Mean ± standard deviation over seeds. log σ² is of all latent units of all "
        "validation normals. Differences: mean over seeds and 95 % t interval, not corrected for their number."
    )
    lines = [[each.head, *(spread([*each.columns[title].values()]) for title in titles)] for each in measured]
    own = next((each.columns for each in measured if each.head == OWN_HEAD), None)
    for head, columns in measured:
        if own is not None and head != OWN_HEAD:
            lines.append([f"   {head} - {OWN_HEAD}", *(_apart(columns[title], own[title]) for title in titles)])
    yield Table(["", *titles], lines)


def _apart(one: Mapping[int, float], other: Mapping[int, float]) -> str:
    test = paired_test([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())])
    return difference(test).replace(" [", "\n[")  # the interval below, or the table would need sideways scrolling
