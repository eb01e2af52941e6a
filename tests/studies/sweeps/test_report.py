"""The report of a sweep, on folders written by hand: what is told apart, what is counted, what survives."""

import base64
import csv
import hashlib
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import yaml
from commands import run_command, train

from solder_vae.studies.sweeps.plots import figures
from solder_vae.studies.sweeps.report import write_report
from solder_vae.studies.sweeps.runs import job_folders, last_error, natural, read_runs
from solder_vae.studies.sweeps.table import BASELINES, COLUMNS, cells, comparisons, flat_rows, rows
from solder_vae.utils.errors import UserError

HEADER = "[2026-01-31 12:00:00,000] "
FAILURE = (
    f"{HEADER}ERROR solder_vae.traceback: the run failed\nTraceback (most recent call last):\n"
    '  File "x.py", line 1, in <module>\nsolder_vae.utils.errors.UserError: no <b>such</b> file\n'
    f"{HEADER}ERROR solder_vae: job 1 failed: no <b>such</b> file (traceback in train.log)\n"
)


def numbers(auroc, seed, scores=("recon", "elbo")):
    """A metrics.json whose every metric under a score is ``auroc``."""
    found = {"seed": seed, "precision": "32-true", "val/loss": 0.1, "test/floor_f1": 0.6}
    found |= {"test/floor_precision": 0.4, "test/floor_average_precision": 0.4}
    found |= {f"test/{score}/{key}": auroc for score in scores for key in COLUMNS}
    return found | {f"baseline/{name}/{key}": 0.3 + 0.1 * seed for name in BASELINES for key in COLUMNS}


def write_job(folder, auroc=None, seed=0, beta=3, score="recon", lr=1e-3, model="beta_vae", **trainer):
    """A job's folder; unfinished without an AUROC."""
    (folder / ".hydra").mkdir(parents=True)
    alpha = 0.03 if score == "gradcon" else 0
    config = {"seed": seed, "beta": beta, "model": {"lr": lr, "beta": beta, "seed": seed}, "data": {"seed": seed}}
    config |= {"score": {"name": score, "alpha": alpha}, "trainer": {"precision": "auto", "max_epochs": 2, **trainer}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    hydra = {"hydra": {"runtime": {"choices": {"model": model, "score": score, "data": "synthetic"}}}}
    (folder / ".hydra/hydra.yaml").write_text(yaml.safe_dump(hydra))
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump([f"beta={beta}", f"seed={seed}"]))
    if auroc is not None:
        (folder / "metrics.json").write_text(json.dumps(numbers(auroc, seed)))
    return folder


def test_runs_in_waste_bins_are_none(tmp_path):
    for folder in ("a", "#recycle/b", "@eaDir/c", "lost+found/d"):
        write_job(tmp_path / folder, 0.5)
    assert [path.name for path in job_folders(tmp_path)] == ["a"]


def test_seeds_are_grouped_and_everything_else_is_told_apart(tmp_path):
    for number, (seed, beta, lr) in enumerate([(0, 1, 1e-3), (1, 1, 1e-3), (0, 1, 1e-2), (0, 3, 1e-3)]):
        write_job(tmp_path / str(number), 0.5 + 0.1 * number, seed, beta, lr=lr)
    header, lines = cells(read_runs(tmp_path))
    assert header[:5] == ["model", "beta", "model.lr", "score", "seeds"]  # only what differs
    recon = [line for line in lines if line[3] == "recon"]
    assert [line[1:5] for line in recon] == [
        ["1", "0.001", "recon", "2"],
        ["1", "0.01", "recon", "1"],
        ["3", "0.001", "recon", "1"],
    ]
    assert recon[0][5] == "0.550 ± 0.071"  # mean and sample deviation of 0.5 and 0.6
    assert [line[0] for line in lines if not line[3]] == ["all abnormal", *(f"{name} alone" for name in BASELINES)]


