"""``python -m solder_vae.reproduce``: run what the paper ran and put the results beside the paper's own.

The runs are ordinary multiruns of ``solder_vae.train`` below ``out``. After an interruption, the same command goes on
where it stopped. torch is imported by the job, not here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from solder_vae.studies.paper.reproduce import (
    check_values,
    data_of_seed,
    data_sentence,
    machine,
    processes,
    report,
    training_overrides,
    versions,
)
from solder_vae.training.schema import register
from solder_vae.utils.cli import hydra_main
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import duration
from solder_vae.utils.threads import busy

if TYPE_CHECKING:
    from omegaconf import DictConfig


log = logging.getLogger("solder_vae")


def job(config: DictConfig, directory: Path) -> None:
    """Train what is missing, then write the report.

    Raises:
        UserError: an option does not fit, or runs failed: the report then says which, and has the others.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    choices: dict[str, str] = dict(hydra.runtime.choices)
    overrides = training_overrides(hydra.overrides.task)
    check_values(config)

    from solder_vae.studies.paper.plan import sweeps
    from solder_vae.studies.paper.runs import SweepFolder, read_runs, run_sweeps
    from solder_vae.training.trainer import quiet_lightning

    quiet_lightning()
    started = time.time()
    data = data_of_seed(config, 0)
    jobs = processes(config)
    parts = sweeps(config.seeds, config.further, config.heads)
    trainings = [training for part in parts for training in part.trainings]
    folder = directory / "runs" / f"{choices['scale']}_{choices['data']}"
    site = SweepFolder(folder, choices["experiment"], overrides, directory / "trainings.log")
    with busy("Looking for results"):
        missing = site.without_result(trainings)
    log.info("%d runs, %d of them with a result already", len(trainings), len(trainings) - len(missing))
    run_sweeps(parts, site, jobs)
    trained = time.time()
    runs = read_runs(trainings, site)
    if not runs.finished:
        raise UserError(f"All {len(trainings)} runs failed; the first:\n{runs.failed[0].traceback}")
    facts = {
        "Command": " ".join(["python -m solder_vae.reproduce", *hydra.overrides.task]),
        "Data": data_sentence(config, choices["data"], data),
        "Seeds": ", ".join(map(str, range(config.seeds))),
        "Runs": f"{len(runs.finished)} finished ({len(trainings) - len(missing)} of them before this call), "
        f"{len(runs.failed)} failed",
        "Side by side": jobs,
        "Wall time of the runs in this call": duration(trained - started),
        "Versions": versions(),
        "Machine": machine(),
    }
    report(runs, config, data, jobs, directory, facts, started)
    if runs.failed:
        raise UserError(
            f"{len(runs.failed)} of {len(trainings)} runs failed ({runs.failed[0].training} is the first): their "
            f"tracebacks are in {directory / 'report.html'}, and the same command tries them again."
        )


def main() -> None:
    register()
    hydra_main("reproduce", job)


if __name__ == "__main__":
    main()
