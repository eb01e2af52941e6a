"""1,100 defect types of one joint each: the tables and pictures show the 20 worst and say so."""

import io
import time

import numpy as np
import pytest
from rich.console import Console

from solder_vae.data.table import ImageTable
from solder_vae.evaluation.plots import defect_recall
from solder_vae.evaluation.reconstruction_plots import choose_examples, reconstructions
from solder_vae.evaluation.tables import localisation_table, result_table
from solder_vae.metrics.classification import SHOWN, DefectRecall, evaluate, worst
from solder_vae.metrics.localisation import evaluate_localisation
from solder_vae.metrics.threshold import fit_threshold

TYPES = 1100
DEFECTS = ["normal"] * 50 + [f"type {number}" for number in range(TYPES)]
SCORES = np.random.default_rng(0).normal(size=len(DEFECTS))
THRESHOLD = fit_threshold(SCORES[:50])


@pytest.fixture(scope="module")
def metrics():
    return evaluate(SCORES, np.array([0] * 50 + [1] * TYPES), DEFECTS, THRESHOLD.value, resamples=20)


def printed(table):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_tables(metrics):
    assert sum(key.endswith("/caught") for key in metrics) == TYPES  # metrics.json has all
    text = printed(result_table({"recon": metrics}, {}, "recon", THRESHOLD))
    assert "Caught of each defect type: the 20 worst of 1100" in text
    assert sum(line.startswith("type ") for line in text.splitlines()) == SHOWN == 20


def test_localisation_table():
    masks = np.zeros((31, 4, 4), bool)
    masks[1:, 1, 1] = True
    maps = np.random.default_rng(0).random((31, 4, 4))
    located = evaluate_localisation(maps, masks, ["normal", *(f"type {number:02}" for number in range(30))])
    text = printed(localisation_table(located, located))
    assert "the 20 worst of 30" in text
    assert sum(line.startswith("type ") for line in text.splitlines()) == SHOWN


@pytest.mark.slow
def test_pictures(metrics):
    start = time.process_time()
    figure = defect_recall(metrics, "recon")
    assert len(figure.axes[0].get_yticks()) == SHOWN
    assert figure.axes[0].get_title(loc="left") == "the 20 worst of 1100 defect types"
    images = np.zeros((len(DEFECTS), 8, 8, 3), np.uint8)
    table = ImageTable(images, DEFECTS, DEFECTS, np.full((len(DEFECTS), 2), 8))
    figure = reconstructions(lambda rows: images[rows], table, SCORES, THRESHOLD.value)
    titles = {axes.get_title() for axes in figure.axes} - {"", "normal"}
    lowest = np.argsort(SCORES[50:])[:SHOWN]
    assert titles == {f"type {number}" for number in lowest}
    assert time.process_time() - start < 60  # 2 s on an idle core


def test_few_types_are_all_shown():
    defects = ["normal"] * 4 + ["a"] * 3 + ["b"] * 3
    assert {defects[row] for row in choose_examples(np.arange(10.0), defects)} == {"normal", "a", "b"}
    rows = [DefectRecall(name, n, 1, recall, 0, 1) for name, n, recall in (("a", 1, 0.5), ("b", 9, 0.5), ("c", 1, 0.1))]
    assert worst(rows) == rows
    assert [row.defect for row in worst(rows, 2)] == ["b", "c"]
