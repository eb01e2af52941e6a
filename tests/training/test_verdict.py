"""The plain words after a run, on curves and scores made so that the right words are known."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from solder_vae.metrics.classification import evaluate
from solder_vae.metrics.threshold import Quantile, fit_threshold
from solder_vae.training.next_steps import RunCommands
from solder_vae.training.verdict import trend, verdict_of


def curve(fall, scatter=0.0, epochs=30, seed=0):
    """Falls by that share of its end over its last third."""
    epoch = np.arange(epochs)
    line = 1 + fall * (epochs - 1 - epoch) / (epochs // 3 - 1)
    return (line * (1 + scatter * np.random.default_rng(seed).normal(size=epochs))).tolist()


@pytest.mark.parametrize(
    ("losses", "falling"),
    [
        (curve(0.2), True),
        (curve(0.2, scatter=0.02), True),
        (curve(0.02), False),  # falls, but hardly
        (curve(-0.3), False),  # rises
        (curve(0.0), False),
        (curve(0.1, scatter=0.3), False),  # within the scatter
        (curve(0.3, epochs=6), True),
        ([0.5] * 9, False),
    ],
)
def test_a_curve_falls_if_its_last_third_does_beyond_its_scatter(losses, falling):
    assert trend(losses).falling is falling


def test_scatter_alone_is_rarely_called_a_fall():
    assert np.mean([trend(curve(0, scatter=0.1, seed=seed)).falling for seed in range(400)]) < 0.05


def test_training_normals_that_were_left_out_are_told_from_validation_normals():
    calls = run(val=14, left_out=12).sentences[-1]
    assert calls.startswith(
        "False calls: 14 normals (2 of validation, 12 of training, each left out in turn) can promise"
    )


def test_few_epochs_have_no_trend():
    assert trend(curve(0.5)[:5]) is None


def run(separation=2.0, normals=60, abnormals=40, val=100, trivial=0.0, commands=None, left_out=0, **options):
    """A run's verdict: two scores that lift the abnormals by so many deviations."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [normals, abnormals])
    noise = rng.normal(size=(2, len(labels)))
    scores, other = noise[0] + separation * labels, noise[1] + trivial * labels
    defects = ["normal" if label == 0 else "short" for label in labels]
    threshold = fit_threshold(rng.normal(size=val), Quantile(0.95))
    metrics = {
        name: evaluate(values, labels, defects, threshold.value)
        for name, values in (("recon", scores), ("size", other))
    }
    evaluation = SimpleNamespace(
        primary="recon", metrics=metrics, baselines=dict.fromkeys(("size", "sharpness"), metrics["size"]),
        test={"recon": scores}, threshold=threshold, table=SimpleNamespace(labels=labels),
        left_out=left_out,
    )  # fmt: skip
    return verdict_of(
        evaluation,
        {"size": other, "sharpness": other},
        **{"losses": curve(0.0), "steps_per_epoch": 40.0, "view": "plain", **options},
        commands=commands or RunCommands(["model=cae", "seed=1", "data.root=my joints"], "outputs/x", "my joints"),
    )


def test_a_good_run_is_told_to_go_on_to_inspection():
    verdict = run()
    result, steps, better, calls = verdict.sentences
    assert result.startswith(
        "Result: recon catches 21 of 40 bad joints and calls 2 of 60 good joints bad. Its F1 is 0.667"
    )
    assert result.endswith(", above the 0.571 of calling every joint bad.")
    assert steps.startswith("Steps: enough.")
    assert "over the last third of 1200 steps (30 epochs)" in steps
    assert better.endswith(": better.")
    assert calls.startswith(
        "False calls: 100 validation normals can promise 0.99 % (1 in 101) at best; 0.1 % needs 999."
    )
    (step,) = verdict.steps
    assert step.command == "python -m solder_vae.predict checkpoint=outputs/x/best.ckpt images=PATH out=verdicts"
    assert verdict.markdown.count("\n- ") == 5
    assert verdict.numbers["verdict/val_loss_falling"] is False
    assert json.loads(json.dumps(verdict.numbers, allow_nan=False))["verdict/steps"] == 1200


def test_what_is_wrong_is_said_and_what_to_do():
    verdict = run(separation=0.5, trivial=2.0, losses=curve(0.5), val=12)
    _, steps, better, calls = verdict.sentences
    assert steps.startswith("Steps: too few. The validation loss fell by")
    assert "that of the best trivial baseline (size)" in better
    assert better.endswith(": worse.")
    assert "1 % needs 99, 0.1 % needs 999" in calls
    assert [step.command for step in verdict.steps] == [
        "python -m solder_vae.train model=cae seed=1 'data.root=my joints' trainer.max_epochs=60 "
        "resume=outputs/x/last.ckpt",
        "python -m solder_vae.train experiment=inspect seed=1 'data.root=my joints'",
        "python -m solder_vae.train experiment=inspect seed=1 'data.root=my joints' data.known=25",
        "python -m solder_vae.audit seed=1 'data.root=my joints' out=audit",
        "",
    ]
    assert "Add good joints: 12 set the threshold" in verdict.markdown
    assert "sharpness" in run(trivial=1.0, view="controlled").sentences[2]  # size is not in the picture there


