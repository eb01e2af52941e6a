"""The table at a run's end: complete, aligned, narrow enough, and honest in words."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from solder_vae.evaluation.tables import (
    remarks,
    result_table,
    threshold_sentence,
)
from solder_vae.metrics.classification import Metrics, evaluate
from solder_vae.metrics.threshold import Fixed, Threshold, fit_threshold

LABELS = np.repeat([0, 1], [84, 66])
DEFECTS = ["normal"] * 84 + ["excessive_solder"] * 24 + ["insufficient_solder"] * 20 + ["shifted_component"] * 22


def measured(separation: float, seed: int, drift: float = 0.0) -> tuple[Metrics, Threshold]:
    generator = np.random.default_rng(seed)
    threshold = fit_threshold(generator.normal(0, 1, 567))
    scores = np.concatenate([generator.normal(drift, 1, 84), generator.normal(separation, 1.2, 66)])
    return evaluate(scores, LABELS, DEFECTS, threshold.value, resamples=200), threshold


SCORES = {
    name: measured(separation, seed)[0] for seed, (name, separation) in enumerate({"recon": 1.2, "elbo": 0.9}.items())
}
SCORES["gradcon"], THRESHOLD = measured(1.6, 9)
WEAK = {name: measured(0.2, seed)[0] for seed, name in enumerate(["mean colour", "contrast", "sharpness", "size"], 20)}


def printed(scores: dict[str, Metrics], baselines: dict[str, Metrics], primary: str, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(result_table(scores, baselines, primary, THRESHOLD))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_one_line_a_row_and_columns_line_up(width: int) -> None:
    lines = printed(SCORES, WEAK, "gradcon", width)
    assert max(map(len, lines)) <= width
    body = {name: next(line for line in lines if line.startswith(name)) for name in [*SCORES, "all abnormal", *WEAK]}
    assert body["gradcon"].startswith("gradcon *")
    assert len({len(line.rstrip()) for line in body.values()}) == 1, "the last column ends in one place"
    dots = [[place for place, sign in enumerate(line) if sign == "." and place > 36] for line in body.values()]
    assert all(places == dots[0] for places in dots), "decimal points line up"


def test_rows_hold_the_numbers() -> None:
    lines = printed(SCORES, WEAK, "gradcon")
    metrics = SCORES["gradcon"]
    row = next(line for line in lines if line.startswith("gradcon *"))
    expected = [
        f"{metrics['auroc']:.3f} [{metrics['auroc_low']:.2f}, {metrics['auroc_high']:.2f}]",
        *(f"{metrics[key]:.3f}" for key in ("average_precision", "precision", "recall", "f1")),
        *(f"{100 * float(metrics[key] or 0):.1f}" for key in ("false_call_rate", "escape_rate")),
    ]
    assert row.removeprefix("gradcon *").split() == " ".join(expected).split()
    floor = next(line for line in lines if line.startswith("all abnormal"))
    assert floor.split() == ["all", "abnormal", "0.500", "0.440", "0.440", "1.000", "0.611", "100.0", "0.0"]
    order = [next(i for i, line in enumerate(lines) if line.startswith(name)) for name in [*SCORES, "all ", *WEAK]]
    assert order == sorted(order)
    rules = [i for i, line in enumerate(lines) if set(line.strip()) in ({"\u2500"}, {"-"})]
    assert {order[0] - 1, order[3] - 1, order[3] + 1} <= set(rules), "lines set the floor apart"


def test_defect_types_stand_with_counts_and_the_primarys_interval() -> None:
    row = next(line for line in printed(SCORES, WEAK, "gradcon") if line.startswith("excessive_solder"))
    caught = [int(metrics["defect/excessive_solder/caught"] or 0) for metrics in SCORES.values()]
    cells = " ".join(row.split()).removeprefix("excessive_solder 24 ")
    assert cells.startswith(" ".join(f"{count} ({100 * count / 24:.0f} %)" for count in caught))
    low, high = (SCORES["gradcon"][f"defect/excessive_solder/recall_{end}"] or 0 for end in ("low", "high"))
    assert cells.endswith(f"[{100 * low:.0f}, {100 * high:.0f}]")


def test_long_names_and_many_scores_keep_one_line_a_row() -> None:
    """Of the pretrained network with known defects: counts alone stand there, and no name or interval is folded."""
    four = dict(zip(("mahalanobis", "knn", "classifier", "combined"), [*SCORES.values(), SCORES["recon"]], strict=True))
    lines = printed(four, {**WEAK, "nearest pixels": WEAK["size"]}, "combined")
    assert max(map(len, lines)) <= 80
    for name in (*four, "nearest pixels"):
        assert sum(line.startswith(name) and "[0." in line and line.count(".") == 9 for line in lines) == 1, name
    row = next(line for line in lines if line.startswith("insufficient_solder"))
    counts = [str(metrics["defect/insufficient_solder/caught"]) for metrics in four.values()]
    assert row.split()[1:6] == ["20", *counts]


def test_own_text_is_ascii_so_any_log_takes_it() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=stream, width=80).print(result_table(SCORES, WEAK, "gradcon", THRESHOLD))


def test_brackets_in_names_are_no_markup() -> None:
    lines = printed({"[red]x": SCORES["recon"]}, {"[bold]y": WEAK["size"]}, "[red]x")
    assert any(line.startswith("[red]x *") for line in lines)
    assert any(line.startswith("[bold]y") for line in lines)


def test_threshold_sentence() -> None:
    sentence = threshold_sentence(THRESHOLD, "gradcon", SCORES["gradcon"])
    assert f"{THRESHOLD.value:.4g} (quantile, q = 0.95)" in sentence
    assert "from 567 validation normals: 5.1 % [3.5, 7.3]" in sentence
    given = threshold_sentence(fit_threshold([1.0, 2.0], Fixed(1.5)), "recon", SCORES["recon"])
    assert "1.5 (given)" in given


def test_nothing_to_remark_on_a_good_score() -> None:
    assert remarks(SCORES["gradcon"], "gradcon", THRESHOLD) == []


def test_an_auroc_of_few_joints_is_marked_and_said() -> None:
    few = {**SCORES["gradcon"], "n_abnormal": 9}
    assert any("fewer than 10 of a class, marked ~" in line for line in remarks(few, "g", THRESHOLD))
    assert any(f"~{few['auroc']:.3f}" in line for line in printed({"g": few}, {}, "g"))
    assert not any("~" in line for line in printed(SCORES, WEAK, "gradcon"))


def test_backward_ranking_is_said() -> None:
    backward, threshold = measured(-2.0, 1)
    assert any("normal joints above abnormal" in line for line in remarks(backward, "r", threshold))


def test_normals_that_differ_from_validation_are_said() -> None:
    drifted, threshold = measured(3.0, 1, drift=1.5)
    assert any("called more often" in line for line in remarks(drifted, "r", threshold))


@pytest.mark.parametrize(("labels", "said"), [([0, 0], "no abnormal joints"), ([1, 1], "no normal joints"), ([], "no")])
def test_one_class_prints_and_says_so(labels: list[int], said: str) -> None:
    metrics = evaluate([1.0, 3.0][: len(labels)], labels, ["void"] * len(labels), 2.0)
    lines = printed({"recon": metrics}, {"size": metrics}, "recon")
    assert any(said in line for line in lines)
    assert "None" not in "".join(lines)
    assert "nan" not in "".join(lines)
