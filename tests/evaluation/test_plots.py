"""Pictures: real files with labelled axes, right content, no global state, no crash on odd input."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from solder_vae.evaluation import plots, reconstruction_plots, style
from solder_vae.metrics.classification import evaluate

LABELS = np.repeat([0, 1], [40, 30])
DEFECTS = ["normal"] * 40 + ["bridge"] * 20 + ["pin_hole"] * 10
GENERATOR = np.random.default_rng(0)
VALIDATION = GENERATOR.lognormal(-4, 0.4, 200)
SCORES = {
    name: GENERATOR.lognormal(-4 + separation * LABELS, 0.4) for name, separation in (("recon", 0.8), ("elbo", 1.2))
}
THRESHOLD = 0.03
RESULTS = {name: evaluate(scores, LABELS, DEFECTS, THRESHOLD, resamples=20) for name, scores in SCORES.items()}
KL = GENERATOR.gamma(0.3, 0.5, 640)
HISTORY = {
    "train/loss": [0.5, 0.2, 0.1],
    "val/loss": [0.6, 0.2, 0.3],
    "val/kl": [1.0, None, 3.0],
    "train/grad_loss": [None, -0.5, -0.9],
    "lr": [1e-2, 1e-2, 1e-4],
}


def grid(n: int = 5, columns: int = 3) -> Figure:
    images = GENERATOR.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    rows = [0, 1, 40, 41, 60][:n]
    scores = [0.01, 0.05, 0.01, 0.05, 0.06][:n]
    return reconstruction_plots.reconstruction_grid(
        images, images, [DEFECTS[row] for row in rows], scores, THRESHOLD, columns
    )


FIGURES = {
    "loss": lambda: plots.loss_curves(HISTORY),
    "histogram": lambda: plots.score_histogram(VALIDATION, SCORES["elbo"], LABELS, THRESHOLD, "elbo"),
    "roc": lambda: plots.roc_curves(SCORES, LABELS, RESULTS, "elbo"),
    "pr": lambda: plots.pr_curves(SCORES, LABELS, RESULTS, "elbo"),
    "defects": lambda: plots.defect_recall(RESULTS["elbo"], "elbo"),
    "kl": lambda: plots.kl_per_unit(KL, 200),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FIGURES))
def test_png_with_something_on_it_and_labelled_axes(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name]()
    style.save(figure, tmp_path / f"{name}.png")
    image = cv2.imread(str(tmp_path / f"{name}.png"))
    assert image.shape[0] >= 300
    assert image.std() > 5, "not a blank page"
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"], "no temporary file stays"
    assert figure.axes
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FIGURES))
def test_same_input_same_pixels(name: str, tmp_path: Path) -> None:
    for copy in ("a", "b"):
        style.save(FIGURES[name](), tmp_path / f"{copy}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_global_figures_and_no_changed_settings() -> None:
    before = dict(mpl.rcParams)
    for make in FIGURES.values():
        make()
    grid()
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_save_keeps_the_old_file_when_drawing_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    figure = Figure()
    figure.text(0, 0, "$\\frac{$")  # no valid mathematics: drawing raises
    with pytest.raises(ValueError, match="frac"):
        style.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_loss_curves_pair_training_with_validation_and_mark_the_best() -> None:
    figure = plots.loss_curves(HISTORY)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "kl", "grad loss", "lr"]
    loss, kl, _, lr = figure.axes
    assert loss.get_legend_handles_labels()[1] == ["training", "validation", "best: epoch 2"]
    assert kl.lines[0].get_xdata().tolist() == [1, 3]
    assert lr.get_yscale() == "log"
    assert loss.get_yscale() == "linear"


def test_one_epoch_is_a_visible_dot() -> None:
    line = plots.loss_curves({"train/loss": [0.5]}).axes[0].lines[0]
    assert line.get_marker() == "o"


def test_histogram_counts_everyone_and_cuts_at_the_threshold() -> None:
    outlying = SCORES["elbo"] - 0.1
    outlying[-1] = 1e6
    for scores, scale in ((SCORES["elbo"], "log"), (outlying, "linear")):
        axes = plots.score_histogram(VALIDATION, scores, LABELS, THRESHOLD).axes[0]
        assert axes.get_xscale() == scale
        for patch in axes.patches:
            values, edges, _ = patch.get_data()
            assert values.sum() == pytest.approx(1), "outliers are counted in the end bins"
            assert np.abs(edges - THRESHOLD).min() < 1e-9, "no bin lies on both sides"
        assert edges[-1] < 10, "one outlier does not squeeze the rest"
    assert "beyond the axis" in axes.get_title(loc="right")


def test_curves_name_every_score_and_mark_its_operating_point() -> None:
    for figure, x, y, number in (
        (FIGURES["roc"](), "false_call_rate", "recall", "auroc"),
        (FIGURES["pr"](), "recall", "precision", "average_precision"),
    ):
        axes = figure.axes[0]
        labels = axes.get_legend_handles_labels()[1]
        assert labels[1:] == [f"{name}  {RESULTS[name][number]:.3f}" for name in SCORES]
        dots = [tuple(np.ravel(line.get_data())) for line in axes.lines if line.get_marker() == "o"]
        assert dots == [(RESULTS[name][x], RESULTS[name][y]) for name in SCORES]
    assert labels[0] == "all abnormal  0.429"


def test_operating_points_lie_on_their_curves() -> None:
    axes = FIGURES["roc"]().axes[0]
    curves = [np.column_stack(line.get_data()) for line in axes.lines if len(line.get_xdata()) > 2]
    dots = [np.ravel(line.get_data()) for line in axes.lines if line.get_marker() == "o"]
    for curve, dot in zip(curves, dots, strict=True):
        assert np.abs(curve - dot).sum(axis=1).min() < 1e-6


def test_defect_recall_names_counts() -> None:
    ticks = [tick.get_text() for tick in FIGURES["defects"]().axes[0].get_yticklabels()]
    assert sorted(tick.split("  ")[0] for tick in ticks) == ["bridge", "pin hole"]
    assert all(tick.endswith(("/ 20", "/ 10")) for tick in ticks)


def test_grid_says_truth_prediction_score_and_colours_right_and_wrong() -> None:
    figure = grid()
    assert [len(part.axes) for part in figure.subfigs] == [6, 4]
    uppers, lowers = figure.axes[::2], figure.axes[1::2]
    assert [axes.get_title() for axes in uppers] == ["normal", "normal", "bridge", "bridge", "pin hole"]
    told = [axes.get_xlabel().split("\n") for axes in lowers]
    assert told == [
        ["normal", "0.01"],
        ["abnormal", "0.05", "false call"],
        ["normal", "0.01", "escape"],
        ["abnormal", "0.05"],
        ["abnormal", "0.06"],
    ]
    frames = [to_hex(axes.spines["left"].get_edgecolor()).upper() for axes in uppers]
    assert frames == [style.BLUE, style.VERMILION, style.VERMILION, style.BLUE, style.BLUE]
    assert (uppers[0].get_ylabel(), lowers[0].get_ylabel()) == ("input", "reconstruction")


@pytest.mark.parametrize("n", [0, 1, 3])
def test_grid_of_any_number(n: int, tmp_path: Path) -> None:
    style.save(grid(n), tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 0


@given(
    rows=st.lists(st.tuples(st.integers(-3, 3), st.sampled_from(["normal", "a", "b", "c"])), max_size=40),
    count=st.integers(1, 20),
)
@settings(deadline=None)
def test_examples_are_distinct_full_and_balanced(rows: list[tuple[int, str]], count: int) -> None:
    scores, defects = [float(score) for score, _ in rows], [defect for _, defect in rows]
    chosen = reconstruction_plots.choose_examples(scores, defects, count)
    assert len(set(chosen)) == len(chosen) == min(count, len(rows))
    normals = sum(defects[row] == "normal" for row in chosen)
    assert normals >= min(defects.count("normal"), count // 2)
    assert len(chosen) - normals >= min(len(rows) - defects.count("normal"), count // 2)
    assert reconstruction_plots.choose_examples(scores, defects, count) == chosen


def test_examples_hold_the_extremes() -> None:
    chosen = reconstruction_plots.choose_examples(SCORES["elbo"], DEFECTS, 8)
    scores = SCORES["elbo"]
    for rows in (range(40), range(40, 60), range(60, 70)):
        assert {min(rows, key=lambda row: scores[row]), max(rows, key=lambda row: scores[row])} <= set(chosen)


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_says_undefined(labels: list[int], tmp_path: Path) -> None:
    scores = [0.1, 0.2][: len(labels)]
    results = {"recon": evaluate(scores, labels, ["void"] * len(labels), 0.15)}
    for draw in (plots.roc_curves, plots.pr_curves):
        figure = draw({"recon": scores}, labels, results, "recon")
        assert "needs normals and abnormals" in figure.axes[0].texts[0].get_text()
    style.save(plots.score_histogram([0.1], scores, labels, 0.15), tmp_path / "histogram.png")
    style.save(plots.defect_recall(results["recon"], "recon"), tmp_path / "defects.png")


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 0.2, -3.0])
def test_constant_scores_have_a_histogram(value: float, tmp_path: Path) -> None:
    figure = plots.score_histogram([value] * 3, [value] * 2, [0, 1], value)
    style.save(figure, tmp_path / "x.png")
    assert all(patch.get_data().values.sum() == pytest.approx(1) for patch in figure.axes[0].patches)


def test_odd_names_are_text(tmp_path: Path) -> None:
    """Dollar signs are no mathematics, and a leading underscore hides nothing from the legend."""
    metrics = evaluate([1.0, 2.0], [0, 1], ["normal", "$\\frac{$"], 1.5)
    style.save(plots.defect_recall(metrics, "_a$b$"), tmp_path / "x.png")
    figure = plots.roc_curves({"_x": [1.0, 2.0]}, [0, 1], {"_x": metrics}, "_x")
    assert len(figure.axes[0].get_legend_handles_labels()[1]) == 2


@pytest.mark.slow
def test_drawing_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, make in FIGURES.items():
            style.save(make(), tmp_path / f"{name}.png")
        style.save(plots.loss_curves({}), tmp_path / "empty.png")
        style.save(plots.loss_curves({"val/loss": [None, None]}), tmp_path / "none.png")
