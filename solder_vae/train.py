"""``python -m solder_vae.train``: train, calibrate the threshold, test, log, write the run's artefacts.

torch and Lightning are imported by the job, not here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from solder_vae.utils.cli import hydra_main

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig, directory: Path) -> float:
    """Run one training; the value returned is the best validation loss, for sweepers that minimise it."""
    from solder_vae.training.finished import finished
    from solder_vae.utils.files import file_lock

    # Processes that an interruption left behind may still be at work on the same run: wait for them.
    with file_lock(directory / "run"):
        if config.skip_finished and (loss := finished(config, directory)) is not None:
            logging.getLogger("solder_vae").info("finished already: %s", directory)
            return loss

        from solder_vae.training.run import run

        return run(config, directory)


def main() -> None:
    hydra_main("train", job)


if __name__ == "__main__":
    main()
