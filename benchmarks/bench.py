"""``python -m benchmarks.bench``: the package against the network as published, side by side in one process.

Every figure is the ratio of two medians, taken in turns on the same weights and the same batch. It is taken twice: by
the clock with all threads, which is what a user waits for, and by the processor time of one thread, which other
processes on the machine hardly change. Prints the table; writes ``benchmarks/results.json`` and
``benchmarks/results.png``. ``python -m benchmarks.scaling`` adds how time and memory grow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import reference as published
from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import to_tensor
from solder_vae.models.autoencoder import TRAINING, Autoencoder
from solder_vae.models.precision import FULL, MIXED, resolve_precision
from solder_vae.models.steps import TrainingModule
from solder_vae.models.vae import BetaVAE
from solder_vae.training.trainer import quiet_lightning
from solder_vae.utils.files import atomic_file
from solder_vae.utils.labels import NORMAL

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
BATCH, ALPHA, GAMMA = 64, 0.03, 0.12
REPETITIONS = 11
GOALS = {  # the least that is asked for, and the aim
    "training step, alpha = 0": (3.0, 5.0),
    "training step with the constraint": (2.5, 4.0),
    "GradCon score of an image": (3.0, 6.0),
    "recon score of an image": (2.0, 4.0),
}
Pair = tuple[Callable[[], Any], Callable[[], Any]]  # as published, ours; each does the same amount of work


# what is compared -----------------------------------------------------------------------------------------------------


def random_images(count: int, size: int = 64) -> np.ndarray:
    """Images ``(N, S, S, 3)`` uint8. What they show does not change what they cost."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def trained_model(alpha: float) -> BetaVAE:
    """A beta-VAE with reference gradients, as after a first step of training."""
    torch.manual_seed(0)
    model = BetaVAE(alpha=alpha, gamma=GAMMA)
    model.reference.update([torch.randn_like(conv.weight) for conv in model.decoder.convolutions])
    return model


