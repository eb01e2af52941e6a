"""Another threshold for a trained checkpoint: the right one, in a new file, with what it costs."""

import csv
import re

import numpy as np
import pytest
import torch
from checkpoints import pictures, write_checkpoint, write_images
from commands import run_command
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation.anomaly_map import anomaly_map, map_scale
from solder_vae.evaluation.plots import trade_off_figure
from solder_vae.inspection.inspector import Inspector
from solder_vae.metrics.intervals import clopper_pearson
from solder_vae.metrics.threshold import Cost, Labelled, Sigma, fit_threshold, make_rule
from solder_vae.metrics.trade_off import expected_cost, operations
from solder_vae.threshold import run
from solder_vae.utils.errors import UserError


@pytest.fixture
def trained(tmp_path):
    return write_checkpoint(tmp_path / "best.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "parameters"),
    [("quantile", {"q": 0.9}), ("sigma", {"k": 1.5}), ("false_call_rate", {"rate": 0.1}), ("fixed", {"value": 0.25})],
)
def test_a_rule_gives_its_threshold_in_a_new_checkpoint(rule, parameters, trained, tmp_path, capsys):
    path, model = trained
    before = path.read_bytes()
    arguments = [f"checkpoint={path}", f"rule={rule}", *(f"{name}={value}" for name, value in parameters.items())]
    assert run([*arguments, f"out={tmp_path / 'out'}"]) == 0
    assert path.read_bytes() == before
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"calibrated.ckpt", "trade_off.csv", "trade_off.png"}
    inspector = Inspector.load(tmp_path / "out" / "calibrated.ckpt")
    normals = model.decision_state["validation_scores"]
    assert inspector.threshold == fit_threshold(normals["gradcon"], make_rule(rule, **parameters))
    assert inspector.validation_scores == normals
    if rule != "fixed":  # whose value means nothing in another score's units
        assert inspector.thresholds["recon"] == fit_threshold(normals["recon"], make_rule(rule, **parameters))
    old, new = (torch.load(file, weights_only=True) for file in (path, tmp_path / "out" / "calibrated.ckpt"))
    assert all(torch.equal(old["state_dict"][key], new["state_dict"][key]) for key in old["state_dict"])
    assert {key for key in old if key != "state_dict" and old[key] != new[key]} == {"calibration"}
    assert f"Threshold of gradcon: {inspector.threshold.value:.4g}" in capsys.readouterr().out


def test_without_out_the_folder_is_named_after_the_rule(trained, tmp_path):
    path, _ = trained
    arguments = [f"checkpoint={path}", "rule=quantile", "q=0.9"]
    run(arguments)
    assert (tmp_path / "best_quantile_0.9" / "calibrated.ckpt").is_file()
    with pytest.raises(UserError, match="nothing is overwritten"):
        run(arguments)


@pytest.mark.slow
def test_new_normals_replace_the_old_ones(trained, tmp_path, capsys):
    path, model = trained
    images = pictures(33, seed=5)
    paths = write_images(tmp_path / "normals", images)
    (tmp_path / "normals" / "broken.png").write_bytes(b"")
    status = run([f"checkpoint={path}", "rule=sigma", f"normals={paths[0].parent}", f"out={tmp_path / 'out'}"])
    assert status == 3
    assert "1 of 34 images could not be read" in capsys.readouterr().err
    inspector = Inspector.load(tmp_path / "out" / "calibrated.ckpt")
    output = model.score(to_tensor(images))
    scores = output.scores
    for name, values in scores.items():
        np.testing.assert_allclose(inspector.validation_scores[name], np.sort(values.numpy()), rtol=2e-6)
        assert inspector.thresholds[name].value == pytest.approx(fit_threshold(values, Sigma()).value, rel=1e-5)
    assert inspector.threshold.n == 33
    assert inspector.map_scale == pytest.approx(map_scale(anomaly_map(output.images, output.recon).numpy()), rel=1e-5)


def labelled_set(folder):
    write_images(folder / "normal", pictures(30, seed=5))
    write_images(folder / "void", 255 - pictures(20, seed=6))
    return folder


@pytest.mark.slow
def test_least_cost_on_a_labelled_set(trained, tmp_path):
    path, model = trained
    root = labelled_set(tmp_path / "set")
    arguments = [f"checkpoint={path}", "rule=cost", f"labelled={root}", "prevalence=0.1"]
    assert run([*arguments, "escape_cost=9", f"out={tmp_path / 'out'}"]) == 0
    inspector = Inspector.load(tmp_path / "out" / "calibrated.ckpt")
    good, bad = (
        model.score(to_tensor(images)).scores["gradcon"].double().numpy()
        for images in (pictures(30, seed=5), 255 - pictures(20, seed=6))
    )
    value = inspector.threshold.value
    cost = 0.9 * np.mean(good > value) + 0.1 * 9 * np.mean(bad <= value)
    every = np.concatenate([good, bad, [-1]])
    assert cost == pytest.approx(min(0.9 * np.mean(good > t) + 0.9 * np.mean(bad <= t) for t in every))
    with (tmp_path / "out" / "trade_off.csv").open() as file:
        (chosen,) = [row for row in csv.DictReader(file) if row["chosen"] == "1"]
    assert float(chosen["false_calls_per_1000_good"]) == pytest.approx(1000 * np.mean(good > value), rel=1e-5)
    assert float(chosen["escapes_per_1000_bad"]) == pytest.approx(1000 * np.mean(bad <= value), rel=1e-5)


