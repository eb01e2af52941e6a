"""What a run's numbers mean, in plain words: enough steps? better than trivial? which false-call rates? what next?"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from solder_vae.evaluation.baselines import visible
from solder_vae.evaluation.evaluate import Evaluation
from solder_vae.evaluation.rule_sentence import VALIDATION
from solder_vae.metrics.classification import FEW
from solder_vae.metrics.paired import auroc_difference
from solder_vae.metrics.threshold import FEW_NORMALS
from solder_vae.models.vae import EARLY_STEPS
from solder_vae.training.next_steps import RunCommands, Step

FALL = 0.05
"""A validation loss that falls by this share over the last third of a run is still falling."""

LEAST_EPOCHS = 6
"""Of fewer epochs a trend cannot be told from scatter."""

_NO_BREAK = "\N{NO-BREAK SPACE}"  # within an interval and before %

_HARDLY = 0.01  # an F1 this little above the floor is none

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
        sentences: in plain words, the result first.
        steps: what to do next.
        numbers: what the sentences rest on, for metrics.json.
    """

    sentences: list[str]
    steps: list[Step]
    numbers: dict[str, Any]

    @property
    def markdown(self) -> str:
        """A page of its own."""
        lines = ["# What this run says", "", *(f"- {sentence}" for sentence in self.sentences), "", "## Next", ""]
        for what, command in self.steps:
            lines += [f"- {_capital(what)}" + (f":\n\n      {command}\n" if command else "")]
        return "\n".join([*lines, ""])

    def text(self, files: str) -> str:
        """The same for a terminal of 80 columns; commands stay on one line, to be copied.

        Args:
            files: where to look, a sentence.
        """
        said = [_wrapped(sentence) for sentence in [*self.sentences, files]]
        ways = [_wrapped(f"Next: {what}" + ":" * bool(command)) + f"\n  {command}" for what, command in self.steps]
        return "\n".join([*said, *(way.rstrip() for way in ways)])


