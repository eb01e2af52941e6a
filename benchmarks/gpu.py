"""The parts of ``benchmarks/gpu.sh``: ``python -m benchmarks.gpu PART``; that script runs them, each with its limit.

Each part prints what it finds and adds it to a JSON file as it goes, so that what was found before its time ran out is
there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

# Lightning asks for deterministic kernels, for which cuBLAS wants this before it is loaded.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from torch import Tensor

from benchmarks import reference as published
from benchmarks.bench import ALPHA, GAMMA, bare_step, peak_megabytes, random_images, trained_model, training_pair
from solder_vae.data.transforms import to_tensor
from solder_vae.models.autoencoder import CAE, VALIDATION
from solder_vae.models.precision import FULL, MIXED
from solder_vae.models.vae import MODELS, BetaVAE
from solder_vae.studies.paper.plan import Training, sweeps
from solder_vae.training.ensemble import Ensemble
from solder_vae.utils.files import atomic_file, file_lock

TRAIN_STEPS, VALIDATION_STEPS = 40, 9  # of an epoch of the embedded data set in batches of 64
EPOCHS = 20  # of the default training
PAPER_EPOCHS = 100
TINY = (
    "data.train=48", "data.val=24", "data.test_normal=9", "data.test_abnormal=9", "data.image_size=16",
    "data.batch_size=16", "data.render_workers=1",
)  # fmt: skip
QUIET = ("pictures=false", "logger.mode=disabled")
SIZES = {  # each, and with `--quick`
    "batch": (64, 8),
    "side": (64, 16),
    "score_batch": (256, 8),
    "steps": (20, 1),
    "blocks": (5, 2),
    "window": (4.0, 0.5),  # seconds
    "epochs": (4, 2),
    "paper_epochs": (PAPER_EPOCHS, 2),
    "side_by_side": (os.cpu_count() or 1, 2),
}
Found = dict[str, Any]


class Part:
    """What every part knows: where it computes, how much, how long, and where its results go."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(os.environ.get("DEVICE", "cuda"))
        self.quick: bool = options.quick
        self.out: Path = options.out
        self.work: Path = options.work
        self.count: int = options.count
        self.until: float = options.until

    def size(self, name: str) -> Any:
        return SIZES[name][self.quick]

    @property
    def accelerator(self) -> str:
        return "gpu" if self.device.type == "cuda" else "cpu"

    def batch(self, count: int | None = None) -> Tensor:
        """Images on the device."""
        return to_tensor(random_images(count or self.size("batch"), self.size("side"))).to(self.device)

    def results(self) -> Found:
        return json.loads(self.out.read_text()) if self.out.exists() else {}

    def add(self, part: str, found: Found) -> None:
        """Put a part's findings beside those that are there."""
        with file_lock(self.out):
            results = self.results()
            results[part] = {**results.get(part, {}), **found}
            with atomic_file(self.out) as temporary:
                temporary.write_text(json.dumps(results, indent=1) + "\n")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Convolutions in TF32 or not; PyTorch's own setting is on."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def deterministic() -> Iterator[None]:
    """As runs train: ``Trainer(deterministic="warn")``."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


# facts and correctness ------------------------------------------------------------------------------------------------


def facts(part: Part) -> None:
    """What machine this is."""
    if part.device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU is there: DEVICE=cpu bash benchmarks/gpu.sh --quick tries the script without one")
    found = {
        "device": torch.cuda.get_device_name() if part.device.type == "cuda" else "cpu: no GPU was measured",
        "driver": gpu_query("driver_version"),
        "memory": gpu_query("memory.total"),
        "quick": part.quick,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_in_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_in_products": torch.backends.cuda.matmul.allow_tf32,
    }
    for name, value in found.items():
        print(f"{name:22} {value}")
    part.add("facts", found)


def gpu_query(key: str) -> str | None:
    """What ``nvidia-smi`` says of a GPU; None where it says nothing."""
    try:
        return subprocess.run(
            ["nvidia-smi", f"--query-gpu={key}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None


def checks(part: Part) -> None:
    """The device's numbers against double precision on the CPU, and ways to compute the same against each other."""
    from benchmarks.gpu_checks import all_checks

    rows, wrong = {}, 0
    for name, difference, tolerance in all_checks(part.device, part.size("side")):
        good = difference <= tolerance  # NaN is not
        wrong += not good
        rows[name] = {"difference": difference, "tolerance": tolerance, "good": good}
        print(f"{name:62} {difference:8.1e}  at most {tolerance:.0e}{'' if good else '  WRONG'}")
        part.add("checks", rows)
    print(f"{len(rows)} checks, {wrong} wrong")
    if wrong:
        sys.exit(1)


