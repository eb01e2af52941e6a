"""The exit status of a sweep whose sweeper takes failed jobs in its stride."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from solder_vae.cli import fail
from solder_vae.sweep_runs import job_folders, last_error


class FailureStatus(Callback):
    """Ends a sweep with status 1 if one of its jobs failed, and names those; each one's log has its traceback."""

    def on_multirun_start(self, config: DictConfig, **others: Any) -> None:
        self.started = time.time()

    def on_multirun_end(self, config: DictConfig, **others: Any) -> None:
        jobs = [job for job in job_folders(Path(config.hydra.sweep.dir)) if (job / "train.log").is_file()]
        ours = [job for job in jobs if (job / "train.log").stat().st_mtime >= self.started - 1]
        if failed := [str(job) for job in ours if last_error(job)]:
            sys.exit(fail(f"{len(failed)} of {len(ours)} jobs failed (see train.log there): {', '.join(failed)}", 1))
