"""What every command shares: where the configs are, and how a run's failure is told.

A mistake that the user can mend ends in one sentence on stderr and exit status 2; its traceback goes to the run's log.
Anything else is a bug: status 1, with the traceback.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solder_vae.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = Path(__file__).resolve().parent
#: The configs: inside the package when installed from a wheel, at the top of a checkout otherwise.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

log = logging.getLogger("solder_vae")
traceback_log = logging.getLogger("solder_vae.traceback")  # goes to the run's log file alone


def hydra_main(config_name: str, job: Callable[[DictConfig, Path], Any]) -> None:
    """Compose a config from the command line, run ``job(config, run directory)``, and exit.

    With ``-m`` the job runs once for each combination; a failing one leaves its traceback in its own log and the
    others go on.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own account of an error and exits

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
    @functools.wraps(job)
    def run(config: DictConfig) -> Any:
        directory = Path(HydraConfig.get().runtime.output_dir)
        try:
            return job(config, directory)
        except Exception as error:
            traceback_log.exception("the run failed")
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                log_file = directory / f"{config_name}.log"
                log.error("job %s failed: %s (traceback in %s)", HydraConfig.get().job.num, error, log_file)
            elif isinstance(error, UserError) and not wants_traceback:
                sys.exit(fail(str(error), 2))
            raise

    try:
        run()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        sys.exit(fail(readable(error), 2))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted.", 130))


def fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def readable(error: Exception) -> str:
    """The error's message; Hydra's and OmegaConf's without their search paths, type names and hints to developers."""
    if isinstance(error, UserError):
        return str(error)
    technical = (
        "Config search path",
        "full_key:",
        "object_type=",
        "provider=",
        "reference_type=",
        "Set the environ",
    )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith(technical))
    # Hydra's advice to append an unknown key would silence the error and change nothing.
    return re.sub(r"To append to your config use \+.*", "There is no such option: --help lists all.", text)