def test_rules_are_told_apart_by_their_names(tmp_path):
    """Whether a run's config names its rule by ``_target_`` or, as runs from before do, by ``rule``."""
    by_target = {"_target_": "solder_vae.metrics.threshold.Quantile", "q": 0.95}
    thresholds = [by_target, {"rule": "quantile", "q": 0.95}, {"rule": "sigma", "k": 2.0}]
    for number, threshold in enumerate(thresholds):
        job = write_job(tmp_path / str(number), 0.7, seed=number)
        config = yaml.safe_load((job / "config.yaml").read_text()) | {"threshold": threshold}
        (job / "config.yaml").write_text(yaml.safe_dump(config))
        hydra = yaml.safe_load((job / ".hydra/hydra.yaml").read_text())
        hydra["hydra"]["runtime"]["choices"]["threshold"] = threshold.get("rule", "quantile")
        (job / ".hydra/hydra.yaml").write_text(yaml.safe_dump(hydra))
    header, lines = cells(read_runs(tmp_path))
    column = header.index("threshold")
    assert not {"threshold._target_", "threshold.rule"} & set(header)
    recon = [(line[column], line[header.index("seeds")]) for line in lines if line[header.index("score")] == "recon"]
    assert recon == [("quantile", "2"), ("sigma", "1")]


def test_another_primary_score_is_no_other_training(tmp_path):
    """recon and elbo train alike: each seed counts once, and a score is read where it is the primary one."""
    write_job(tmp_path / "0", 0.7, score="recon")
    write_job(tmp_path / "1", 0.8, score="elbo")
    write_job(tmp_path / "2", 0.9, score="gradcon")  # trained with the constraint
    found = {(row.settings["score.alpha"], row.score): row.values("auroc") for row in rows(read_runs(tmp_path))}
    assert found == {(0, "recon"): [0.7], (0, "elbo"): [0.8], (0.03, "recon"): [0.9], (0.03, "elbo"): [0.9]}


def test_failed_unfinished_and_half_written_runs_are_counted(tmp_path):
    write_job(tmp_path / "0", 0.7)
    failed = write_job(tmp_path / "1")
    (failed / "train.log").write_text(FAILURE)
    again = write_job(tmp_path / "2")  # failed once, started again
    (again / "train.log").write_text(f"{FAILURE}{HEADER}INFO solder_vae: epoch 1/2\n")
    (write_job(tmp_path / "3") / "metrics.json").write_text('{"model": "beta')
    (write_job(tmp_path / "10") / "config.yaml").write_text("seed: [")
    runs = read_runs(tmp_path)
    assert [(run.name, run.state) for run in runs] == [
        ("0", "finished"),
        ("1", "failed"),
        ("2", "unfinished"),
        ("3", "unfinished"),
        ("10", "unfinished"),
    ]
    assert runs[1].reason == "solder_vae.utils.errors.UserError: no <b>such</b> file"
    assert runs[1].error.endswith(runs[1].reason)
    printed = write_report(tmp_path)
    assert "5 runs: 1 finished, 1 failed, 3 unfinished" in printed
    assert "1 failed: solder_vae.utils.errors.UserError: no <b>such</b> file" in printed
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no &lt;b&gt;such&lt;/b&gt; file" in page
    assert "<b>such" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "1: solder_vae.utils.errors.UserError" in (tmp_path / "report.md").read_text(encoding="utf-8")
    with (tmp_path / "report.csv").open(newline="") as file:
        assert [(line["run"], line["score"], line["auroc"]) for line in csv.DictReader(file)] == [
            ("0", "recon", "0.7"),
            ("0", "elbo", "0.7"),
        ]


def test_floor_and_baselines_count_each_seed_once(tmp_path):
    for number, seed in enumerate([0, 1]):
        write_job(tmp_path / str(number), 0.7, seed)
    (floor, values), (_, trivial), *_ = comparisons(read_runs(tmp_path))
    assert floor == "all abnormal"
    assert values[list(COLUMNS).index("auroc")] == [0.5]
    assert values[list(COLUMNS).index("f1")] == [0.6, 0.6]
    assert trivial[0] == [0.3, 0.4]


