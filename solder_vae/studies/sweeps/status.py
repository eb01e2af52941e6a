"""The end of a sweep, under any launcher: which of its jobs failed and why, and an exit status that says so."""

from __future__ import annotations

import atexit
import sys
import time
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from solder_vae.studies.sweeps.runs import job_folders, last_error, reason


class FailureStatus(Callback):
    """Prints the jobs that failed, each with its reason, at the end of a sweep; the exit status is not 0 then.

    At exit, since Hydra tells callbacks of no sweep that ends in an error: its own sweeper raises the first job's, and
    launchers in other processes show none of the others.
    """

    def on_multirun_start(self, config: DictConfig, **others: Any) -> None:
        self.started = time.time()
        self.folder = Path(config.hydra.sweep.dir)
        atexit.register(self.tell)

    def on_multirun_end(self, config: DictConfig, **others: Any) -> None:
        if self.failed():  # and Optuna's sweeper does not treat that as an error
            sys.exit(1)

    def tell(self) -> None:
        """Print the failures, if any."""
        if failed := self.failed():
            print(f"error: {len(failed)} of {len(self.jobs())} jobs failed (traceback: train.log):", file=sys.stderr)
        for job, error in failed.items():
            print(f"  {job}: {reason(error)}", file=sys.stderr)

    def jobs(self) -> list[Path]:
        """The jobs that ran in this sweep; its folder may hold those of an earlier one."""
        logs = {job: job / "train.log" for job in job_folders(self.folder)}
        return [job for job, log in logs.items() if log.is_file() and log.stat().st_mtime >= self.started - 1]

    def failed(self) -> dict[Path, str]:
        """The jobs that failed, with their tracebacks."""
        return {job: error for job in self.jobs() if (error := last_error(job))}
