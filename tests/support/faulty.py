"""``python tests/support/faulty.py FAULT NTH -m solder_vae.train ...``: a run with a fault.

The fault strikes in the run's own process at a place that a test names, so that no test depends on timing: at
the start of the ``NTH`` training step, for ``write-*`` at the ``NTH`` writing of a checkpoint, or for ``row-kill``
between the ``NTH`` epoch's checkpoint and its row in metrics.csv.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PART = 1_000_000  # bytes: of a checkpoint's three million or more; no other file of a run has as many


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in_write() -> None:
    """The kernel kills the process as soon as a file grows beyond a part of a checkpoint."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (PART, PART))


def write_fails() -> None:
    """Writing ends in an OSError in the middle of a file, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (PART, PART))


def frozen() -> None:
    """Nothing can be made or renamed in the run's folder any more."""
    subprocess.run(["chattr", "+i", "run"], check=True)


def data_gone() -> None:
    shutil.rmtree("data")


def kill_child(name: bytes) -> None:
    """As the kernel does when memory runs out: the first of this process's children that was started as ``name``.

    A fork, such as a process that loads images, keeps its parent's command line.
    """
    children = [
        child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
    ]
    named = [child for child in children if name in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(int(named[0]), signal.SIGKILL)


def clock_backwards() -> None:
    """Every look at the clock shows a minute earlier than the one before."""
    import time

    now = time.time()

    def earlier() -> float:
        nonlocal now
        now -= 60
        return now

    time.time = earlier
    time.time_ns = lambda: int(earlier() * 1e9)


def nan_batch() -> None:
    """The next batch of training images holds a value that is not a number; ``spoilt.txt`` tells which images."""
    from solder_vae.data.datamodule import TableDataset

    batch_of = TableDataset.__getitems__

    def spoilt(dataset, items):
        batch = batch_of(dataset, items)
        batch["image"][0, 0, 0, 0] = float("nan")
        Path("spoilt.txt").write_text("\n".join(dataset.table.paths[row] for row in batch["index"]))
        return batch

    TableDataset.__getitems__ = spoilt


FAULTS = {
    "none": lambda: None,
    "kill": killed,
    "row-kill": killed,
    "write-kill": killed_in_write,
    "write-fail": write_fails,
    "freeze": frozen,
    "data-gone": data_gone,
    "worker-kill": lambda: kill_child(Path("/proc/self/cmdline").read_bytes()),
    "wandb-kill": lambda: kill_child(b"wandb-core"),
    "clock": clock_backwards,
    "nan": nan_batch,
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
}


def before(owner: type, name: str, nth: int, fault) -> None:
    """Let ``fault`` strike before the ``nth`` call of a method."""
    method, calls = getattr(owner, name), 0

    def counted(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == nth:
            fault()
        return method(*arguments, **options)

    setattr(owner, name, counted)


def main() -> None:
    _, fault, nth, *arguments = sys.argv
    sys.argv[1:] = arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    import pytorch_lightning as pl
    from pytorch_lightning.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

    from solder_vae import train
    from solder_vae.training import callbacks

    if fault.startswith("write-"):
        before(pl.Trainer, "save_checkpoint", int(nth), FAULTS[fault])
    elif fault == "row-kill":
        before(_LoggerConnector, "update_train_epoch_metrics", int(nth), FAULTS[fault])
    else:
        before(callbacks.StopOnNaN, "on_train_batch_start", int(nth), FAULTS[fault])
    train.main()


if __name__ == "__main__":
    main()
