"""``python warm.py DESCRIPTOR``: a server whose forks run Python commands on what is imported already.

To import torch, Lightning, Hydra, Matplotlib, Weights & Biases and the package takes most of a small command's time.
The server does it once. It never computes and has no second thread, so each fork starts as a fresh interpreter does,
but with those modules loaded. Only a command of a copy of the checkout imports its package anew. Processes that a
command starts in its turn (multirun jobs, ranks, pools that spawn) are forks of the server, too. Coverage begins in the
fork, where it is asked for: the lines that run on import are counted by one of the tests' own processes.

:func:`run` asks a server of its own process; :func:`python` is a program for those who want a path to call. Under
pytest-xdist the process that shares out the tests starts one for all, and workers that are its forks, too
(:func:`for_workers`). A fork ends as an interpreter does (threads joined, then ``atexit``), but leaves what is loaded
to the system.
"""

import atexit
import fcntl
import functools
import gc
import importlib
import json
import multiprocessing.spawn
import os
import pickle
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import coverage
from untraced import pause_in_libraries

FOR_ALL = "SOLDER_VAE_WARM"  # names the program of a server that is there already
MOST_FILES = 128  # that a process hands on to one it starts, and their numbers are below that

LIBRARIES = (
    "torch", "torch.nn.functional", "torch.utils.data", "torch.optim.lr_scheduler", "pytorch_lightning",
    "pytorch_lightning.loggers", "pytorch_lightning.callbacks", "torchmetrics", "hydra", "hydra.core.hydra_config",
    "hydra._internal.hydra", "hydra._internal.utils", "hydra._internal.core_plugins.basic_launcher",
    "hydra._internal.core_plugins.basic_sweeper", "omegaconf", "matplotlib.pyplot", "matplotlib.backends.backend_agg",
    "wandb", "wandb.sdk.wandb_run", "wandb.sdk.launch", "wandb.util", "scipy.stats", "scipy.special", "scipy.optimize",
    "scipy.ndimage", "cv2", "albumentations",
    "rich.table", "rich.console", "rich.progress", "yaml", "joblib", "onnx", "onnxscript", "torch.onnx",
    "torch.export", "torch.export._trace", "torch.onnx._internal.exporter._compat",
    "torch.onnx._internal.exporter._torchlib.ops", "torch.onnx._internal.fx.passes.type_promotion",
    "onnxscript.function_libs.torch_lib.ops", "torch.distributed",
    "coverage.collector", "coverage.inorout", "coverage.sqldata",
    "hydra._internal.logging_config", "fsspec.implementations.chained", "requests", "torch.utils.serialization.config",
    "wandb.sdk.artifacts._internal_artifact", "wandb.sdk.launch.inputs.internal",
    "sklearn.covariance", "sklearn.ensemble", "sklearn.linear_model", "sklearn.manifold", "sklearn.metrics",
    "sklearn.model_selection",
)  # fmt: skip


# the server -----------------------------------------------------------------------------------------------------------


