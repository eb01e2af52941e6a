"""What a run's numbers mean, in plain words: enough steps? better than trivial? which false-call rates? what next?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from solder_vae.data.view import CONTROLLED
from solder_vae.evaluation.baselines import visible
from solder_vae.evaluation.evaluate import Evaluation
from solder_vae.metrics.classification import FEW
from solder_vae.metrics.paired import auroc_difference

FALL = 0.05
"""A validation loss that falls by this share over the last third of a run is still falling."""

LEAST_EPOCHS = 6
"""Of fewer epochs a trend cannot be told from scatter."""

USUAL_RATES = (0.01, 0.001)  # of false calls, that lines ask for


class Trend(NamedTuple):
    """The validation loss over the last third of a run, five epochs at least.

    Attributes:
        fall: of the fitted line from its first to its last epoch, as a share of the mean loss there; negative: it rose.
        p: of the line's slope, two-sided: a fall within the scatter of the epochs has a large one.
    """

    fall: float
    p: float

    @property
    def falling(self) -> bool:
        return self.fall >= FALL and self.p < 0.05


def trend(losses: Sequence[float]) -> Trend | None:
    """The trend of a validation loss, one value an epoch; None for too few epochs."""
    if len(losses) < LEAST_EPOCHS:
        return None
    last = np.asarray(losses[-max(5, len(losses) // 3) :], np.float64)
    line = stats.linregress(np.arange(len(last)), last)
    p = float(line.pvalue)
    return Trend(float(-line.slope * (len(last) - 1) / last.mean()), 1.0 if math.isnan(p) else p)


class Verdict(NamedTuple):
    """What is said of a run.

    Attributes:
        sentences: in plain words, what to do next last.
        numbers: what they rest on, for metrics.json.
    """

    sentences: list[str]
    numbers: dict[str, Any]

    @property
    def markdown(self) -> str:
        """A page of its own."""
        return "\n".join(["# What this run says", "", *(f"- {sentence}" for sentence in self.sentences), ""])


def verdict_of(
    evaluation: Evaluation,
    trivial: Mapping[str, NDArray[np.float64]],
    losses: Sequence[float],
    steps_per_epoch: float | None,
    view: str,
) -> Verdict:
    """Judge a tested run.

    Args:
        evaluation: its test.
        trivial: each baseline's scores of the test images, see :func:`solder_vae.evaluation.baselines.trivial_scores`.
        losses: on the validation normals, one an epoch; none of a model that is not trained by steps.
        steps_per_epoch: of the training; None likewise.
        view: of the images.
    """
    parts = [
        *([_steps(losses, steps_per_epoch)] if losses and steps_per_epoch else []),
        _against_trivial(evaluation, {name: scores for name, scores in trivial.items() if visible(name, view)}, view),
        _false_calls(evaluation),
    ]
    advice = [step for _, _, step in parts if step] or ["inspect new joints with python -m solder_vae.predict"]
    sentences = [sentence for sentence, _, _ in parts] + [f"Next: {'; '.join(advice)}."]
    return Verdict(sentences, {f"verdict/{key}": value for _, numbers, _ in parts for key, value in numbers.items()})


_Part = tuple[str, dict[str, Any], str]  # a sentence, its numbers, what to do


def _steps(losses: Sequence[float], steps_per_epoch: float) -> _Part:
    """Whether the training was long enough."""
    found, epochs = trend(losses), len(losses)
    steps = round(epochs * steps_per_epoch)
    done = f"{steps} steps ({epochs} epoch{'s' * (epochs > 1)})"
    numbers = {
        "epochs": epochs,
        "steps": steps,
        "val_loss_fall": found.fall if found else None,
        "val_loss_falling": found.falling if found else None,
    }
    on = f"train on with trainer.max_epochs={2 * epochs} resume=.../last.ckpt"
    if found is None:
        return f"Steps: after {done} it cannot be told whether the validation loss still falls.", numbers, on
    change = f"the validation loss {'fell' if found.fall >= 0 else 'rose'} by {100 * abs(found.fall):.0f} %"
    over = f"over the last third of {done}"
    if found.falling:
        return f"Steps: too few. {_capital(change)} {over}.", numbers, on
    scatter = "" if found.p < 0.05 else ", within its scatter"
    return f"Steps: enough. {_capital(change)} {over}{scatter}.", numbers, ""


def _against_trivial(evaluation: Evaluation, trivial: Mapping[str, NDArray[np.float64]], view: str) -> _Part:
    """Whether the decisive score is better than the best trivial baseline, on the same images."""
    metrics, labels = evaluation.metrics[evaluation.primary], evaluation.table.labels
    counts = {"abnormal": int(labels.sum()), "normal": int((1 - labels).sum())}
    for kind, count in counts.items():
        if not count:
            step = f"add {kind} joints to test on" if kind == "abnormal" else ""
            return f"Finding defects: not measured, since the test set has no {kind} joints.", {}, step
    best = max(trivial, key=lambda name: evaluation.baselines[name]["auroc"] or 0)
    difference, low, high = auroc_difference(evaluation.test[evaluation.primary], trivial[best], labels)
    numbers = {
        "best_baseline": best,
        "auroc_above_baseline": difference,
        "auroc_above_baseline_low": low,
        "auroc_above_baseline_high": high,
    }
    sentence = (
        f"Finding defects: the AUROC of {evaluation.primary} is {metrics['auroc']:.3f}, {abs(difference):.3f} "
        f"{'above' if difference >= 0 else 'below'} the best trivial baseline's ({best}); difference [95 %] "
        f"[{low:+.2f}, {high:+.2f}]: "
    )
    few = [f"{count} {kind}" for kind, count in counts.items() if count < FEW]
    if few:
        return f"{sentence}from {' and '.join(few)} joints this says little.", numbers, f"test {FEW} of each at least"
    if low > 0:
        return f"{sentence}better.", numbers, ""
    another = "" if evaluation.primary == "knn" else "try score=knn, or "
    other = f"{another}look at the pictures with python -m solder_vae.audit"
    plain = "" if view == CONTROLLED else ", and at what survives data.view=controlled"
    return f"{sentence}{'worse' if high < 0 else 'not shown to be better'}.", numbers, other + plain


def _false_calls(evaluation: Evaluation) -> _Part:
    """Which false-call rates so many validation normals can promise."""
    threshold = evaluation.threshold
    n = threshold.n
    least = 1 / (n + 1)
    low, high = threshold.interval
    needed = [f"{100 * rate:g} % needs {math.ceil(1 / rate) - 1}" for rate in USUAL_RATES if rate < least]
    sentence = (
        f"False calls: {n} validation normals can promise {100 * least:.2g} % (1 in {n + 1}) at best"
        f"{'; ' + ', '.join(needed) if needed else ''}. Expect {100 * threshold.expected_false_call_rate:.1f} % "
        f"[{100 * low:.1f}, {100 * high:.1f}] at this threshold."
    )
    return sentence, {"least_false_call_rate": least}, f"add good joints, {n} set the threshold" if n < 20 else ""


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
