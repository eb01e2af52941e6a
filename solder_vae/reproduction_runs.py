"""Running the sweeps as ordinary multiruns of ``solder_vae.train``, and reading what the runs left behind."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from solder_vae.paired import TestImages
from solder_vae.reproduction_plan import SCORES, Row, Sweep, Training

log = logging.getLogger(__name__)

_POLL = 1.0  # seconds
_ENDING = 20  # lines of the log, for trainings that left no traceback of their own


class Run(NamedTuple):
    """A finished training.

    Attributes:
        training: which.
        folder: its own.
        metrics: its ``metrics.json``.
        scores: of the test images ``(N,)``, by score.
        labels: ``(N,)``, 1 = abnormal.
        names: of each test image, the same where runs share an image.
    """

    training: Training
    folder: Path
    metrics: dict[str, Any]
    scores: dict[str, NDArray[np.float64]]
    labels: NDArray[np.int64]
    names: list[str]

    def value(self, score: str, key: str) -> float | None:
        """A number of the test under a score, see :func:`solder_vae.metrics.evaluate`."""
        number: float | None = self.metrics[f"test/{score}/{key}"]
        return number

    def test_images(self, score: str) -> TestImages:
        return TestImages(self.scores[score], self.labels, self.metrics["thresholds"][score]["value"], self.names)


class Failure(NamedTuple):
    """A training without a result, and its traceback, or what is known instead."""

    training: Training
    traceback: str


class Runs(NamedTuple):
    """What came of all trainings."""

    finished: dict[Training, Run]
    failed: list[Failure]

    def of(self, row: Row) -> dict[int, Run]:
        """The finished runs behind a row, by seed."""
        return {
            training.seed: run for training, run in self.finished.items() if training == row.training(training.seed)
        }

    def first_seed(self, row: Row) -> Run | None:
        runs = self.of(row)
        return runs[min(runs)] if runs else None


def run_sweeps(
    sweeps: Sequence[Sweep], folder: Path, experiment: str, overrides: Sequence[str], jobs: int, log_file: Path
) -> None:
    """Run all multiruns, one after the other; what the trainings print goes to ``log_file``.

    Trainings that fail don't stop the others. Finished ones are left alone (``skip_finished`` of the experiments).

    Args:
        sweeps: what to run.
        folder: the runs', the same after an interruption.
        experiment: of conf/experiment, for all sweeps: the scale's settings.
        overrides: of every training.
        jobs: trainings side by side.
        log_file: is appended to.
    """
    parallel = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []
    trainings = [training for sweep in sweeps for training in sweep.trainings]
    with log_file.open("a", encoding="utf-8") as output:
        for sweep in sweeps:
            experiments = f"experiment=[{experiment},{sweep.experiment}]"
            arguments = [experiments, *overrides, *sweep.overrides, f"hydra.sweep.dir={folder}", *parallel]
            command = [sys.executable, "-m", "solder_vae.train", "-m", *arguments]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                watch(process, trainings, folder)
            finally:
                process.terminate()  # does nothing to one that has ended
                process.wait()


def watch(process: subprocess.Popen[bytes], trainings: Sequence[Training], folder: Path) -> None:
    """Tell of each training as it finishes, until the process ends."""
    known = {training for training in trainings if has_result(folder, training)}
    running = True
    while running:
        running = process.poll() is None
        if running:
            time.sleep(_POLL)
        for training in trainings:
            if training not in known and has_result(folder, training):
                known.add(training)
                log.info("%*d of %d: %s", len(str(len(trainings))), len(known), len(trainings), training)


def has_result(folder: Path, training: Training) -> bool:
    return (folder / training.folder / "metrics.json").is_file()


def read_runs(trainings: Iterable[Training], folder: Path, log_file: Path) -> Runs:
    """What the trainings left in their folders.

    Args:
        trainings: all.
        folder, log_file: as given to :func:`run_sweeps`.
    """
    ending = "\n".join(log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-_ENDING:])
    finished: dict[Training, Run] = {}
    failed: list[Failure] = []
    for training in trainings:
        if has_result(folder, training):
            finished[training] = read_run(training, folder / training.folder)
        else:
            trace = last_traceback(folder / training.folder / "train.log")
            failed.append(Failure(training, trace or f"It did not get to its end; {log_file.name} ends:\n{ending}"))
    return Runs(finished, failed)


def read_run(training: Training, folder: Path) -> Run:
    data = OmegaConf.load(folder / "config.yaml").data
    # Files are the same whatever the seed that split them; rendered images of another seed are others.
    prefix = "" if data.get("root") else f"{data.seed}/"
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return Run(
        training,
        folder,
        json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        {name: np.array([float(row[name]) for row in rows]) for name in SCORES if name in rows[0]},
        np.array([int(row["label"]) for row in rows]),
        [prefix + row["path"] for row in rows],
    )


def last_traceback(log_file: Path) -> str:
    """The latest traceback in a run's log; empty if there is none."""
    if not log_file.is_file():
        return ""
    text = log_file.read_text(encoding="utf-8", errors="replace")
    _, found, trace = text.rpartition("Traceback (most recent call last):")
    return found + trace.rstrip() if found else ""


def run_rows(runs: Runs) -> Iterator[list[str]]:
    """runs.csv: header, then a line for each training and score, and one for each training that failed."""
    keys = ("precision", "recall", "f1", "auroc", "average_precision", "false_call_rate", "escape_rate", "threshold")
    yield ["model", "beta", "constraint", "seed", "score", *keys, "val_loss", "status", "folder"]
    for training, run in runs.finished.items():
        for score in run.scores:
            values = [run.value(score, key) for key in keys]
            numbers = ["" if value is None else repr(value) for value in [*values, run.metrics["val/loss"]]]
            yield [*_identity(training), score, *numbers, "finished", run.folder.name]
    for failure in runs.failed:
        yield [*_identity(failure.training), *[""] * (len(keys) + 2), "failed", failure.training.folder]


def _identity(training: Training) -> list[str]:
    beta = "" if training.beta is None else f"{training.beta:g}"
    return [training.model, beta, str(int(training.constraint)), str(training.seed)]
