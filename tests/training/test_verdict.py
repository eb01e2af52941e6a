"""The plain words after a run, on curves and scores made so that the right words are known."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from solder_vae.metrics.classification import evaluate
from solder_vae.metrics.threshold import Quantile, fit_threshold
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


def test_few_epochs_have_no_trend():
    assert trend(curve(0.5)[:5]) is None


def run(separation=2.0, normals=60, abnormals=40, val=100, trivial=0.0, **options):
    """A run's verdict: two scores that lift the abnormals by so many deviations."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [normals, abnormals])
    noise = rng.normal(size=(2, len(labels)))
    scores, other = noise[0] + separation * labels, noise[1] + trivial * labels
    defects = ["normal" if label == 0 else "short" for label in labels]
    threshold = fit_threshold(rng.normal(size=val), Quantile(0.95))
    metrics = {name: evaluate(values, labels, defects, 1.0) for name, values in (("recon", scores), ("size", other))}
    evaluation = SimpleNamespace(
        primary="recon", metrics=metrics, baselines=dict.fromkeys(("size", "sharpness"), metrics["size"]),
        test={"recon": scores}, threshold=threshold, table=SimpleNamespace(labels=labels),
    )  # fmt: skip
    return verdict_of(
        evaluation,
        {"size": other, "sharpness": other},
        **{"losses": curve(0.0), "steps_per_epoch": 40.0, "view": "plain", **options},
    )


def test_a_good_run_is_told_to_go_on_to_inspection():
    verdict = run()
    steps, better, calls, after = verdict.sentences
    assert steps.startswith("Steps: enough.")
    assert "over the last third of 1200 steps (30 epochs)" in steps
    assert better.endswith(": better.")
    assert calls.startswith(
        "False calls: 100 validation normals can promise 0.99 % (1 in 101) at best; 0.1 % needs 999."
    )
    assert after == "Next: inspect new joints with python -m solder_vae.predict."
    assert verdict.markdown.count("\n- ") == 4
    assert verdict.numbers["verdict/val_loss_falling"] is False
    assert json.loads(json.dumps(verdict.numbers, allow_nan=False))["verdict/steps"] == 1200


def test_what_is_wrong_is_said_and_what_to_do():
    verdict = run(separation=0.5, trivial=2.0, losses=curve(0.5), val=12)
    steps, better, calls, after = verdict.sentences
    assert steps.startswith("Steps: too few. The validation loss fell by")
    assert "best trivial baseline's (size)" in better
    assert better.endswith(": worse.")
    assert "1 % needs 99, 0.1 % needs 999" in calls
    assert "trainer.max_epochs=60 resume=" in after
    assert "score=knn" in after
    assert "data.view=controlled" in after
    assert "add good joints, 12 set the threshold" in after
    assert "sharpness" in run(trivial=1.0, view="controlled").sentences[1]  # size is not in the picture there


def test_what_cannot_be_known_is_not_claimed():
    assert run(abnormals=6).sentences[1].endswith("from 6 abnormal joints this says little.")
    assert "not shown to be better" in run(separation=0.6, trivial=0.5).sentences[1]
    assert "no abnormal joints" in run(abnormals=0).sentences[1]
    assert "no normal joints" in run(normals=0).sentences[1]
    assert "cannot be told" in run(losses=curve(0.3)[:3]).sentences[0]
    assert run(losses=[], steps_per_epoch=None).sentences[0].startswith("Finding defects")  # not trained by steps
    assert math.isclose(run(val=9).numbers["verdict/least_false_call_rate"], 0.1)