def test_a_log_without_a_failure_has_no_error(tmp_path):
    (tmp_path / "train.log").write_text(f"{HEADER}INFO solder_vae: Traceback of nothing\n")
    assert last_error(tmp_path) == ""
    assert last_error(tmp_path / "nowhere") == ""
    assert sorted(["10", "9", "a2", "a10"], key=natural) == ["9", "10", "a2", "a10"]


@pytest.mark.slow
def test_a_report_while_the_sweep_goes_on(tmp_path):
    """It reads what is there, and neither it nor the sweep minds the other."""
    sweep = tmp_path / "sweep"
    with ThreadPoolExecutor() as beside:
        options = ("model=cae", "score=recon", "seed=0,1", "hydra.sweep.dir=sweep")
        going = beside.submit(train, "-m", *options, cwd=tmp_path)
        while not (sweep / "1/.hydra/overrides.yaml").exists():
            assert not going.done(), going.result().stderr
            time.sleep(0.02)
        assert "2 runs: 1 finished, 0 failed, 1 unfinished (still going, or killed)." in write_report(sweep)
    assert "<h2>Unfinished</h2><p>1</p>" in (sweep / "report.html").read_text(encoding="utf-8").replace("\n", "")
    assert going.result().returncode == 0, going.result().stderr
    assert "2 runs: 2 finished, 0 failed, 0 unfinished." in write_report(sweep)


