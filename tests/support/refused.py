"""``python refused.py``: each option of a run with wrong values, before torch is imported, in one process.

Each line of the output is JSON: the run, the option, and what is said of the first wrong value that is refused.
"""

import json
import sys

import bare
from documented import compose_command
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solder_vae.models.options import OF_OPTIMIZATION
from solder_vae.training.first_checks import OF_EARLY_STOPPING, OF_TRAINER, check_data, check_first
from solder_vae.utils.errors import UserError

#: Every option of a run is in one of these.
RUNS = (
    ["score=gradcon"],
    [
        "model=vae",
        "score=recon",
        "optimizer=adamw",
        "scheduler=plateau",
        "callbacks=early_stopping",
        "threshold=fixed",
        "threshold.value=1",
    ],
    ["model=cae", "score=blend", "threshold=sigma"],
    ["model=annealed_vae", "score=knn"],
    ["model=beta_tcvae", "score=classifier"],
    ["model=backbone", "score=combined", "threshold=false_call_rate", "data=folder", "data.root=."],
)
WRONG = (-1.5, "?!", [[]], {"no": "such"})

#: The user's own words, what conf/ fills in, and a list of what albumentations alone knows.
OTHERS = (
    "hydra.", "logger.project", "model.score", "score.name", "data.root", "data.transforms", "data.cache_dir",
    "callbacks.early_stopping.monitor",
)  # fmt: skip


class TooLate(BaseException):
    """torch is about to be imported."""


class NoTorch:
    """Finds no module, but tells when torch is looked for."""

    def find_spec(self, name, path=None, target=None):
        if name in bare.HEAVY:
            raise TooLate(name)


def options(config, prefix=""):
    """The dotted names of a config's values."""
    for key in config:
        name = f"{prefix}{key}"
        if name.startswith(OTHERS) or str(key).startswith("_"):
            continue
        if OmegaConf.is_dict(node := config._get_node(key)) and len(node):
            yield from options(node, f"{name}.")
        else:
            yield name


def added(config):
    """What ``+key=value`` can add to the groups that name classes of torch and Lightning."""
    yield from (f"trainer.{key}" for key in OF_TRAINER)
    for part in ("model.optimizer", "model.scheduler", "callbacks.early_stopping"):
        target = (OmegaConf.select(config, part) or {}).get("_target_")
        rules = OF_EARLY_STOPPING if part.startswith("callbacks") else OF_OPTIMIZATION.get(target, {})
        yield from (f"{part}.{key}" for key in [*rules, "unknown"] if target)


def refused(config, option):
    """What is said of the option's first wrong value that is refused; None if all are let through."""
    for value in WRONG:
        broken = config.copy()
        try:
            OmegaConf.update(broken, option, value, force_add=True)
            check_first(broken)
            if option.startswith("data."):
                check_data(broken.data)
        except (UserError, OmegaConfBaseException) as error:
            return str(error)
        except TooLate:
            continue
    return None


if __name__ == "__main__":
    sys.meta_path.insert(0, NoTorch())
    for run in RUNS:
        (config,) = compose_command("solder_vae.train", run)
        del config.hydra  # most of it, which each value would copy and no check reads
        for option in dict.fromkeys((*options(config), *added(config))):
            print(json.dumps([run, option, refused(config, option)]))
