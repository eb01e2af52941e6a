"""Running the sweeps as ordinary multiruns of ``solder_vae.train``, and reading what the runs left behind."""

from __future__ import annotations

import functools
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hydra import compose
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from solder_vae.metrics.paired import TestImages
from solder_vae.models.checkpoint import read_checkpoint
from solder_vae.studies.paper.plan import SCORES, Row, Sweep, Training
from solder_vae.studies.sweeps.runs import last_error
from solder_vae.training.finished import finished
from solder_vae.utils.tables import read_table
from solder_vae.utils.threads import progress_bar

log = logging.getLogger(__name__)

QUIET = ("pictures=false", "logger.mode=disabled")

_POLL = 1.0  # seconds
_ENDING = 20  # lines of the log, for runs that left no traceback of their own


class Run(NamedTuple):
    """A finished run.

    Attributes:
        training: which.
        folder: its own.
        metrics: its ``metrics.json``.
        scores: of the test images ``(N,)``, by score.
        labels: ``(N,)``, 1 = abnormal.
        names: of each test image, the same where runs share an image.
        normals: of the validation normals ``(n,)``, by score.
    """

    training: Training
    folder: Path
    metrics: dict[str, Any]
    scores: dict[str, NDArray[np.float64]]
    labels: NDArray[np.int64]
    names: list[str]
    normals: dict[str, NDArray[np.float64]]

    def value(self, score: str, key: str) -> float | None:
        """A number of the test under a score, see :func:`solder_vae.metrics.classification.evaluate`."""
        number: float | None = self.metrics[f"test/{score}/{key}"]
        return number

    def test_images(self, score: str) -> TestImages:
        return TestImages(self.scores[score], self.labels, self.metrics["thresholds"][score]["value"], self.names)


class Failure(NamedTuple):
    """A run without a result, and its traceback, or the end of the log."""

    training: Training
    traceback: str


class Runs(NamedTuple):
    """The results of all runs."""

    finished: dict[Training, Run]
    failed: list[Failure]

    def of(self, row: Row) -> dict[int, Run]:
        """The finished runs behind a row, by seed."""
        return {
            training.seed: run for training, run in self.finished.items() if training == row.training(training.seed)
        }


class SweepFolder(NamedTuple):
    """Where runs leave their results, and the settings of all of them.

    Attributes:
        folder: the runs', the same after an interruption.
        experiment: of conf/experiment: the scale's settings.
        overrides: of every run.
        log_file: what the runs print; it is appended to.
    """

    folder: Path
    experiment: str
    overrides: Sequence[str]
    log_file: Path

    def has_result(self, training: Training) -> bool:
        """Whether the run's folder holds a result of these very settings, as ``skip_finished`` decides it."""
        stamp = self.stamp(training)
        # As run_sweep has them; what table3 sets of a single run is the same.
        settings = (f"experiment=[{self.experiment},table2]", *self.overrides, *training.choices)
        return stamp is not None and is_result_of(settings, training, self.folder / training.folder, stamp)

    def stamp(self, training: Training) -> int | None:
        """When the run's latest result was written, under any settings; None if there is none."""
        try:
            return (self.folder / training.folder / "metrics.json").stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def without_result(self, trainings: Iterable[Training]) -> list[Training]:
        return [training for training in trainings if not self.has_result(training)]


@functools.cache
def is_result_of(settings: tuple[str, ...], training: Training, folder: Path, stamp: int) -> bool:
    """Whether the result that was written at ``stamp`` is of these settings; it is asked several times."""
    config = OmegaConf.merge(composed(settings), training.values)
    assert isinstance(config, DictConfig)
    return finished(config, folder) is not None


@functools.cache
def composed(settings: tuple[str, ...]) -> DictConfig:
    """Their config. To compose it takes 0.2 s, and hundreds of runs differ in seed and beta alone."""
    return compose("train", [*settings])


