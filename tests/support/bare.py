"""``python bare.py FOLDER``: what each of many commands and modules imports, told by forks of one bare interpreter.

It has imported the libraries that all of them may, so that a fork takes little more than the package's own modules.
Each line of standard input is JSON: a command's arguments after ``python``, or one module's name. A command runs in
FOLDER. Each answer is a line: the exit status, standard error, and which of :data:`HEAVY` were imported.
"""

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

HEAVY = ("torch", "pytorch_lightning", "albumentations")
LIBRARIES = (
    "numpy", "cv2", "yaml", "omegaconf", "hydra", "hydra._internal.hydra", "hydra._internal.utils",
    "hydra.core.override_parser.overrides_parser", "rich.table", "rich.console", "rich.progress",
    "matplotlib.pyplot", "scipy.stats", "scipy.optimize", "scipy.ndimage", "sklearn.manifold", "sklearn.metrics",
)  # fmt: skip


def answer(request: str | list[str], folder: str) -> tuple[int, str, list[str]]:
    """Carry it out in a fork."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as imported:
        if os.fork() == 0:
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.chdir(folder)
            status: object = 0
            try:
                if isinstance(request, str):
                    importlib.import_module(request)
                else:
                    sys.argv[:] = request[1:]
                    sys.path[0] = folder
                    runpy.run_module(request[1], run_name="__main__", alter_sys=True)
            except SystemExit as error:
                status = error.code
            except BaseException:
                sys.excepthook(*sys.exc_info())
                status = 1
            sys.stderr.flush()
            json.dump([name for name in HEAVY if name in sys.modules], imported)
            imported.flush()
            os._exit(int(status or 0))  # type: ignore[call-overload]
        _, status = os.wait()
        for file in (said, imported):
            file.seek(0)
        return os.waitstatus_to_exitcode(status), said.read(), json.loads(imported.read() or "null")


def answers(requests: list[str | list[str]], folder: Path) -> list[tuple[int, str, list[str]]]:
    """One for each request, see above."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], input=lines, capture_output=True, text=True, timeout=1200, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    import parsed_once  # not before: it imports Hydra
    from hydra.core.plugins import Plugins

    parsed_once.prepare()
    Plugins.instance()  # looks for them in all that is installed
    gc.freeze()  # no fork copies them to look for garbage
    assert not {*HEAVY, "solder_vae"} & set(sys.modules)
    for line in sys.stdin.readlines():
        print(json.dumps(answer(json.loads(line), sys.argv[1])), flush=True)