# whole commands -------------------------------------------------------------------------------------------------------


def render(part: Part) -> None:
    """The embedded data set of two seeds, into the cache that the trainings read."""
    seconds = {}
    for seed in (0, 1):
        if part.quick and seed:
            break
        started = time.monotonic()
        run = train_command(part, part.work / f"render{seed}", f"seed={seed}", f"data.seed={seed}")
        code = (
            "from hydra import compose, initialize_config_dir; import sys; from solder_vae.utils.config import build\n"
            "with initialize_config_dir(sys.argv[1], version_base=None):\n"
            "    build(compose('train', sys.argv[2:]).data).setup()"
        )
        overrides = [text for text in run[3:] if not text.startswith("hydra.")]
        subprocess.run([sys.executable, "-c", code, str(Path("conf").absolute()), *overrides], check=True)
        seconds[f"seed_{seed}_s"] = time.monotonic() - started
        print(f"seed {seed}: rendered in {seconds[f'seed_{seed}_s']:.1f} s", flush=True)
        part.add("render", seconds)


def train_command(part: Part, folder: Path, *overrides: str) -> list[str]:
    tiny = TINY if part.quick else ()
    place = (f"trainer.accelerator={part.accelerator}", f"hydra.run.dir={folder}")
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
    return [float(seconds) for seconds in re.findall(r"epoch +\d+/\d+ .*  ([\d.]+) s$", text, re.MULTILINE)]


