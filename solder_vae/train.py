"""``python -m solder_vae.train``: train, calibrate the threshold, test, log, write the run's artefacts.

torch and Lightning are imported by the job, not here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from solder_vae.training.schema import register
from solder_vae.utils.cli import hydra_main

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig, directory: Path) -> float:
    """Do one run; returns the best validation loss, or the criterion, for sweepers."""
    from solder_vae.training.finished import finished
    from solder_vae.training.first_checks import check_data, check_first
    from solder_vae.training.shared_training import shared_training
    from solder_vae.utils.files import file_lock

    # Processes that an interruption left behind may still be at work on the same run: wait for them.
    with file_lock(directory / "run"):
        if config.skip_finished and (loss := finished(config, directory)) is not None:
            logging.getLogger("solder_vae").info("finished already: %s", directory)
            return loss

        # Mistakes are told at once, before torch is imported.
        check_first(config)
        check_data(config.data)
        logging.getLogger("solder_vae").info("%s", beginning(config, directory))

        with shared_training(config, directory) as trained:
            from solder_vae.training.run import run

            return run(config, directory, trained)


def beginning(config: DictConfig, directory: Path) -> str:
    """What a run is about to do, said before torch is imported, which takes seconds."""
    from hydra.core.hydra_config import HydraConfig

    from solder_vae.training.next_steps import shortest

    name = HydraConfig.get().runtime.choices["model"]
    weighed = f" (beta={config.beta:g})" if config.beta is not None else ""
    what = f"Training {name}{weighed}" if "lr" in config.model else f"Testing {name}, which needs no training,"
    where = "the embedded data set" if config.data.get("root") is None else config.data.root
    return f"{what} on {where}.\nscore={config.score.name} decides; results go to {shortest(directory)}"


def main() -> None:
    register()
    hydra_main("train", job)


if __name__ == "__main__":
    main()