def test_a_run_on_the_embedded_set_leads_to_what_finds_more_there_and_then_to_ones_own_joints():
    commands = RunCommands(["seed=1", "data.known=3", "score=recon"], "outputs/x", None)
    assert [step.command for step in run(separation=0.5, trivial=2.0, commands=commands).steps] == [
        "python -m solder_vae.train experiment=inspect seed=1 data.known=25",
        "python -m solder_vae.train score=blend seed=1 data.known=3",
    ]
    (step,) = run(commands=commands).steps
    assert step.command == "python -m solder_vae.train experiment=inspect data=folder data.root=PATH"


def test_an_f1_below_the_floor_is_explained():
    low = run(separation=0.8).sentences[0]
    assert ", not above the 0.571 of calling every joint bad. " in low
    assert "where 40 % of the joints are bad" in low
    assert "With more good joints called bad it could be 0." in low
    none = run(separation=-1.0).sentences[0]
    assert none.endswith("No threshold lifts this score above 0.571.")


def test_a_terminal_shows_whole_words_intervals_and_commands():
    text = run(separation=0.5, trivial=2.0, losses=curve(0.5)).text("Open outputs/x/report.html.")
    lines = text.splitlines()
    assert all(len(line) <= 80 or line.startswith("  python -m ") for line in lines)
    assert lines.index("Open outputs/x/report.html.") < lines.index("Next: train on:")
    assert not any(line.rstrip()[-1] in "[," and "[" in line.rsplit(" ", 1)[-1] for line in lines)
    assert "\N{NO-BREAK SPACE}" not in text


def test_what_cannot_be_known_is_not_claimed():
    assert run(abnormals=6).sentences[2].endswith("from 6 abnormal joints this says little.")
    assert "not shown to be better" in run(separation=0.6, trivial=0.5).sentences[2]
    nothing_bad, nothing_good = run(abnormals=0), run(normals=0)
    assert "no abnormal joints" in nothing_bad.sentences[2]
    assert nothing_bad.steps[0].what == "add abnormal joints to test on"
    all_known = run(abnormals=0, known=120)
    assert "since all 120 defects are known, and what is learnt from cannot test." in all_known.sentences[2]
    assert all_known.steps[0].what == "leave some defects to the test: a smaller number as data.known"
    assert "no bad ones to catch" in nothing_bad.sentences[0]
    assert "no normal joints" in nothing_good.sentences[2]
    assert "no good ones to call bad" in nothing_good.sentences[0]
    assert "cannot be told" in run(losses=curve(0.3)[:3]).sentences[1]
    assert run(losses=[], steps_per_epoch=None).sentences[1].startswith("Finding defects")  # not trained by steps
    assert math.isclose(run(val=9).numbers["verdict/least_false_call_rate"], 0.1)


def test_where_the_learning_rate_ends_with_the_run_its_curve_says_nothing_of_more_steps():
    """Such a loss falls steeply and then stands still, however long the run is."""
    losses = curve(0.3)
    assert run(losses=losses).sentences[1].startswith("Steps: too few.")
    commands = RunCommands(["model=cae", "trainer.max_epochs=10"], "outputs/x", None, rate_ends=True)
    enough = run(losses=losses, commands=commands)
    assert enough.sentences[1].startswith("Steps: enough by their number, 1200 steps (30 epochs). ")
    assert enough.numbers["verdict/val_loss_falling"] is None
    few = run(losses=losses[:10], commands=commands)
    assert few.sentences[1] == "Steps: few, 400 steps (10 epochs); 600 or more are usual."
    assert few.steps[0].command == "python -m solder_vae.train model=cae trainer.max_epochs=15"
    wanting_more = run(losses=losses, commands=commands, min_steps=1600)
    assert wanting_more.sentences[1] == "Steps: few, 1200 steps (30 epochs); 1600 or more are usual."


def test_commands_are_quoted_as_one_would_type_them():
    given = ["trainer.max_epochs=2", "trainer.min_steps=0", "data=folder", "data.root='sub'", "data.known='my bad'"]
    commands = RunCommands(given, "outputs/x", "sub")
    assert commands.longer(4) == (
        "python -m solder_vae.train data=folder data.root=sub 'data.known=my bad' trainer.max_epochs=4 "
        "resume=outputs/x/last.ckpt"
    )
    assert commands.otherwise("recon", True)[-1].command == "python -m solder_vae.audit data.root=sub out=audit"
    own = RunCommands(["model=mine"], "x", "sub", flags=["--config-dir", "my conf"], plugins=["mine", "yours"])
    assert own.longer(4) == (
        "python -m solder_vae.train --config-dir 'my conf' model=mine trainer.max_epochs=4 resume=x/last.ckpt"
    )
    assert "python -m solder_vae.audit --config-dir 'my conf' " in own.otherwise("recon", True)[-1].command
    assert own.onwards().command.endswith(" 'plugins=[mine,yours]'")
    stopping = RunCommands(given, "outputs/x", "sub", stopping=True)
    assert "trainer.min_steps=0" in stopping.longer(4)  # otherwise early stopping would wait for 600
