"""Data-parallel training: one process (*rank*) for each device, started and watched by the run's own process.

The run's process does not train. It has the folder, the loggers and, afterwards, the test; rank 0 sends it what is
logged. So it can end all ranks as soon as one of them fails, even if the others are waiting. Nothing of a failed group
remains in this process, so the next job of a sweep starts clean.

What the ranks compute is in :mod:`solder_vae.utils.distributed`.
"""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy
from torch import distributed

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.models.steps import TrainingModule
from solder_vae.training.checks import on_gpu, rank_count
from solder_vae.training.trainer import fit, quiet_lightning
from solder_vae.utils.cli import traceback_log
from solder_vae.utils.errors import UserError
from solder_vae.utils.processes import end_with_parent, ignore_interrupts, share_of_threads

GRACE = 10  # seconds for the other ranks to tell what they saw of a failure


def fit_on_ranks(
    module: TrainingModule, data: SolderDataModule, config: DictConfig, directory: Path, loggers: Sequence[Logger]
) -> str:
    """What :func:`solder_vae.training.trainer.fit` does, by :func:`rank_count` processes that share each batch.

    The processes share the threads that this one would use.

    Raises:
        UserError: as there, or a process was killed; the others are ended.
    """
    count = rank_count(config)
    spawn = multiprocessing.get_context("spawn")
    ranks: dict[Connection, Any] = {}
    with tempfile.TemporaryDirectory(prefix="solder_vae_") as folder:
        # By a file: as an argument, the tensors would be moved to memory that all ranks share, and each rank would
        # have to read it, after its imports, before the next one starts.
        run = Path(folder) / "run"
        run.write_bytes(pickle.dumps((module, data, config, directory)))
        try:
            for rank in range(count):
                receiver, sender = spawn.Pipe(duplex=False)
                rank_of_run = (rank, count, share_of_threads(count), Path(folder) / "store", run, sender)
                ranks[receiver] = process = spawn.Process(target=train_as_rank, args=rank_of_run)
                with ignore_interrupts():
                    process.start()
                sender.close()  # the rank's own end is the only one: it closes with the rank
            return listen(dict(ranks), loggers)
        finally:
            for process in ranks.values():
                if process.pid is not None:
                    process.kill()
                    process.join()


def listen(ranks: dict[Connection, Any], loggers: Sequence[Logger]) -> str:
    """Pass on what the ranks log until all have ended; the path of the best checkpoint.

    Raises:
        UserError: a rank raised one, or was killed.
        RuntimeError: a rank failed otherwise.
    """
    count, best, errors, killed = len(ranks), "", [], []
    deadline = None
    while ranks and (deadline is None or time.monotonic() < deadline):
        for pipe in wait(list(ranks), None if deadline is None else max(0.0, deadline - time.monotonic())):
            assert isinstance(pipe, Connection)
            try:
                kind, content = pipe.recv()
            except (EOFError, OSError):  # the rank has ended, perhaps in the middle of a message
                process = ranks.pop(pipe)
                process.join()
                if process.exitcode < 0:
                    killed.append(signal.Signals(-process.exitcode).name)
                if process.exitcode:
                    deadline = deadline or time.monotonic() + GRACE
                continue
            if kind == "record":
                logging.getLogger(content.name).handle(content)
            elif kind == "metrics":
                for logger in loggers:
                    logger.log_metrics(*content)
                    logger.save()
            elif kind == "best":
                best = content
            elif kind == "mistake":
                raise UserError(content)
            else:
                errors.append(content)
    for error in errors:
        traceback_log.error("a training process failed\n%s", error)
    if killed:
        raise UserError(
            f"One of the {count} training processes was killed ({killed[0]}), most likely for want of memory: "
            "go on from the run's last.ckpt if it is there (resume=PATH), with fewer trainer.devices."
        )
    if errors or not best:
        raise RuntimeError(f"a training process failed\n{errors[0] if errors else ''}")
    return best


# in a rank's own process ----------------------------------------------------------------------------------------------


class Messages:
    """A rank's end of the pipe to the run's process."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.lock = threading.Lock()

    def send(self, kind: str, content: Any) -> None:
        with self.lock:
            self.pipe.send((kind, content))

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Makes it the queue that ``logging.handlers.QueueHandler`` writes to."""
        self.send("record", record)


class Relay(Logger):
    """Sends the metrics of rank 0 to the run's loggers; those of the other ranks are the same and are dropped."""

    def __init__(self, messages: Messages | None) -> None:
        super().__init__()
        self.messages = messages

    @property
    def name(self) -> str:
        return "relay"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.messages is not None:
            self.messages.send("metrics", (dict(metrics), step))

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """The run's process knows its config."""


def train_as_rank(rank: int, count: int, threads: int, store: Path, run: Path, pipe: Connection) -> None:
    """Train as one of the run's processes.

    Args:
        rank: of this one, from 0.
        count: of the ranks.
        threads: of this process.
        store: a file by which the ranks find each other.
        run: a file with the pickled module, data, config and directory of the run.
        pipe: to the run's process.
    """
    end_with_parent()
    torch.set_num_threads(threads)
    messages = Messages(pipe)
    relay_logging(rank, messages)
    try:
        module, data, config, directory = pickle.loads(run.read_bytes())
        gpu = on_gpu(config)
        if gpu:
            torch.cuda.set_device(rank)
        os.environ["LOCAL_RANK"] = str(rank)  # tells Lightning its number, and that the processes are started
        backend = "nccl" if gpu else "gloo"
        distributed.init_process_group(backend, init_method=store.as_uri(), rank=rank, world_size=count)
        best = fit(
            module,
            data,
            config,
            directory,
            [Relay(messages if rank == 0 else None)],
            devices=count,
            # Buffers need no copying: batch norm's statistics and the reference gradients come out equal on all ranks.
            strategy=DDPStrategy(cluster_environment=LightningEnvironment(), forward_sync_buffers=False),
        )
        distributed.destroy_process_group()
        if rank == 0:
            messages.send("best", best)
    except UserError as error:
        messages.send("mistake", str(error))
        raise SystemExit(1) from None
    except Exception:
        messages.send("error", traceback.format_exc())
        raise SystemExit(1) from None


def relay_logging(rank: int, messages: Messages) -> None:
    """Let rank 0 log as a single process would, and the others only warnings and errors."""
    quiet_lightning()
    root = logging.getLogger()
    root.addHandler(logging.handlers.QueueHandler(messages))  # type: ignore[arg-type]  # it only puts
    root.setLevel(logging.ERROR if rank else logging.INFO)
    if rank:
        warnings.simplefilter("ignore")