@pytest.mark.slow
def test_other_names_of_the_normal_class_and_pictures_that_are_not_read(trained, tmp_path, caplog):
    """The same threshold as by the usual names; a picture that is not read is counted and ends with status 3."""
    path, _ = trained
    root = labelled_set(tmp_path / "set")
    (root / "normal").rename(root / "OK_Front")
    (root / "void/1.heic").write_bytes(b"?")
    again = labelled_set(tmp_path / "again")
    arguments = [f"checkpoint={path}", "rule=cost", "prevalence=0.1", "escape_cost=9"]
    assert run([*arguments, f"labelled={root}", "normal=ok_front,fine", f"out={tmp_path / 'a'}"]) == 3
    assert "1 .heic" in caplog.text
    assert run([*arguments, f"labelled={again}", f"out={tmp_path / 'b'}"]) == 0
    assert (tmp_path / "a/trade_off.csv").read_bytes() == (tmp_path / "b/trade_off.csv").read_bytes()


numbers = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=30)


@settings(deadline=None, max_examples=60)
@given(numbers, numbers, st.floats(0.1, 1000), st.floats(0.001, 0.9))
def test_no_threshold_costs_less(good, bad, escape_cost, prevalence):
    labelled = Labelled(np.array(good), np.array(bad))
    threshold = fit_threshold(good, Cost(escape_cost, prevalence), labelled)
    (cost,) = expected_cost([threshold.value], good, bad, escape_cost, prevalence)
    others = np.arange(-0.5, 21)
    slow = [
        (1 - prevalence) * np.mean(np.array(good) > t) + prevalence * escape_cost * np.mean(np.array(bad) <= t)
        for t in others
    ]
    assert cost == pytest.approx(min(slow))
    np.testing.assert_allclose(expected_cost(others, good, bad, escape_cost, prevalence), slow)
    dearer = fit_threshold(good, Cost(2 * escape_cost, prevalence), labelled)
    assert dearer.value <= threshold.value
    assert threshold.expected_false_call_rate == np.mean(np.array(good) > threshold.value)


@settings(deadline=None, max_examples=30)
@given(numbers, st.lists(st.integers(0, 20).map(float), max_size=30), st.floats(-1, 21))
def test_the_trade_off_counts(good, bad, chosen):
    steps = operations(good, bad, chosen)
    assert [step.threshold for step in steps if step.chosen] == [chosen]
    assert [step.threshold for step in steps] == sorted(step.threshold for step in steps)
    for step in steps:
        called = int((np.array(good) > step.threshold).sum())
        assert step.false_calls == 1000 * called / len(good)
        assert step.false_calls_interval == tuple(1000 * end for end in clopper_pearson(called, len(good)))
        if bad:
            assert step.escapes == pytest.approx(1000 * np.mean(np.array(bad) <= step.threshold))
        else:
            assert step.escapes is None


def test_the_figure_marks_the_threshold():
    good, bad = np.arange(100.0), np.arange(50.0, 150.0)
    for abnormals, y in ((bad, 1000 * np.mean(bad <= 90)), (np.empty(0), 90)):
        (axes,) = trade_off_figure(good, abnormals, 90.0, "recon").axes
        (point,) = [line for line in axes.lines if line.get_marker() == "o"]
        assert point.get_xdata()[0] == pytest.approx(1000 * np.mean(good > 90))
        assert point.get_ydata()[0] == pytest.approx(y)


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rule=best"], "use quantile, sigma, false_call_rate, fixed, cost, or name its module"),
        ([], "rule=... must be given"),
        (["rule=quantile", "k=2"], "quantile has no k: it takes q"),
        (["rule=quantile", "q=1.2"], "a number from 0 to 1, got 1.2"),
        (["rule=quantile", "q=nan"], "q=nan is no number"),
        (["rule=fixed"], "fixed needs value=NUMBER"),
        (["rule=false_call_rate", "rate=0.001"], "at least 999 normals"),
        (["rule=cost", "preval=0.9"], "did you mean prevalence?"),
        (["q=0.9"], "rule=... must be given"),
        (["rule=cost", "prevalence=0.1"], "cost needs escape_cost=NUMBER"),
        (["rule=cost", "prevalence=0.1", "escape_cost=2"], "needs labelled=PATH"),
        (
            ["rule=cost", "prevalence=0.1", "escape_cost=-2", "labelled={set}"],
            "cost needs escape_cost=NUMBER, a number above 0: what an escape costs, in false calls, got -2",
        ),
        (
            ["rule=cost", "prevalence=1", "escape_cost=2", "labelled={set}"],
            "prevalence=NUMBER, a number between 0 and 1: the share of bad joints on the line, got 1",
        ),
        (["rule=cost", "prevalence=0.1", "escape_cost=2", "labelled={good}"], "has no abnormal ones"),
        (["rule=sigma", "normals={root}/nowhere"], "normals={root}/nowhere does not exist"),
        (["rule=sigma", "labelled={root}/nowhere"], "labelled={root}/nowhere does not exist"),
        (["rule=sigma", "normals={broken}"], "None of the 1 normals can be read"),
    ],
)
def test_mistakes(arguments, message, trained, tmp_path):
    path, _ = trained
    labelled_set(tmp_path / "set")
    write_images(tmp_path / "good" / "normal", pictures(2))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.png").write_bytes(b"junk")
    places = {"root": tmp_path, **{name: tmp_path / name for name in ("set", "good", "broken")}}
    with pytest.raises(UserError, match=re.escape(message.format(**places))):
        run([f"checkpoint={path}", f"out={tmp_path / 'out'}", *(text.format(**places) for text in arguments)])
    assert not (tmp_path / "out").exists()