def run_sweeps(sweeps: Sequence[Sweep], site: SweepFolder, jobs: int) -> None:
    """Run all multiruns, one after the other.

    Runs that fail do not stop the others. Finished ones are left alone (``skip_finished`` of the experiments). If a
    process is killed, for example when memory runs out, the rest of its multirun ends, too. The multirun is started
    again as long as further runs get finished.

    Args:
        sweeps: what to run.
        site: where, and with which settings.
        jobs: runs side by side.
    """
    trainings = [training for sweep in sweeps for training in sweep.trainings]
    to_do = site.without_result(trainings)
    known = set(trainings) - set(to_do)
    with progress_bar("Training", len(to_do)) as advance:
        for sweep in sweeps:
            missing = [training for training in sweep.trainings if training not in known]
            while missing:
                for training in run_sweep(sweep, site, jobs, trainings):
                    advance(training not in known)
                    known.add(training)
                    log.info("%*d of %d: %s", len(str(len(trainings))), len(known), len(trainings), training)
                before, missing = missing, site.without_result(sweep.trainings)
                explained = all(last_error(site.folder / training.folder) for training in missing)
                if explained or len(missing) == len(before):
                    break


def run_sweep(sweep: Sweep, site: SweepFolder, jobs: int, trainings: Sequence[Training]) -> Iterator[Training]:
    """One multirun; yields each run as it finishes.

    Single runs make neither pictures nor dashboards: the report has what counts, and they take a tenth of a short run's
    time. The overrides for all runs come last, so that they win.
    """
    parallel = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []
    experiments = f"experiment=[{site.experiment},{sweep.experiment}]"
    arguments = [experiments, *QUIET, *site.overrides, *sweep.overrides, f"hydra.sweep.dir={site.folder}", *parallel]
    stamps = {training: site.stamp(training) for training in trainings}
    with site.log_file.open("a", encoding="utf-8") as output:
        command = [sys.executable, "-m", "solder_vae.train", "-m", *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        running = True
        while running:
            running = process.poll() is None
            if running:
                time.sleep(_POLL)
            for training in trainings:
                stamp = site.stamp(training)
                if stamp is not None and stamp != stamps[training]:
                    stamps[training] = stamp
                    yield training
    finally:
        process.terminate()  # does nothing to one that has ended
        process.wait()


def read_runs(trainings: Iterable[Training], site: SweepFolder) -> Runs:
    """What the runs left in their folders."""
    log_lines = site.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    ending = f"It did not get to its end; {site.log_file.name} ends:\n" + "\n".join(log_lines[-_ENDING:])
    finished_runs: dict[Training, Run] = {}
    failed: list[Failure] = []
    for training in trainings:
        folder = site.folder / training.folder
        if site.has_result(training):
            finished_runs[training] = read_run(training, folder)
        else:
            failed.append(Failure(training, last_error(folder) or ending))
    return Runs(finished_runs, failed)


def read_run(training: Training, folder: Path) -> Run:
    data = OmegaConf.load(folder / "config.yaml").data
    # Files are the same whatever the seed that split them; rendered images of another seed are others.
    prefix = "" if data.get("root") else f"{data.seed}/"
    rows = [row for _, row in read_table(folder / "predictions.csv")]
    validation = read_checkpoint(folder / "best.ckpt")["calibration"]["validation_scores"]
    return Run(
        training,
        folder,
        json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        {name: np.array([float(row[name]) for row in rows]) for name in SCORES if name in rows[0]},
        np.array([int(row["label"]) for row in rows]),
        [prefix + row["path"] for row in rows],
        {name: np.array(scores) for name, scores in validation.items()},
    )


def run_rows(runs: Runs) -> Iterator[list[str]]:
    """runs.csv: header, then a line for each run and score, and one for each run that failed."""
    keys = ("precision", "recall", "f1", "auroc", "average_precision", "false_call_rate", "escape_rate", "threshold")
    yield ["model", "beta", "constraint", "seed", "head", "score", *keys, "val_loss", "status", "folder"]
    for training, run in runs.finished.items():
        for score in run.scores:
            values = [run.value(score, key) for key in keys]
            numbers = ["" if value is None else repr(value) for value in [*values, run.metrics["val/loss"]]]
            yield [*_identity(training), score, *numbers, "finished", run.folder.name]
    for failure in runs.failed:
        yield [*_identity(failure.training), *[""] * (len(keys) + 2), "failed", failure.training.folder]


def _identity(training: Training) -> list[str]:
    beta = "" if training.beta is None else f"{training.beta:g}"
    return [training.model, beta, str(int(training.constraint)), str(training.seed), training.head or ""]
