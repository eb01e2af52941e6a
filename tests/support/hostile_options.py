"""``python tests/support/hostile_options.py FIRST COUNT``: tiny runs, each with one option that hardly fits.

The cases are every key and every group with every nasty value, in a fixed order. A case must train or end in
one line that begins with "error: " and status 2; anything else, a traceback included, is told and ends the process, as
does a case of more than ``SECONDS``. Works in the current folder. Prints how many cases ended how.
"""

import contextlib
import faulthandler
import io
import json
import logging
import os
import random
import sys
from collections import Counter

from commands import TINY
from documented import GROUPS, compose_command
from omegaconf import DictConfig, OmegaConf

from solder_vae.train import main

SECONDS = 600  # of a second or two, unless others use the machine
NASTY = (
    "null", "''", "-1", "0", "1", "2", "0.5", "1.5", "nan", "inf", "1e999", "-1e999", "1e-300", "true", "false",
    "[]", "[1,2]", "[[1]]", "[null]", "{a:1}", "abc", "'a b'", "'焊'", "'../x'", "???", "${oc.env:HOME}", "${nope}",
    "${seed}",
)  # fmt: skip
# As nobody means them: a number of processes, and where the data come from and go to.
LEFT_OUT = {"trainer.devices", "data.cache_dir", "data.use_cache"}
BASE = (*TINY, "trainer.max_epochs=1", "score.latent=mean", "logger.mode=disabled", "pictures=false")


def keys(config: DictConfig, prefix: str = "") -> list[str]:
    """The dotted names of all that a config holds, its parts included."""
    found = []
    for name in config:
        key, node = f"{prefix}{name}", config._get_node(name)
        found += [key, *(keys(node, f"{key}.") if OmegaConf.is_dict(node) else ())]
    return found


def cases() -> list[tuple[str, str]]:
    """First every key once, then again with another value, and so on."""
    (config,) = compose_command("solder_vae.train", [])
    names = sorted(name for name in {*keys(config), *GROUPS} - LEFT_OUT if not name.startswith("hydra"))
    chance = random.Random(0)
    values = {name: chance.sample(NASTY, len(NASTY)) for name in names}
    return [(name, values[name][turn]) for turn in range(len(NASTY)) for name in names]


def end_of(arguments: list[str]) -> tuple[object, str]:
    """What the command ends with, and its stderr."""
    os.environ.pop("HYDRA_FULL_ERROR", None)  # the command sets it
    logging.root.handlers.clear()
    status, said = 0, io.StringIO()
    sys.argv = ["train", *arguments]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as error:
            status = error.code or 0
        except BaseException as error:
            status = repr(error)
    return status, said.getvalue()


def run(first: int, count: int) -> Counter:
    ends = Counter()
    for number, (key, value) in list(enumerate(cases()))[first : first + count]:
        base = [text for text in BASE if text.partition("=")[0] != key]
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        status, said = end_of([*base, f"hydra.run.dir=runs/{number}", f"{key}={value}"])
        faulthandler.cancel_dump_traceback_later()
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if status not in (0, 2) or "Traceback" in said or len(errors) != (status == 2):
            sys.exit(f"case {number}, {key}={value}, ended with {status}:\n{said[-2000:]}")
        ends["trained" if status == 0 else "refused"] += 1
    return ends


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