def _wrapped(sentence: str) -> str:
    whole = re.sub(r"(?<=\d)(, (?=[-+\d.]+\])| (?=%))", lambda found: found[0].replace(" ", _NO_BREAK), sentence)
    lines = textwrap.fill(whole, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return lines.replace(_NO_BREAK, " ")


def verdict_of(
    evaluation: Evaluation,
    trivial: Mapping[str, NDArray[np.float64]],
    losses: Sequence[float],
    steps_per_epoch: float | None,
    view: str,
    commands: RunCommands,
    known: int = 0,
    min_steps: int = 0,
) -> Verdict:
    """Judge a tested run.

    Args:
        evaluation: its test.
        trivial: each baseline's scores of the test images, see :func:`solder_vae.evaluation.baselines.trivial_scores`.
        losses: on the validation normals, one an epoch; none of a model that is not trained by steps.
        steps_per_epoch: of the training; None likewise.
        view: of the images.
        commands: that go on from this run.
        known: how many defects were learnt from.
        min_steps: what a run of this config is to have.
    """
    seen = {name: scores for name, scores in trivial.items() if visible(name, view)}
    usual = max(EARLY_STEPS, min_steps)
    parts = [
        _result(evaluation),
        *([_steps(losses, steps_per_epoch, commands, usual)] if losses and steps_per_epoch else []),
        _against_trivial(evaluation, seen, commands, known, trained=steps_per_epoch is not None),
        _false_calls(evaluation),
    ]
    steps = [step for part in parts for step in part.steps]
    return Verdict(
        [part.sentence for part in parts],
        steps or [commands.onwards()],
        {f"verdict/{key}": value for part in parts for key, value in part.numbers.items()},
    )


class _Part(NamedTuple):
    sentence: str
    numbers: dict[str, Any]
    steps: Sequence[Step] = ()


def _result(evaluation: Evaluation) -> _Part:
    """What the decisive score caught at its threshold, and its F1 beside that of calling every joint abnormal."""
    name, metrics = evaluation.primary, evaluation.metrics[evaluation.primary]
    good, bad = f"{metrics['n_normal']} good joints", f"{metrics['n_abnormal']} bad joints"
    caught, called = f"catches {metrics['tp']} of {bad}", f"calls {metrics['fp']} of {good} bad"
    if not metrics["n_abnormal"]:
        return _Part(f"Result: {name} {called}; there are no bad ones to catch.", {})
    if not metrics["n_normal"]:
        return _Part(f"Result: {name} {caught}; there are no good ones to call bad.", {})
    f1, floor, best = (float(metrics[key] or 0) for key in ("f1", "floor_f1", "oracle_f1max"))
    sentence = f"Result: {name} {caught} and {called}. Its F1 is {f1:.3f}, "
    of_all = f"the {floor:.3f} of calling every joint bad"
    if f1 > floor:
        return _Part(f"{sentence}above {of_all}.", {})
    share, missed = (100 * float(metrics[key] or 0) for key in ("prevalence", "escape_rate"))
    why = (
        f"That floor is high where {share:.0f} % of the joints are bad, and this threshold, which is to call few "
        f"good joints bad, misses {missed:.0f} % of the bad ones. "
    )
    most = (
        f"No threshold lifts this score above {best:.3f}"
        if best - floor < _HARDLY
        else f"With more good joints called bad it could be {best:.3f}"
    )
    return _Part(f"{sentence}not above {of_all}. {why}{most}.", {})


def _steps(losses: Sequence[float], steps_per_epoch: float, commands: RunCommands, usual: int) -> _Part:
    """Whether the training was long enough."""
    found, epochs = trend(losses), len(losses)
    steps = round(epochs * steps_per_epoch)
    done = f"{steps} steps ({epochs} epoch{'s' * (epochs > 1)})"
    numbers = {
        "epochs": epochs,
        "steps": steps,
        "val_loss_fall": found.fall if found else None,
        "val_loss_falling": found.falling if found and not commands.rate_ends else None,
    }
    if commands.rate_ends:  # then the loss falls towards the end and stops there, however long the run is
        if steps >= usual:
            return _Part(f"Steps: enough by their number, {done}. Only a longer run shows whether more help.", numbers)
        longer = Step("train for longer", commands.longer(math.ceil(usual / steps_per_epoch)))
        return _Part(f"Steps: few, {done}; {usual} or more are usual.", numbers, [longer])
    on = [Step("train on", commands.longer(2 * epochs))]
    if found is None:
        return _Part(f"Steps: after {done} it cannot be told whether the validation loss still falls.", numbers, on)
    change = f"the validation loss {'fell' if found.fall >= 0 else 'rose'} by {100 * abs(found.fall):.0f} %"
    over = f"over the last third of {done}"
    if found.falling:
        return _Part(f"Steps: too few. {_capital(change)} {over}.", numbers, on)
    scatter = "" if found.p < 0.05 else ", within its scatter"
    return _Part(f"Steps: enough. {_capital(change)} {over}{scatter}.", numbers)


def _against_trivial(
    evaluation: Evaluation,
    trivial: Mapping[str, NDArray[np.float64]],
    commands: RunCommands,
    known: int,
    *,
    trained: bool,
) -> _Part:
    """Whether the decisive score is better than the best trivial baseline, on the same images."""
    primary, labels = evaluation.primary, evaluation.table.labels
    counts = {"abnormal": int(labels.sum()), "normal": int((1 - labels).sum())}
    for kind, count in counts.items():
        if not count:
            if kind == "abnormal" and known:
                why = f"all {known} defects are known, and what is learnt from cannot test"
                steps = [Step("leave some defects to the test: a smaller number as data.known")]
            else:
                why = f"the test set has no {kind} joints"
                steps = [Step("add abnormal joints to test on")] if kind == "abnormal" else []
            return _Part(f"Finding defects: not measured, since {why}.", {}, steps)
    best = max(trivial, key=lambda name: evaluation.baselines[name]["auroc"] or 0)
    difference, low, high = auroc_difference(evaluation.test[primary], trivial[best], labels)
    numbers = {
        "best_baseline": best,
        "auroc_above_baseline": difference,
        "auroc_above_baseline_low": low,
        "auroc_above_baseline_high": high,
    }
    sentence = (
        f"Finding defects: the AUROC of {primary} is {evaluation.metrics[primary]['auroc']:.3f}, "
        f"that of the best trivial baseline ({best}) {evaluation.baselines[best]['auroc']:.3f}. The difference "
        f"is {difference:+.3f}, [95 %] [{low:+.2f}, {high:+.2f}]: "
    )
    few = [f"{count} {kind}" for kind, count in counts.items() if count < FEW]
    if few:
        steps = [Step(f"test {FEW} good and {FEW} bad joints at least")]
        return _Part(f"{sentence}from {' and '.join(few)} joints this says little.", numbers, steps)
    if low > 0:
        return _Part(f"{sentence}better.", numbers)
    judged = "worse" if high < 0 else "not shown to be better"
    return _Part(f"{sentence}{judged}.", numbers, commands.otherwise(primary, trained))


def _false_calls(evaluation: Evaluation) -> _Part:
    """Which false-call rates so many validation normals can promise."""
    threshold = evaluation.threshold
    n, left_out = threshold.n, evaluation.left_out
    normals = f"normals ({n - left_out} of validation, {left_out} of training, each left out in turn)"
    least = 1 / (n + 1)
    low, high = threshold.interval
    needed = [f"{100 * rate:g} % needs {math.ceil(1 / rate) - 1}" for rate in USUAL_RATES if rate < least]
    sentence = (
        f"False calls: {n} {normals if left_out else VALIDATION} can promise {100 * least:.2g} % (1 in {n + 1}) at best"
        f"{'; ' + ', '.join(needed) if needed else ''}. Expect {100 * threshold.expected_false_call_rate:.1f} % "
        f"[{100 * low:.1f}, {100 * high:.1f}] at this threshold."
    )
    steps = [Step(f"add good joints: {n} set the threshold")] if n < FEW_NORMALS else []
    return _Part(sentence, {"least_false_call_rate": least}, steps)


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