@pytest.mark.slow
def test_no_run_is_a_mistake(tmp_path):
    result = run_command("report", str(tmp_path), cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: No run below")


@pytest.mark.parametrize("content", ["- a", "score: [1]", "a: 2020-13-45"])
def test_configs_that_no_training_wrote_are_told(content, tmp_path):
    write_job(tmp_path / "0", 0.9)
    (tmp_path / "0/config.yaml").write_text(content)
    with pytest.raises(UserError, match="/0: its configs or metrics"):
        read_runs(tmp_path)


def test_references_do_not_fill_the_memory(tmp_path):
    """The billion laughs: ten times ten times ..."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(10))}}}" for n in range(1, 12)]
    write_job(tmp_path / "0", 0.9)
    (tmp_path / "0/config.yaml").write_text("\n".join(lines))
    (run,) = read_runs(tmp_path)
    assert run.state == "finished"


# plots ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(tmp_path):
    """The figures of a sweep over three betas with two seeds, AUROC 0.5 + 0.1 beta + 0.02 seed; and its rows."""
    for number, (beta, seed) in enumerate(product((0, 1, 3), (0, 1))):
        folder = write_job(tmp_path / str(number), 0.5 + 0.1 * beta + 0.02 * seed, seed, beta)
        scores = [0.1, 0.4, 0.3 + seed, 0.9]
        lines = [f"{label},{score},{score}" for label, score in zip((0, 0, 1, 1), scores, strict=True)]
        (folder / "predictions.csv").write_text("\n".join(["label,recon,elbo", *lines]))
    found = rows(read_runs(tmp_path))
    return {name: figure for name, figure, _ in figures(found)}, found


@pytest.mark.slow
def test_metrics_are_drawn_against_beta_with_a_band_over_the_seeds(drawn):
    plots, _ = drawn
    assert list(plots) == ["beta_0", "parallel", "roc_recon", "roc_elbo"]
    for axes in plots["beta_0"].axes:
        lines = {line.get_label(): line for line in axes.get_lines()}
        bands = [collection.get_paths()[0].get_extents() for collection in axes.collections]
        assert len(bands) == 2  # one a score
        for score, band in zip(("recon", "elbo"), bands, strict=True):
            np.testing.assert_allclose(lines[score].get_xydata(), [[0, 0.51], [1, 0.61], [3, 0.81]])
            np.testing.assert_allclose([band.x0, band.x1, band.y0, band.y1], [0, 3, 0.5, 0.82])
        (best,) = (
            line for label, line in lines.items() if label.startswith("best trivial baseline (" + axes.get_ylabel())
        )
        assert best.get_ydata()[0] == pytest.approx(0.35)
        assert axes.get_xlabel() == "beta"
    assert {axes.get_ylabel() for axes in plots["beta_0"].axes} == {"AUROC", "F1", "precision", "recall"}


@pytest.mark.slow
@pytest.mark.measured
def test_metrics_are_drawn_against_any_swept_setting(tmp_path):
    for number, (lr, model) in enumerate(product((1e-4, 1e-2), ("cae", "vae"))):
        write_job(tmp_path / str(number), 0.6 + 0.1 * number, beta=1, lr=lr, model=model)
    plots = {name: figure for name, figure, _ in figures(rows(read_runs(tmp_path)))}
    assert {"model_0", "model_1", "model.lr_0", "model.lr_1"} <= set(plots)
    axes = plots["model.lr_0"].axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["recon"].get_xydata(), [[1e-4, 0.6], [1e-2, 0.8]])
    assert (axes.get_xlabel(), axes.get_xscale()) == ("model.lr", "log")
    names = plots["model_0"].axes[0]
    assert [label.get_text() for label in names.get_xticklabels()] == ["cae", "vae"]
    assert {line.get_linestyle() for line in names.get_lines() if line.get_label() == "recon"} == {"None"}


@pytest.mark.slow
def test_the_best_row_is_marked_with_its_interval_and_rows_can_be_sorted(drawn, tmp_path):
    for path in tmp_path.glob("*/predictions.csv"):
        header, *lines = path.read_text().splitlines()
        path.write_text("\n".join([f"path,{header}", *(f"{n}.png,{line}" for n, line in enumerate(lines))]))
        numbers = json.loads((path.parent / "metrics.json").read_text())
        numbers |= {f"test/{score}/threshold": 0.35 for score in ("recon", "elbo")}
        (path.parent / "metrics.json").write_text(json.dumps(numbers))
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (best,) = re.findall(r'<td class="best">(.*?)</td>', page, re.DOTALL)
    assert re.fullmatch(r"0\.810 ± 0\.014\nbest, 0\.\d+ to 1\.000", best)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert page.count('<th scope="col"><button>') == len(cells(read_runs(tmp_path))[0])
    assert "0.014: best, 0." in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_run_under_every_score_is_a_line_across_the_settings(drawn):
    axes = drawn[0]["parallel"].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["beta", "score", "AUROC", "F1"]
    lines = [line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) == 4]
    assert len(lines) == 3 * 2 * 2
    best = max(lines, key=lambda heights: heights[2])
    np.testing.assert_allclose([best[0], best[2], best[3]], 1, atol=0.02)


def test_roc_curves_are_overlaid_averaged_over_the_seeds(drawn):
    """Seed 0 misses one of two defects until both normals but one are called; seed 1 none."""
    axes = drawn[0]["roc_recon"].axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"beta 0", "beta 1", "beta 3", "chance"}
    rates, recalls = lines["beta 1"].get_data()
    assert np.interp(0.25, rates, recalls) == pytest.approx((0.5 + 1) / 2)
    assert np.interp(0.75, rates, recalls) == pytest.approx(1)


def test_scores_of_any_name_and_number_are_shown(tmp_path):
    """Those of a model from outside, too: nothing knows their names, and colours do not run out."""
    names = tuple(f"mine_{number}" for number in range(9))
    for job, beta in enumerate((1, 3)):
        folder = write_job(tmp_path / str(job), 0.7, beta=beta, score="mine_0", model="vq_vae")
        (folder / "metrics.json").write_text(json.dumps(numbers(0.6 + 0.1 * job, 0, scores=names)))
    runs = read_runs(tmp_path)
    assert {row.score for row in rows(runs)} == set(names)
    lines = flat_rows(runs)[1]
    assert len(lines) == 2 * 9
    drawn = {name: figure for name, figure, _ in figures(rows(runs))}
    axes = drawn["beta_0"].axes[0]
    looks = [(line.get_color(), line.get_marker()) for line in axes.get_lines() if line.get_label() in names]
    assert len(set(looks)) == len(looks) == 9