def test_the_command_is_called_threshold(tmp_path):
    shown = run_command("threshold", "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "rule=false_call_rate rate=0.05" in shown.stdout
    assert shown.stderr == ""


@pytest.mark.slow
def test_the_summary_shows_the_trade_off(trained, tmp_path, capsys):
    path, _ = trained
    arguments = [f"checkpoint={path}", "rule=quantile"]
    run([*arguments, "q=0.8", f"out={tmp_path / 'out'}"])
    shown = capsys.readouterr().out
    assert "false calls per" in shown
    assert re.search(r"\*\s+0\.\S+\s+200\.0\s+\[90\.5, 356\.5\]", shown)  # 8 of 40, Clopper-Pearson
    assert "give labelled=PATH" in shown
    run([*arguments, f"labelled={labelled_set(tmp_path / 'set')}", f"out={tmp_path / 'again'}"])
    assert "give labelled=PATH" not in capsys.readouterr().out


def labelled_table(path, joints):
    path.write_text("\n".join(["path,label", *(f"{joint},{label}" for joint, label in joints)]))
    return path


def test_the_two_rates_are_named_and_a_choice_of_called_joints_is_told(trained, tmp_path, capsys):
    path, _ = trained
    root = labelled_set(tmp_path / "set")
    verdicts = Inspector.load(path).score(sorted((root / "normal").iterdir()))
    called = [verdict.name for verdict in verdicts if verdict.abnormal]
    bad = [(name, "void") for name in sorted((root / "void").iterdir())]
    for joints, chosen in (
        ([(verdict.name, "normal") for verdict in verdicts], False),
        ([(name, "normal") for name in called], True),
    ):
        table = labelled_table(tmp_path / f"{chosen}.csv", [*joints, *bad])
        run([f"checkpoint={path}", "rule=quantile", "q=0.5", f"labelled={table}", f"out={tmp_path / f'out{chosen}'}"])
        shown = capsys.readouterr().out
        assert "False calls to expect from 40 validation normals: 50.0 %" in shown
        assert f"Of labelled={table}: {len(called)} of {len(joints)} (" in shown
        assert "bad ones are not." in shown
        assert ("labelled because they were called" in shown) == chosen
        assert f"Counted on the joints of labelled={table}:" in shown


@pytest.mark.slow
def test_none_of_n_has_an_upper_bound(trained, tmp_path, capsys):
    path, _ = trained
    run([f"checkpoint={path}", "rule=quantile", "q=1", f"out={tmp_path / 'out'}"])
    # 1 - 0.025^(1/40): Clopper and Pearson's bound in closed form
    assert "from 40 validation normals: at most 8.8 %, as none of them is called." in capsys.readouterr().out
    write_images(tmp_path / "few", pictures(5))
    run([f"checkpoint={path}", "rule=quantile", "q=1", f"normals={tmp_path / 'few'}", f"out={tmp_path / 'more'}"])
    assert "So few normals can promise a false-call rate of 16.7 % at best." in capsys.readouterr().out


@pytest.mark.slow
def test_another_score_decides(trained, tmp_path, capsys):
    path, _ = trained
    run([f"checkpoint={path}", "rule=quantile", "q=0.9", "score=recon"])
    assert "Threshold of recon: " in capsys.readouterr().out
    inspector = Inspector.load(tmp_path / path.parent / "best_recon_quantile_0.9/calibrated.ckpt")
    (verdict,) = inspector.score(pictures(1)[0])
    assert verdict.score == verdict.scores["recon"]
    with pytest.raises(UserError, match=r"score=knn is not in the checkpoint: use .*gradcon"):
        run([f"checkpoint={path}", "rule=quantile", "score=knn", f"out={tmp_path / 'no'}"])


def test_advice_names_options_that_are_there(trained, tmp_path):
    path, _ = trained
    for name in ("train/odd", "test/good"):
        write_images(tmp_path / "set" / name, pictures(2))
    with pytest.raises(UserError) as error:
        run([f"checkpoint={path}", "rule=sigma", f"labelled={tmp_path / 'set'}", f"out={tmp_path / 'out'}"])
    assert "data." not in str(error.value)
    assert "normal=odd" in str(error.value)