def commands(part: Part) -> None:
    """Trainings and inspections as a user runs them, on the device."""
    epochs = f"trainer.max_epochs={part.size('epochs')}"
    kinds = {
        "once": ["score=gradcon"],
        "again": ["score=gradcon"],
        "ensemble": ["score=gradcon", "trainer.ensemble=2"],
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
        for device in {"cpu", part.device.type}
    }  # fmt: skip
    finish(inspections, part)
    once, again, member, mixed = (
        numbers(json.loads((part.work / name / "metrics.json").read_text()))
        for name in ("once", "again", "ensemble/0", "mixed")
    )
    scores = [predicted_scores(part.work / f"predict_{device}") for device in ("cpu", part.device.type)]
    found |= {
        "same_training_twice_equal": once == again,
        "same_training_twice_largest_difference": largest_difference(once, again),
        "val_loss": {
            "once": once["val/loss"],
            "again": again["val/loss"],
            "as member of an ensemble": member["val/loss"],
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


# speed ----------------------------------------------------------------------------------------------------------------


def milliseconds(function: Callable[[], Any], part: Part, calls: int = 1) -> float:
    """Of a call that stands for ``calls``: the median of blocks of calls, each block waited for."""
    for _ in range(1 if part.quick else 5):
        function()
    times = []
    for _ in range(part.size("blocks")):
        wait(part.device)
        started = time.perf_counter()
        for _ in range(part.size("steps")):
            function()
        wait(part.device)
        times.append(1000 * (time.perf_counter() - started) / part.size("steps") / calls)
    return statistics.median(times)


def kernel_milliseconds(function: Callable[[], Any], part: Part) -> float:
    """How long the device itself is at work in a call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(5):
            function()
        wait(part.device)
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 5000


def steps(part: Part) -> None:
    """Bare training steps: no Lightning, no loading, the images on the device."""
    x = part.batch()
    rows: Found = {}

    def row(name: str, value: float) -> None:
        rows[name] = value
        print(f"{name:66} {value:8.2f} ms", flush=True)
        part.add("steps", rows)

    for alpha in (0.0, ALPHA):
        theirs, ours = training_pair(alpha, FULL, x)
        row(f"beta_vae, alpha = {alpha:g}, {FULL}, as published", milliseconds(theirs, part))
        row(f"beta_vae, alpha = {alpha:g}, {FULL}", milliseconds(ours, part))
        if part.device.type == "cuda":
            with tf32(False):
                row(f"beta_vae, alpha = {alpha:g}, {FULL}, as published, without TF32", milliseconds(theirs, part))
                row(f"beta_vae, alpha = {alpha:g}, {FULL}, without TF32", milliseconds(ours, part))
            row(f"beta_vae, alpha = {alpha:g}, {FULL}: kernels alone", kernel_milliseconds(ours, part))
        with deterministic():
            row(f"beta_vae, alpha = {alpha:g}, {FULL}, deterministic kernels", milliseconds(ours, part))
        row(f"beta_vae, alpha = {alpha:g}, {MIXED}", milliseconds(training_pair(alpha, MIXED, x)[1], part))
        for precision in (FULL, MIXED):
            step = bare_step(constrained("cae", alpha).to(part.device), precision)
            row(f"cae, alpha = {alpha:g}, {precision}", milliseconds(lambda step=step: step(x), part))


def constrained(name: str, alpha: float, seed: int = 0) -> CAE:
    """A model with reference gradients, as after a first step of training."""
    torch.manual_seed(seed)
    model = MODELS[name](alpha=alpha, gamma=GAMMA, seed=seed)
    model.reference.update([torch.randn_like(conv.weight) for conv in model.decoder.convolutions])
    return model


def scores(part: Part) -> None:
    """Images scored a second; they are on the device."""
    rows: Found = {}

    def row(name: str, milliseconds_an_image: float) -> None:
        rows[name] = 1000 / milliseconds_an_image
        print(f"{name:66} {rows[name]:10.0f} images a second", flush=True)
        part.add("scores_per_second", rows)

    model = trained_model(0).to(part.device).eval()
    network = published.published_twin(model)
    means = [published.flipped(mean).contiguous() for mean in model.reference.means]
    without = trained_model(0).to(part.device).eval()
    without.reference.steps.zero_()  # GradCon is left out
    for batch in dict.fromkeys((part.size("batch"), part.size("score_batch"))):
        x = part.batch(batch)  # channels last, as ours has them
        row(f"gradcon, recon and elbo, batches of {batch}", milliseconds(lambda x=x: model.score(x), part, batch))
        row(f"recon and elbo, batches of {batch}", milliseconds(lambda x=x: without.score(x), part, batch))

        def recon(x: Tensor = x) -> Tensor:
            with torch.no_grad():
                return (network.decoder(network.encode(x)[0]) - x).square().mean((1, 2, 3))

        row(f"recon as published, batches of {batch}", milliseconds(recon, part, batch))
    image = part.batch(1)[0].contiguous()
    one_by_one = milliseconds(lambda: published.gradcon_score(network, image, GAMMA, means), part)
    row("gradcon as published, one by one", one_by_one)


# trainings side by side -----------------------------------------------------------------------------------------------


def trainings_an_hour(train: Callable[[], Any], validate: Callable[[], Any], part: Part) -> float:
    """Default trainings that steps done for a while would make in an hour; training and validation take turns."""
    cycle = TRAIN_STEPS + VALIDATION_STEPS
    turns = [VALIDATION_STEPS * number % cycle < VALIDATION_STEPS for number in range(cycle)]
    for step in (train, validate) * 2:
        step()
    wait(part.device)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < part.size("window"):
        (validate if turns[done % cycle] else train)()
        done += 1
        if done % 5 == 0:
            wait(part.device)
    wait(part.device)
    return 3600 * done / (cycle * EPOCHS) / (time.perf_counter() - started)


def member_steps(alpha: float, part: Part) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Training and validation steps of ``part.count`` members; 0 is one ordinary model, without an ensemble."""
    x = part.batch()
    if part.count:
        ensemble = Ensemble([constrained("beta_vae", alpha, seed) for seed in range(part.count)], part.device)
        return lambda: ensemble.train_step(x), lambda: ensemble.validation_terms(x, 0)
    model = constrained("beta_vae", alpha).to(part.device)
    assert isinstance(model, BetaVAE)
    step = bare_step(model, FULL)

    def train() -> None:
        model.train()
        step(x)

    @torch.no_grad()
    def validate() -> None:
        model.eval()
        model.loss_terms(x, model.noise(x, VALIDATION, 0))

    return train, validate


def ensemble(part: Part) -> None:
    """K members as one network: bare steps, the images on the device."""
    for alpha in (0.0, ALPHA):
        rate = trainings_an_hour(*member_steps(alpha, part), part) * part.count
        memory = torch.cuda.max_memory_allocated() / 1e6 if part.device.type == "cuda" else peak_megabytes()
        found = {"trainings_per_hour": rate, "peak_mb": memory}
        print(
            f"K = {part.count}, alpha = {alpha:g}: {rate:.1f} trainings an hour, peak memory {memory:.0f} MB",
            flush=True,
        )
        part.add("ensemble", {f"K = {part.count}, alpha = {alpha:g}": found})


def worker(part: Part) -> None:
    """One of the processes: says that it is ready, waits for the word, then counts its steps."""
    part.count, number = 0, part.count
    for alpha in (0.0, ALPHA):
        train, validate = member_steps(alpha, part)
        train()
        validate()
        wait(part.device)
        (part.work / f"ready-{alpha:g}-{number}").touch()
        while not (part.work / f"go-{alpha:g}").exists():
            time.sleep(0.01)
        rate = trainings_an_hour(train, validate, part)
        with atomic_file(part.work / f"rate-{alpha:g}-{number}") as temporary:
            temporary.write_text(repr(rate))


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
    for alpha in (0.0, ALPHA):
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
        if (elapsed := time.monotonic() - started) - told > (1 if part.quick else 15):
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
    found: Found = {
        "side_by_side": len(trainings),
        "elapsed_s": elapsed,
        "epochs_of_a_run": epochs,
        "epochs_done": every,
        "runs_at_their_end": {str(training): seconds for training, seconds in ended.items()},
        "runs_failed": [str(training) for training in failed],
        "epoch_s": kinds,
        "runs_per_hour": rate,
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
    if failed:
        sys.exit(1)


def paper_trainings(seeds: int) -> Iterator[Training]:
    """Those of ``scale=paper``, seed after seed."""
    every = [training for sweep in sweeps(seeds) for training in sweep.trainings]
    return iter(sorted(every, key=lambda training: training.seed))


def log_end(part: Part, training: Training) -> str:
    return (part.work / "runs" / training.folder / "output.log").read_text()[-1500:]


# summary --------------------------------------------------------------------------------------------------------------


def summary(part: Part) -> None:
    """Ensembles beside processes, and what follows."""
    results = part.results()
    verdicts: Found = {}
    for alpha in (0.0, ALPHA):
        end = f", alpha = {alpha:g}"
        together, apart = (
            {
                name.removesuffix(end): value["trainings_per_hour"]
                for name, value in results.get(key, {}).items()
                if name.endswith(end)
            }
            for key in ("ensemble", "processes")
        )
        for name, rate in together.items():
            print(f"ensemble  {name:10}{end}: {rate:8.1f} trainings an hour")
        for name, rate in apart.items():
            print(f"processes {name:10}{end}: {rate:8.1f} trainings an hour")
        if together and apart:
            best, side = max(together, key=together.__getitem__), max(apart, key=apart.__getitem__)
            ratio = together[best] / apart[side]
            print(f"best ensemble ({best}) over best processes ({side}){end}: {ratio:.2f}; it stays from 2 on")
            verdicts[f"best over best{end}"] = ratio
        for name in together:
            if (count := name.removeprefix("K = ")) in apart:
                verdicts[f"{name} over {count} processes{end}"] = together[name] / apart[count]
    part.add("summary", verdicts)
    wrong = [name for name, check in results.get("checks", {}).items() if not check["good"]]
    print(f"wrong of {len(results.get('checks', {}))} checks: {', '.join(wrong) or 'none'}")
    if hours := results.get("runs", {}).get("hours_for_scale_paper"):
        print(f"scale=paper: {hours:.1f} hours")


PARTS = {
    function.__name__: function
    for function in (
        facts, render, checks, commands, steps, scores, ensemble, processes, worker, runs, summary,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of results")
    parser.add_argument("--work", type=Path, required=True, help="a folder for what the parts leave to each other")
    parser.add_argument("--until", type=float, default=float("inf"), help="the time, in seconds, to end at")
    parser.add_argument("--count", type=int, default=0, help="members or processes")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    options = parser.parse_args()
    options.out, options.work = options.out.absolute(), options.work.absolute()
    PARTS[options.part](Part(options))


if __name__ == "__main__":
    main()