def serve(listener: socket.socket) -> dict | None:
    """Fork a process for each request; returns the request in its fork, None when standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that no fork has to be waited for
    while True:
        ready, *_ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return look_after(connection)
        connection.close()


def look_after(connection: socket.socket) -> dict:
    """Fork the command itself, where the request is returned, and tell its number and how it ended.

    It is killed when the one who asked is gone.
    """
    descriptors, received = [], b""
    while not received.endswith(b"\n"):
        data, more, *_ = socket.recv_fds(connection, 1 << 20, MOST_FILES)
        if not data:
            os._exit(1)
        descriptors += more
        received += data
    request = json.loads(received)
    pid = os.fork()
    if pid == 0:
        connection.close()
        if request["group"] != os.getpgrp():
            os.setpgid(0, request["group"])
        held = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, MOST_FILES) for descriptor in descriptors]
        for descriptor in descriptors:
            os.close(descriptor)
        for descriptor, number in zip(held, request["descriptors"], strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        return request
    for descriptor in (0, 1, 2, *descriptors):
        os.close(descriptor)
    with suppress(OSError):
        connection.sendall(f"{pid}\n".encode())
        ended = os.pidfd_open(pid)
        ready, *_ = select.select([ended, connection], [], [])
        if ended not in ready:
            signal.pidfd_send_signal(ended, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request: dict, defaults: dict[str, str]) -> None:
    """Take on a command's environment, folder and arguments, and run it.

    Args:
        request: of :func:`run`.
        defaults: what the imported package put into the environment where it found nothing.
    """
    from wandb.sdk.data_types import _private as wandb_files

    for finalizer in list(weakref.finalize._registry):
        finalizer.atexit = False  # temporary folders of the server, which forks share
    wandb_files.MEDIA_TMP.__init__("wandb-media")  # its own, since it is removed by who logged a table, when that ends
    os.environ.clear()
    os.environ.update({**defaults, **request["environment"]})
    os.chdir(request["cwd"])
    time.tzset()
    tempfile.tempdir = None
    arguments = request["arguments"]
    kind, target, *rest = arguments if arguments[0] in ("-c", "-m") else ("", *arguments)
    if target != WORKER:  # what a worker starts anew is an interpreter
        sys.executable = request["executable"]
        multiprocessing.spawn.set_executable(sys.executable)
        spare_repetition()
    if Path("solder_vae").is_dir() and not Path("solder_vae").samefile(Path(sys.modules["solder_vae"].__file__).parent):
        for name in [name for name in sys.modules if name.partition(".")[0] == "solder_vae"]:
            del sys.modules[name]
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        coverage.process_startup()
        pause_in_libraries()
    if target == "solder_vae.reproduce":
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)  # the sweeps that it starts are those of other tests
    sys.argv[:] = ["-c" if kind == "-c" else target, *rest]
    # As the interpreter does:
    sys.path[0] = request["cwd"] if kind else str(Path(target).parent)
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if kind == "-c":
        exec(target, {"__name__": "__main__"})
    elif kind == "-m":
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(target, run_name="__main__")


def end_after(command: Callable[[], None]) -> NoReturn:
    """Run it and end as the interpreter does, but do not take apart all that is loaded: that takes 0.2 s."""
    status: object = None
    try:
        command()
    except SystemExit as error:
        status = error.code
    except BaseException as error:
        sys.excepthook(*sys.exc_info())
        status = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            atexit.register(os.kill, os.getpid(), signal.SIGINT)  # the one that is run last
    if not isinstance(status, int | None):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a pipe that nobody reads any more, or one that is closed
            stream.flush()
    os._exit(int(status or 0) & 0xFF)


def import_package() -> dict[str, str]:
    """All rooms of the package, but not the command files, which are run; what that put into the environment."""
    before = dict(os.environ)
    import solder_vae

    for room in pkgutil.iter_modules(solder_vae.__path__, "solder_vae."):
        if room.ispkg:
            importlib.import_module(room.name)
            for module in pkgutil.walk_packages(sys.modules[room.name].__path__, f"{room.name}."):
                if not module.name.endswith(".__main__"):
                    importlib.import_module(module.name)
    return {name: value for name, value in os.environ.items() if name not in before}


def prepare() -> None:
    """Look at all that is installed, and read the configs, once for all forks."""
    import parsed_once  # not before: it imports Hydra
    import wandb
    from pytorch_lightning.utilities import imports

    parsed_once.prepare()
    compose()
    for requirement in vars(imports).values():
        if isinstance(requirement, imports.RequirementCache):
            bool(requirement)  # reads what is installed, and remembers it
    installed = list(wandb.util.working_set())
    wandb.util.working_set = lambda: iter(installed)


def spare_repetition() -> None:
    """Leave out of a command what renders the same in each, or looks at all that is imported."""
    from solder_vae.inspection.onnx import parity

    parity.parity_images = rendered_once(parity.parity_images)
    coverage.collector.short_stack = lambda: ""  # who started the measurement, for coverage's own errors
    coverage.inorout.InOrOut.find_possibly_unexecuted_files = lambda self: ()  # the tests' processes name them all


def rendered_once(render: Callable[[int], list]) -> Callable[[int], list]:
    """The joints that exports are compared on, 200 of them, which the first leaves beside the program that it ran."""

    def images(count: int) -> list:
        stored = Path(sys.executable).with_name(f"{count}.pickle")
        if not stored.exists():
            partial = stored.with_suffix(f".{os.getpid()}")
            partial.write_bytes(pickle.dumps(render(count)))
            partial.replace(stored)
        return pickle.loads(stored.read_bytes())

    return images


def compose() -> None:
    """Compose each command's config, which fills more of the grammar's tables."""
    import hydra
    from commands import TINY

    from solder_vae.training import schema
    from solder_vae.utils.cli import CONF

    schema.register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for name in ("train", "audit", "reproduce"):
            hydra.compose(name, ["seed=1", "data.image_size=16", "hydra.run.dir='a,b'"], return_hydra_config=True)
        hydra.compose("train", [*TINY, "model=cae", "score=recon", "pictures=false", "hydra.run.dir=a/b-1_c.0"])


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests: they close standard input
    listener = socket.socket(fileno=int(sys.argv[1]))
    absent = ("pandas", "pyarrow")  # scikit-learn imports them where they are installed, and one starts a thread
    sys.modules.update(dict.fromkeys(absent))
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in absent:
        del sys.modules[name]
    from hydra.core.plugins import Plugins

    Plugins.instance()  # looks for them in all that is installed
    defaults = import_package()
    prepare()
    tasks = list(Path("/proc/self/task").iterdir())
    assert len(tasks) == 1, f"a library started {len(tasks) - 1} threads, which forks would lack"
    gc.collect()
    gc.freeze()  # no fork copies them to look for garbage
    request = serve(listener)
    if request is not None:
        if not request.get("ignored"):  # as whoever starts an interpreter can have it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        end_after(lambda: become(request, defaults))


# those who ask it -----------------------------------------------------------------------------------------------------

WORKER = "import sys;exec(eval(sys.stdin.readline()))"  # of pytest-xdist, as execnet starts it

# What the server runs: runs with a fault, commands, what submitit, joblib and multiprocessing start for them, workers.
UNDERSTOOD = (
    str(Path(__file__).with_name("faulty.py")),
    "-m solder_vae.",
    "-m benchmarks.",
    "-m submitit.core._submit",
    "-m joblib.externals.loky.backend.popen_loky_posix",
    "-c from multiprocessing.spawn import spawn_main;",
    f"-c {WORKER}",
)

# A program to call in place of Python's: what is understood is run by the server, anything else by Python itself.
PROGRAM = """\
#!{python} -IS
import json, os, signal, socket, sys
arguments = sys.argv[2:] if sys.argv[1:2] == ["-u"] else sys.argv[1:]
if not " ".join(arguments[:2]).startswith({understood!r}):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
inherited = [file for file in range({most}) if os.path.exists(f"/proc/self/fd/{{file}}") and os.get_inheritable(file)]
request = {{
    "arguments": arguments, "cwd": os.getcwd(), "environment": dict(os.environ), "executable": {program!r},
    "group": os.getpgrp(), "descriptors": inherited, "ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
}}
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    socket.send_fds(connection, [b" "], inherited)
    connection.sendall(json.dumps(request).encode() + b"\\n")
    for number in set(inherited) - {{0, 1, 2}}:
        os.close(number)
    with connection.makefile() as answers:
        pid = int(answers.readline())
        def hand_on(number, _):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # it has just ended
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, hand_on)
        status = int(answers.readline())
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)  # at once: a late signal must not count as its end
"""


@functools.cache
def python() -> Path:
    """A program that stands for Python's; the first call starts the server, unless there is one for all."""
    if FOR_ALL in os.environ:
        return Path(os.environ[FOR_ALL])
    folder = tempfile.TemporaryDirectory(prefix="warm")
    address, program = Path(folder.name, "socket"), Path(folder.name, "python")
    program.write_text(
        PROGRAM.format(
            python=sys.executable, program=str(program), address=str(address), understood=UNDERSTOOD, most=MOST_FILES
        )
    )
    program.chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(16)
        command = [sys.executable, __file__, str(listener.fileno())]
        server = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stdin=subprocess.PIPE)

    @atexit.register
    def stop() -> None:
        server.stdin.close()
        server.wait(timeout=60)
        folder.cleanup()

    return program


