"""Whole commands on the device, as a user runs them, one by one and side by side."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import ALPHAS, Found, Part, gpu_query
from solder_vae.studies.paper.plan import Training, sweeps

TINY: dict[str, Any] = {
    "train": 48, "val": 24, "test_normal": 9, "test_abnormal": 9, "image_size": 16, "render_workers": 1,
}  # fmt: skip
QUIET = ("pictures=false", "logger.mode=disabled")
MIXED = "bf16-mixed"


def render(part: Part) -> None:
    """The embedded data set of two seeds, into the cache that the trainings read."""
    from solder_vae.data.synthetic.source import SyntheticSource  # brings torch

    seconds = {}
    for seed in (0, 1):
        if part.quick and seed:
            break
        started = time.monotonic()
        SyntheticSource(seed=seed, **(TINY if part.quick else {})).tables()
        seconds[f"seed_{seed}_s"] = time.monotonic() - started
        print(f"seed {seed}: rendered in {seconds[f'seed_{seed}_s']:.1f} s", flush=True)
        part.add("render", seconds)


def train_command(part: Part, folder: Path, *overrides: str) -> list[str]:
    tiny = [f"data.{key}={value}" for key, value in {**TINY, "batch_size": 16}.items()] if part.quick else []
    place = (f"trainer.accelerator={'gpu' if part.device == 'cuda' else 'cpu'}", f"hydra.run.dir={folder}")
    return [sys.executable, "-m", "solder_vae.train", *QUIET, *tiny, *place, *overrides]


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def finish(processes: dict[str, subprocess.Popen[bytes]], part: Part) -> None:
    """Wait for commands; say what those that failed printed last.

    Raises:
        SystemExit: one failed.
    """
    failed = False
    for name, process in processes.items():
        if process.wait():
            failed = True
            print(f"{name} failed:\n{(part.work / f'{name}.log').read_text()[-1500:]}", flush=True)
    if failed:
        sys.exit(1)


def epoch_seconds(folder: Path) -> list[float]:
    """Of the epochs that a run has logged so far."""
    log = folder / "train.log"
    text = log.read_text() if log.exists() else ""
    return [float(seconds) for seconds in re.findall(r"epoch +\d+/\d+ .*  ([\d.]+) s(?:,.*)?$", text, re.MULTILINE)]


def commands(part: Part) -> None:
    """Trainings and inspections as a user runs them, on the device."""
    epochs = f"trainer.max_epochs={part.size('epochs')}"
    kinds = {
        "once": ["score=gradcon"],
        "again": ["score=gradcon"],
        "mixed": ["score=gradcon", f"trainer.precision={MIXED}"],
    }
    trainings = {name: train_command(part, part.work / name, epochs, *kind) for name, kind in kinds.items()}
    finish({"once": start(trainings.pop("once"), part.work / "once.log")}, part)
    found: Found = {"epoch_s_alone": epoch_seconds(part.work / "once")}
    print(f"one training by itself, with the constraint: {found['epoch_s_alone']} s an epoch", flush=True)
    part.add("commands", found)
    joints = part.work / "joints"
    others = {name: start(command, part.work / f"{name}.log") for name, command in trainings.items()}
    rendering = [sys.executable, "-m", "solder_vae.data.synthetic", "--out", str(joints), "-n", "20"]
    others["joints"] = start(rendering, part.work / "joints.log")
    finish(others, part)
    inspections = {
        f"predict_{device}": start(
            [
                sys.executable, "-m", "solder_vae.predict", f"checkpoint={part.work / 'once' / 'best.ckpt'}",
                f"images={joints / 'images'}", f"out={part.work / f'predict_{device}'}", f"device={device}",
            ],
            part.work / f"predict_{device}.log",
        )
        for device in {"cpu", part.device}
    }  # fmt: skip
    finish(inspections, part)
    once, again, mixed = (
        numbers(json.loads((part.work / name / "metrics.json").read_text())) for name in ("once", "again", "mixed")
    )
    scores = [predicted_scores(part.work / f"predict_{device}") for device in ("cpu", part.device)]
    found |= {
        "same_training_twice_equal": once == again,
        "same_training_twice_largest_difference": largest_difference(once, again),
        "val_loss": {
            "once": once["val/loss"],
            "again": again["val/loss"],
            MIXED: mixed["val/loss"],
        },
        "auroc": {name: one["test/gradcon/auroc"] for name, one in (("once", once), (MIXED, mixed))},
        "predict_largest_difference_from_cpu": max(abs(a - b) for a, b in zip(*scores, strict=True)),
        "predict_largest_score": max(scores[0]),
    }
    for name, value in found.items():
        print(f"{name:42} {value}")
    part.add("commands", found)


def numbers(metrics: Found, prefix: str = "") -> dict[str, float]:
    """The numbers of a nested ``metrics.json``, by their path."""
    found = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + key] = float(value)
    return found


def largest_difference(one: dict[str, float], other: dict[str, float]) -> float:
    """Relative to the larger of two numbers; infinite where one lacks what the other has."""
    if one.keys() != other.keys():
        return float("inf")
    return max(abs(one[key] - other[key]) / max(abs(one[key]), abs(other[key]), 1e-12) for key in one)


def predicted_scores(folder: Path) -> list[float]:
    return [row["score"] for row in json.loads((folder / "predictions.json").read_text())["predictions"]]


def processes(part: Part) -> None:
    """As many ordinary models, each in a process of its own, on the one device: the same bare steps."""
    part.work = part.work / f"processes{part.count}"
    part.work.mkdir()
    command = [sys.executable, "-m", "benchmarks.gpu", "worker", "--out", str(part.out), "--work", str(part.work)]
    quick = ["--quick"] if part.quick else []
    running = [
        start([*command, *quick, "--count", str(number)], part.work / f"{number}.log") for number in range(part.count)
    ]
    memory = None
    for alpha in ALPHAS:
        await_files(part, running, f"ready-{alpha:g}-*")
        memory = memory or gpu_query("memory.used")
        (part.work / f"go-{alpha:g}").touch()
        rates = [float(path.read_text()) for path in await_files(part, running, f"rate-{alpha:g}-*")]
        found = {"trainings_per_hour": sum(rates), "processes": part.count, "memory": memory}
        print(
            f"{part.count} processes, alpha = {alpha:g}: {sum(rates):.1f} trainings an hour, {memory} used", flush=True
        )
        part.add("processes", {f"{part.count}, alpha = {alpha:g}": found})
    for process in running:
        process.wait()


def await_files(part: Part, running: Sequence[subprocess.Popen[bytes]], pattern: str) -> list[Path]:
    """The files of all processes, once they are there.

    Raises:
        SystemExit: a process failed.
    """
    while len(found := list(part.work.glob(pattern))) < part.count:
        if failed := [number for number, process in enumerate(running) if process.poll()]:
            for process in running:
                process.kill()
            text = (part.work / f"{failed[0]}.log").read_text()[-1500:]
            sys.exit(f"{len(failed)} of {part.count} processes failed; one of them:\n{text}")
        time.sleep(0.05)
    return found


def runs(part: Part) -> None:
    """Trainings of ``python -m solder_vae.reproduce scale=paper``, in full, side by side, as far as the time goes."""
    trainings = list(islice(paper_trainings(2), part.size("side_by_side")))
    epochs = part.size("paper_epochs")
    total = sum(len(sweep.trainings) for sweep in sweeps(50))
    started = time.monotonic()
    running = {}
    for training in trainings:
        folder = part.work / "runs" / training.folder
        seed = ["data.seed=0"] if part.quick else []
        command = train_command(part, folder, "experiment=paper", *training.overrides, *seed)
        folder.mkdir(parents=True)
        running[training] = start([*command, f"trainer.max_epochs={epochs}"], folder / "output.log")
    ended: dict[Training, float] = {}
    failed: list[Training] = []
    told, use = 0.0, []
    while len(ended) + len(failed) < len(trainings) and time.time() < part.until:
        time.sleep(0.2)
        for training, process in running.items():
            if training not in ended and training not in failed and (status := process.poll()) is not None:
                if status:
                    failed.append(training)
                    print(f"{training} FAILED:\n{log_end(part, training)}", flush=True)
                else:
                    ended[training] = time.monotonic() - started
        if (elapsed := time.monotonic() - started) - told > (5 if part.quick else 15):
            told = elapsed
            use.append(gpu_query("utilization.gpu,memory.used"))
            done = [len(epoch_seconds(part.work / "runs" / training.folder)) for training in trainings]
            print(f"{elapsed:4.0f} s: {sum(done)} epochs, {len(ended)} runs at their end; GPU {use[-1]}", flush=True)
    elapsed = time.monotonic() - started
    for process in running.values():
        process.kill()
    logged = {training: epoch_seconds(part.work / "runs" / training.folder) for training in trainings}
    every = sum(map(len, logged.values()))
    kinds = {
        f"{name} the constraint": statistics.mean(seconds)
        for name, wanted in (("without", False), ("with", True))
        if (seconds := [s for training, found in logged.items() if training.constraint == wanted for s in found])
    }
    rate = 3600 * every / epochs / elapsed
    epochs_alone = sum(3600 / epochs / statistics.mean(seconds) for seconds in logged.values() if any(seconds))
    found: Found = {
        "side_by_side": len(trainings),
        "elapsed_s": elapsed,
        "epochs_of_a_run": epochs,
        "epochs_done": every,
        "runs_at_their_end": {str(training): seconds for training, seconds in ended.items()},
        "runs_failed": [str(training) for training in failed],
        "epoch_s": kinds,
        "runs_per_hour": rate,
        "runs_per_hour_by_epochs_alone": epochs_alone,
        "gpu_use": use,
        "hours_for_scale_paper": total / rate if rate else None,
        "trainings_of_scale_paper": total,
    }
    part.add("runs", found)
    print(
        f"{len(trainings)} runs of {epochs} epochs side by side for {elapsed:.0f} s: {every} epochs, {len(ended)} ended"
    )
    print("; ".join(f"an epoch {name}: {seconds:.2f} s" for name, seconds in kinds.items()))
    if rate:
        print(f"{rate:.1f} runs an hour, their start counted in: {total / rate:.1f} hours for {total} runs")
        print(f"{epochs_alone:.1f} runs an hour by their epochs alone")
    if failed:
        sys.exit(1)


def paper_trainings(seeds: int) -> Iterator[Training]:
    """Those of ``scale=paper``, seed after seed."""
    every = [training for sweep in sweeps(seeds) for training in sweep.trainings]
    return iter(sorted(every, key=lambda training: training.seed))


def log_end(part: Part, training: Training) -> str:
    return (part.work / "runs" / training.folder / "output.log").read_text()[-1500:]