def bare_step(
    model: Autoencoder, precision: str = "auto", optimizer: torch.optim.Optimizer | None = None
) -> Callable[[Tensor], None]:
    """One step of training without Lightning, with the noise of ``model.step``."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 1e-4, weight_decay=1e-4, fused=True)
    mixed = resolve_precision(precision, "auto") == MIXED

    def step(x: Tensor) -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
            terms, _ = model.loss_terms(x, model.noise(x, TRAINING, model.step))
            objective = terms["loss"]
            if alpha := model.alpha_of(model.step):
                objective = objective + alpha * model.gradient_constraint(terms["recon"])
        optimizer.zero_grad()
        objective.backward()
        model.update_reference()
        optimizer.step()

    return step


def training_pair(
    alpha: float,
    precision: str = "auto",
    x: Tensor | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
) -> Pair:
    """Steps on the batch ``x``, where it lies, on the CPU by default; ours by ``optimizer``, or Adam."""
    x = to_tensor(random_images(BATCH)) if x is None else x
    model = trained_model(alpha).to(x.device)
    network = published.published_twin(model)
    theirs = torch.optim.Adam(network.parameters(), 1e-4, weight_decay=1e-4)
    means = [published.flipped(mean).contiguous() for mean in model.reference.means]
    contiguous = x.contiguous()
    latent = model.noise(x, TRAINING, 0).shape

    def as_published() -> None:
        noise = torch.randn(latent, device=x.device)
        objective = published.objective(network, contiguous, noise, model.beta, alpha, means)
        theirs.zero_grad()
        objective.backward()
        for mean, weight in zip(means, network.decoder_weights(), strict=True):
            mean += (weight.grad - mean) / 1000
        theirs.step()

    step = bare_step(model, precision, optimizer(model.parameters()) if optimizer else None)
    return as_published, lambda: step(x)


def gradcon_pair() -> Pair:
    """One batch of ours against an eighth of it one by one, for time's sake: see ``SHARES``."""
    model = trained_model(0).eval()
    network = published.published_twin(model)
    means = [published.flipped(mean).contiguous() for mean in model.reference.means]
    x = to_tensor(random_images(BATCH))
    few = x.contiguous()[: BATCH // SHARES]
    return (
        lambda: [published.gradcon_score(network, image, GAMMA, means) for image in few],
        lambda: model.score(x),
    )


def recon_pair() -> Pair:
    model = trained_model(0).eval()
    model.reference.steps.zero_()  # GradCon is left out
    network = published.published_twin(model)
    decoded = random_images(BATCH)
    return lambda: published.recon_scores(network, decoded), lambda: model.score(to_tensor(decoded))


SHARES = 8
PAIRS: dict[str, tuple[Callable[[], Pair], int, int]] = {  # the pair, and into how many parts each one's time goes
    "training step, alpha = 0": (lambda: training_pair(0.0), 1, 1),
    "training step with the constraint": (lambda: training_pair(ALPHA), 1, 1),
    "training step, alpha = 0, in single precision": (lambda: training_pair(0.0, FULL), 1, 1),
    "training step with the constraint, in single precision": (lambda: training_pair(ALPHA, FULL), 1, 1),
    "GradCon score of an image": (gradcon_pair, BATCH // SHARES, BATCH),
    "recon score of an image": (recon_pair, BATCH, BATCH),
}


# measuring ------------------------------------------------------------------------------------------------------------


def medians(functions: Iterable[Callable[[], Any]], clock: Callable[[], float]) -> list[float]:
    """Median milliseconds of each function, called in turns after two calls to warm up."""
    functions = list(functions)
    for function in functions * 2:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(REPETITIONS):
        for function, taken in zip(functions, times, strict=True):
            start = clock()
            function()
            taken.append(1000 * (clock() - start))
    return [statistics.median(taken) for taken in times]


def compare(name: str, threads: int, clocks: Sequence[str] = ("clock", "processor")) -> dict[str, float]:
    """Milliseconds of both and their ratio, for the clock with all threads and for one thread's processor time."""
    build, published_parts, our_parts = PAIRS[name]
    result = {}
    for label, count, clock in (("clock", threads, time.perf_counter), ("processor", 1, time.process_time)):
        if label not in clocks:
            continue
        torch.set_num_threads(count)
        theirs, ours = medians(build(), clock)
        theirs, ours = theirs / published_parts, ours / our_parts
        result |= {f"published_ms_{label}": theirs, f"ours_ms_{label}": ours, f"ratio_{label}": theirs / ours}
    torch.set_num_threads(threads)
    return result


def epoch_overhead(threads: int, images: int = 320) -> dict[str, float]:
    """What Lightning, the data loading and the logging add to an epoch of bare steps on batches that are ready."""
    table = ImageTable(
        random_images(images), [f"{i}.png" for i in range(images)], [NORMAL] * images, np.full((images, 2), 64)
    )
    data = SolderDataModule(lambda: None, BATCH)  # type: ignore[arg-type]
    data.tables = {"train": table, "val": table}
    batches = [batch["image"] for batch in data.train_dataloader()]

    class Stopwatch(Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            self.start = clock()

        def on_train_epoch_end(self, *_: Any) -> None:
            epochs.append(clock() - self.start)

    result = {}
    precision = resolve_precision("auto", "cpu")
    for label, count, clock in (("clock", threads, time.perf_counter), ("processor", 1, time.process_time)):
        torch.set_num_threads(count)
        epochs: list[float] = []
        bare: list[float] = []
        for _ in range(4):
            trainer = pl.Trainer(
                max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, precision=precision, callbacks=[Stopwatch()], limit_val_batches=0,
                num_sanity_val_steps=0,
            )  # fmt: skip
            module = TrainingModule(BetaVAE())
            optimizer = torch.optim.Adam(module.parameters(), 1e-4, weight_decay=1e-4, fused=True)
            module.configure_optimizers = lambda optimizer=optimizer: optimizer  # type: ignore[method-assign]
            module.on_train_epoch_end = lambda: None  # type: ignore[method-assign]  # no validation, no schedule
            trainer.fit(module, train_dataloaders=data.train_dataloader())
            step = bare_step(BetaVAE())
            for _ in range(2):
                start = clock()
                for x in batches:
                    step(x)
                bare.append(clock() - start)
        result[f"percent_{label}"] = 100 * (statistics.median(epochs) / statistics.median(bare) - 1)
    torch.set_num_threads(threads)
    return result


def start_up() -> float:
    """Seconds that ``python -m solder_vae.train --help`` takes."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "solder_vae.train", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


# roofline -------------------------------------------------------------------------------------------------------------


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write, each operand once; views and allocations move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not (func.is_view or "empty" in func.name()):
            self.bytes += sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
        return result


def roofline(step: Callable[[], Any], milliseconds: float, rate: float) -> dict[str, float]:
    """Multiply-adds and bytes of a step, and the fraction of the matrix-product rate (Gflop/s) that it reaches."""
    with FlopCounterMode(display=False) as counter:
        step()
    with Traffic() as traffic:
        step()
    flops = counter.get_total_flops()
    return {
        "multiply_adds_1e9": flops / 2e9,
        "gigabytes": traffic.bytes / 1e9,
        "gflops_reached": flops / milliseconds / 1e6,
        "fraction_of_matrix_rate": flops / milliseconds / 1e6 / rate,
    }


def matrix_rate(dtype: torch.dtype, size: int = 1024) -> float:
    """Gflop/s of a square matrix product on one thread, by processor time."""
    torch.set_num_threads(1)
    a, b = torch.randn(2, size, size).to(dtype)
    return 2 * size**3 / medians([lambda: a @ b], time.process_time)[0] / 1e6


def rooflines(figures: dict[str, dict[str, float]], rate: float) -> dict[str, dict[str, float]]:
    """Of both training steps in both forms, by one thread in single precision."""
    result = {}
    for kind, alpha in (("training step, alpha = 0", 0.0), ("training step with the constraint", ALPHA)):
        name = f"{kind}, in single precision"
        for form, function in zip(("published", "ours"), training_pair(alpha, FULL), strict=True):
            result[f"{name}, {form}"] = roofline(function, figures[name][f"{form}_ms_processor"], rate)
    return result


def peak_megabytes() -> float:
    """Most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def machine(threads: int) -> dict[str, Any]:
    """Where this was measured."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "amx": torch.cpu._is_amx_tile_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "precision": resolve_precision("auto", "auto"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none: nothing was measured on a GPU",
        "load_average_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch_lightning": pl.__version__,
    }


# reporting ------------------------------------------------------------------------------------------------------------


def figures_table(results: dict[str, Any]) -> Table:
    threads = results["machine"]["threads"]
    table = Table(title=f"ours against as published, {threads} CPU threads, batch {BATCH}")
    for heading in ("figure", "published", "ours", "ratio", "ratio, 1 thread", "at least", "aim"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for name, values in results["figures"].items():
        least, aim = (f"{goal:.1f}x" for goal in GOALS[name]) if name in GOALS else ("", "")
        table.add_row(
            name,
            f"{values['published_ms_clock']:.1f} ms",
            f"{values['ours_ms_clock']:.1f} ms",
            f"{values['ratio_clock']:.2f}x",
            f"{values['ratio_processor']:.2f}x",
            least,
            aim,
        )
    overhead = results["epoch_overhead"]
    table.add_row(
        "epoch overhead",
        "",
        "",
        f"{overhead['percent_clock']:.1f} %",
        f"{overhead['percent_processor']:.1f} %",
        "8 %",
        "3 %",
    )
    table.add_row("start-up", "", "", f"{results['start_up_s']:.2f} s", "", "3 s", "1.5 s")
    return table


def draw(results: dict[str, Any], path: Path) -> None:
    """The ratios as bars, with what was asked for."""
    figures = results["figures"]
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    rows = np.arange(len(figures))
    for offset, label, colour in ((-0.2, "clock", "#1f77b4"), (0.2, "processor", "#9ecae1")):
        text = f"clock, {results['machine']['threads']} threads" if label == "clock" else "processor time, 1 thread"
        values = [value[f"ratio_{label}"] for value in figures.values()]
        bars = axes.barh(rows + offset, values, 0.36, color=colour, label=text)
        axes.bar_label(bars, fmt="%.1fx", padding=3, fontsize=9)
    for row, name in enumerate(figures):
        if name in GOALS:
            label = "at least" if row == 0 else None
            axes.plot([GOALS[name][0]] * 2, [row - 0.42, row + 0.42], color="black", label=label)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_yticks(rows, list(figures))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("times as fast as the network as published")
    axes.legend(fontsize=8, loc="lower right")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for the clock's column")
    parser.add_argument(
        "--beside", metavar="NAME", help="processor time of one thread, in single precision, kept under this name "
        "beside the rest: for a machine at work, or a processor that is emulated",
    )  # fmt: skip
    options = parser.parse_args()
    threads = options.threads
    path = HERE / "results.json"
    results: dict[str, Any]
    if options.beside:
        results = json.loads(path.read_text())
        results.setdefault("beside", {})[options.beside] = measured = {
            "machine": machine(1) | {"isa": torch.backends.cpu.get_cpu_capability(), "precision": FULL},
            "figures": {name: compare(name, 1, ["processor"]) for name in PAIRS if name.endswith("single precision")},
        }
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n")
        print(json.dumps(measured["figures"], indent=2))
        return
    results = {
        "command": f"python -m benchmarks.bench --threads {threads}",
        "machine": machine(threads),
    }
    quiet_lightning()
    results["figures"] = {name: compare(name, threads) for name in PAIRS}
    results["epoch_overhead"] = epoch_overhead(threads)
    results["start_up_s"] = start_up()
    results["matrix_rate_gflops"] = {
        name: matrix_rate(dtype) for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    results["roofline"] = rooflines(results["figures"], results["matrix_rate_gflops"]["float32"])
    results["machine"]["load_average_at_end"] = os.getloadavg()[0]
    if path.exists():  # keep what benchmarks.scaling has put there
        results = json.loads(path.read_text()) | results
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")
    draw(results, HERE / "results.png")
    Console().print(figures_table(results))


if __name__ == "__main__":
    main()