def for_workers(workers: list[str], anew: int) -> list[str]:
    """Start the server for this process and all that it starts.

    Args:
        workers: of pytest-xdist, as execnet is told of them.
        anew: so many of them are interpreters that start anew.

    Returns:
        The same, the others forks of the server.
    """
    os.environ[FOR_ALL] = str(python())
    return [*workers[:anew], *[f"{worker}//python={python()}" for worker in workers[anew:]]]


@contextmanager
def spawning() -> Iterator[None]:
    """Within it, what multiprocessing spawns is a fork of the server."""
    before = multiprocessing.spawn.get_executable()
    multiprocessing.spawn.set_executable(python())
    try:
        yield
    finally:
        multiprocessing.spawn.set_executable(before)


def run(
    arguments: list[str], cwd: Path, environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """What ``subprocess.run([sys.executable, *arguments], ...)`` does and returns, output captured as text.

    Args:
        arguments: ``-m``, a module and its arguments, or a script's path and its arguments.
        cwd: the folder to run in.
        environment: all of it; what libraries read while they are imported must be as in this process.
        timeout: in seconds.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    program = python()
    request = {
        "arguments": [str(argument) for argument in arguments], "cwd": str(cwd), "environment": environment,
        "executable": str(program), "group": os.getpgrp(), "descriptors": [0, 1, 2],
    }  # fmt: skip
    with (
        tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, Path(os.devnull).open() as nothing,
        socket.socket(socket.AF_UNIX) as connection,
    ):  # fmt: skip
        connection.connect(str(program.with_name("socket")))
        socket.send_fds(connection, [b" "], [nothing.fileno(), out.fileno(), err.fileno()])
        connection.sendall(json.dumps(request).encode() + b"\n")
        connection.settimeout(600)  # the first one waits for the imports
        with connection.makefile() as answers:
            pid = int(answers.readline())
            connection.settimeout(timeout)
            try:
                status = int(answers.readline())
            except TimeoutError as error:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout) from error
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, status, out.read(), err.read())


if __name__ == "__main__":
    main()
