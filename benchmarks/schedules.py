"""``python -m benchmarks.schedules``: how many epochs a schedule needs for the validation loss of Table I's 100.

Bare steps on the embedded data set, without Lightning: ``paper`` are Table I's runs; ``search`` those that the default
with Adam was chosen by, ``adam`` those of that default, ``constraint`` longer and steeper ones with the gradient
constraint; ``muon`` those that the default was chosen by, ``chosen`` those of the default, ``lazy`` those that have the
constraint in few steps; all by the loss on validation normals. AUROCs of the test set are noted beside
it and decide nothing. Several processes share a plan (``--processes``). Each finished run is a line of
``benchmarks/schedules.jsonl``, and not done again.

    python -m benchmarks.schedules paper search adam muon chosen --device cuda --processes 12
    python -m benchmarks.schedules draw                 # the table and benchmarks/schedules.png, from what is there

``draw`` measures the steps of the published network and of ours on this machine's CPU, in turns, for the time axis.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from benchmarks.bench import BATCH, bare_step, random_images, training_pair
from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.data.transforms import to_tensor
from solder_vae.models.autoencoder import CAE, VALIDATION, Autoencoder
from solder_vae.models.muon import Muon
from solder_vae.models.precision import FULL
from solder_vae.models.vae import BetaVAE
from solder_vae.utils.files import file_lock

RESULTS = Path(__file__).with_suffix(".jsonl")
IMAGES = 2513  # of the embedded set's training part
ALPHA = 0.03


@dataclass(frozen=True)
class Run:
    """A run's settings; by default Table I's."""

    model: str  # cae, vae or beta_vae (beta = 3)
    seed: int = 0
    alpha: float = 0.0
    epochs: int = 100
    lr: float = 1e-2
    batch: int = 64
    weight_decay: float = 1e-4
    schedule: str = "plateau"  # or one_cycle
    betas: tuple[float, float] = (0.9, 0.999)
    rise: float = 0.3  # of one_cycle: the share of the steps in which the rate rises
    momentum: bool = True  # ... and whether beta1 falls and rises against it
    constraint_every: int = 1  # steps
    optimizer: str = "adam"  # or muon


def chosen(model: str, **others: Any) -> Run:
    """The default run."""
    muon = {"optimizer": "muon", "lr": 0.1, "betas": (0.9, 0.95), "weight_decay": 0.0}
    return Run(model, **{"epochs": 8, "batch": 32, "schedule": "one_cycle", **muon, **others})


def constrained(model: str) -> Run:
    """A run with the gradient constraint in each step, of which a CAE needs more."""
    return chosen(model, alpha=ALPHA, epochs=16 if model == "cae" else 8)


def with_adam(model: str, **others: Any) -> Run:
    """The default run with Adam, as it was."""
    return Run(model, **{"epochs": 20, "batch": 32, "weight_decay": 1e-5, "schedule": "one_cycle", **others})


def plan(name: str) -> Iterator[Run]:
    """The runs of a plan."""
    if name == "paper":
        for seed in range(5):
            yield from (Run(model, seed) for model in ("cae", "vae", "beta_vae"))
        yield from (Run(model, alpha=ALPHA) for model in ("cae", "beta_vae"))
    elif name == "chosen":
        for seed in range(5):
            yield from (chosen(model, seed=seed) for model in ("beta_vae", "cae", "vae"))
        yield from (chosen(model, alpha=ALPHA) for model in ("beta_vae", "cae"))
        yield constrained("cae")
    elif name == "muon":
        for epochs, lr, second in (
            (10, 0.1, 0.99),
            (8, 0.06, 0.95),
            (8, 0.1, 0.95),
            (6, 0.1, 0.95),
            (6, 0.2, 0.95),
            (6, 0.1, 0.9),
            (5, 0.1, 0.9),
        ):
            tried = {"epochs": epochs, "lr": lr, "betas": (0.9, second)}
            yield from (chosen(model, **tried) for model in ("beta_vae", "cae"))
    elif name == "adam":
        for seed in range(5):
            yield from (with_adam(model, seed=seed) for model in ("cae", "vae", "beta_vae"))
        yield from (with_adam(model, alpha=ALPHA) for model in ("cae", "beta_vae"))
    elif name == "constraint":
        yield with_adam("beta_vae", alpha=ALPHA, lr=2e-2, epochs=28)
        yield with_adam("cae", alpha=ALPHA, lr=2e-2, epochs=44)
        yield from (with_adam(model, alpha=ALPHA, lr=2e-2) for model in ("beta_vae", "cae"))
    elif name == "lazy":
        yield with_adam("beta_vae", alpha=ALPHA, constraint_every=8)
        for run in (with_adam, chosen):
            for seed in range(5):
                yield from (run("beta_vae", alpha=ALPHA, seed=seed, constraint_every=every) for every in (4, 1))
    elif name == "search":
        for model in ("cae", "beta_vae"):
            yield Run(model, epochs=20, lr=1e-3)  # the former default
            one = replace(with_adam(model), weight_decay=1e-4)
            for batch, epochs, rates in ((64, (6, 10, 16), (3e-3, 1e-2, 3e-2)), (32, (6, 10, 14, 20), (1e-2, 2e-2))):
                for count in epochs:
                    yield from (replace(one, batch=batch, epochs=count, lr=lr) for lr in rates)
            yield from (replace(one, batch=16, epochs=count, lr=5e-3, betas=(0.9, 0.99)) for count in (6, 10))
            near = replace(one, epochs=14)
            yield from (replace(near, betas=(0.9, second)) for second in (0.95, 0.99))
            quick = replace(near, betas=(0.9, 0.99))
            yield from (replace(quick, weight_decay=decay) for decay in (1e-5, 0.0))
            yield from (replace(quick, rise=rise) for rise in (0.1, 0.45))
            yield replace(quick, momentum=False)
    else:
        raise SystemExit(f"{name} is no plan: use paper, search, adam, constraint, muon, chosen or lazy.")


def load(seed: int, device: str) -> tuple[dict[str, Tensor], Tensor]:
    """The embedded set's images ``(N, 3, 64, 64)`` in [-1, 1] on the device, and the labels of its test."""
    tables = SyntheticSource(seed=seed).tables()
    images = {split: to_tensor(np.stack(list(table.images))).to(device) for split, table in tables.items()}
    return images, torch.as_tensor(tables["test"].labels)


def train(run: Run, images: dict[str, Tensor], labels: Tensor, until: float) -> dict[str, Any] | None:
    """A run's curve, best validation loss and AUROCs; None if the time is up before."""
    torch.manual_seed(run.seed)
    order = torch.Generator().manual_seed(run.seed + 1)
    device = images["train"].device.type
    options: dict[str, Any] = {"alpha": run.alpha, "constraint_every": run.constraint_every, "seed": run.seed}
    model: Autoencoder = (
        CAE(**options) if run.model == "cae" else BetaVAE(beta=3.0 if run.model == "beta_vae" else 1.0, **options)
    )
    model.to(device)
    adam = partial(torch.optim.Adam, fused=True)
    kind: Any = Muon if run.optimizer == "muon" else adam
    optimizer = kind(model.parameters(), run.lr, betas=run.betas, weight_decay=run.weight_decay)
    steps = math.ceil(IMAGES / run.batch) * run.epochs
    shape = {"pct_start": run.rise, "cycle_momentum": run.momentum}
    one_cycle = OneCycleLR(optimizer, run.lr, steps, **shape) if run.schedule == "one_cycle" else None
    plateau = ReduceLROnPlateau(optimizer, factor=0.1, patience=10) if one_cycle is None else None
    step = bare_step(model, "auto" if device == "cpu" else FULL, optimizer)
    curve: list[float] = []
    best: dict[str, Tensor] = {}
    for _ in range(run.epochs):
        model.train()
        rows = torch.randperm(IMAGES, generator=order)
        turned = (torch.rand(IMAGES, generator=order) < 0.5).to(device)
        for chunk in rows.to(device).split(run.batch):
            x = images["train"][chunk]
            x = torch.where(turned[chunk][:, None, None, None], x.flip(3), x).contiguous(
                memory_format=torch.channels_last
            )
            step(x)
            model.step += 1
            if one_cycle is not None and model.step < steps:
                one_cycle.step()
        curve.append(validate(model, images["val"]))
        if plateau is not None:
            plateau.step(curve[-1])
        if curve[-1] == min(curve):
            best = {key: value.clone() for key, value in model.state_dict().items()}
        if time.time() > until:
            return None
    model.load_state_dict(best)
    model.eval()
    found = {"auroc": aurocs(model, images["test"], labels)}
    if run.alpha:
        found["grad_loss"] = constraint(model, images["val"], run.batch)
    return {**asdict(run), "best": min(curve), "curve": curve, **found}


@torch.no_grad()
def validate(model: Autoencoder, images: Tensor) -> float:
    """The mean loss, with the noise that a run validates with."""
    model.eval()
    total = 0.0
    for number, x in enumerate(images.split(64)):
        total += len(x) * float(model.loss_terms(x, model.noise(x, VALIDATION, number))[0]["loss"])
    return total / len(images)


def constraint(model: Autoencoder, images: Tensor, batch: int) -> float:
    """The mean of L_grad over whole batches of normals."""
    found = []
    for number, x in enumerate(images.split(batch)[: len(images) // batch]):
        terms, _ = model.loss_terms(x, model.noise(x, VALIDATION, number))
        found.append(float(model.gradient_constraint(terms["recon"]).detach()))
    return statistics.mean(found)


def aurocs(model: Autoencoder, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Of every score of the test images."""
    outputs = [model.score(x).scores for x in images.split(64)]
    found = {}
    for name in outputs[0]:
        scores = torch.cat([output[name] for output in outputs]).detach().cpu()
        found[name] = float(roc_auc_score(labels, scores))
    return found


def done() -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def settings(run: Run | dict[str, Any]) -> str:
    """What tells one run from another."""
    if not isinstance(run, Run):  # a line, which may be older than some fields
        run = Run(**{key: run[key] for key in Run.__dataclass_fields__ if key in run})
    return json.dumps(asdict(run), sort_keys=True)


def work(plans: list[str], device: str, share: int, processes: int, until: float) -> None:
    """This process's share of the plans."""
    finished = {settings(run) for run in done()}
    runs = [run for name in plans for run in plan(name) if settings(run) not in finished][share::processes]
    torch.set_num_threads(1)
    loaded: dict[int, tuple[dict[str, Tensor], Tensor]] = {}
    for run in runs:
        if time.time() > until:
            return
        if run.seed not in loaded:
            loaded[run.seed] = load(run.seed, device)
        result = train(run, *loaded[run.seed], until)
        if result is not None:
            with file_lock(RESULTS), RESULTS.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{result['best']:.5f}  {settings(run)}", flush=True)


# the table and the picture -------------------------------------------------------------------------------------------


def step_seconds(alpha: float, batch: int, repetitions: int = 21) -> tuple[float, float]:
    """A step of the published network in batches of 64 and one of ours, by the processor time of one thread."""
    torch.set_num_threads(1)
    as_published, _ = training_pair(alpha)
    _, ours = training_pair(alpha, "auto", to_tensor(random_images(batch)), Muon)
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions + 1):
        for step, times in zip((as_published, ours), taken, strict=True):
            started = time.process_time()
            step()
            times.append(time.process_time() - started)
    return statistics.median(taken[0][1:]), statistics.median(taken[1][1:])


def draw() -> None:
    """Print how soon each model reaches Table I's loss, and draw the curves against time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    results = {settings(run): run for run in done()}
    wanted = [
        (model, alpha, Run(model, alpha=alpha), constrained(model) if alpha else chosen(model))
        for alpha in (0.0, ALPHA)
        for model in ("cae", "vae", "beta_vae")
    ]
    pairs = [
        (model, alpha, results[settings(theirs)], results[settings(ours)])
        for model, alpha, theirs, ours in wanted
        if settings(theirs) in results and settings(ours) in results
    ]
    if not pairs:
        raise SystemExit("there are no runs yet: python -m benchmarks.schedules paper chosen")
    steps = {alpha: step_seconds(alpha, chosen("cae").batch) for alpha in {alpha for _, alpha, *_ in pairs}}
    figure, panels = plt.subplots(1, len(pairs), figsize=(4.5 * len(pairs), 3.6), layout="constrained", squeeze=False)
    print("model     alpha   Table I  epochs      ours  epochs         seconds  ratio")
    for panel, (model, alpha, theirs, ours) in zip(panels[0], pairs, strict=True):
        title = {"cae": "CAE", "vae": "VAE", "beta_vae": "β-VAE, β = 3"}[model] + (", constraint" if alpha else "")
        panel.set(title=title, xlabel="seconds on one core", ylabel="validation loss", xscale="log", yscale="log")
        epochs = [
            math.ceil(IMAGES / batch) * step
            for batch, step in zip((BATCH, chosen(model).batch), steps[alpha], strict=True)
        ]
        for run, seconds, label in zip((theirs, ours), epochs, ("as published, Table I", "ours"), strict=True):
            panel.plot(np.arange(1, len(run["curve"]) + 1) * seconds, run["curve"], label=label)
        panel.axhline(theirs["best"], color="grey", linewidth=0.8, linestyle="--", label="Table I's best")
        reached = next((i + 1 for i, loss in enumerate(ours["curve"]) if loss <= theirs["best"]), None)
        at_best = int(np.argmin(theirs["curve"])) + 1
        taken = at_best * epochs[0], (reached or len(ours["curve"])) * epochs[1]
        print(
            f"{model:9} {alpha:5g} {theirs['best']:9.5f} {at_best:7} {ours['best']:9.5f} {reached or 'never':>7} "
            f"{taken[0]:7.0f} {taken[1]:7.0f}" + (f" {taken[0] / taken[1]:5.1f}x" if reached else "")
        )
    panels[0, -1].legend(frameon=False)
    figure.savefig(RESULTS.with_suffix(".png"), dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", help="paper, search, adam, constraint, muon, chosen, lazy; or draw")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--share", type=int, help="do this share alone, of as many as there are processes")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    options = parser.parse_args(arguments)
    if options.plans == ["draw"]:
        draw()
        return
    if options.share is not None or options.processes == 1:
        until = time.time() + options.seconds
        work(options.plans, options.device, options.share or 0, options.processes, until)
        return
    command = [sys.executable, "-m", "benchmarks.schedules", *sys.argv[1:], "--share"]
    running = [subprocess.Popen([*command, str(share)]) for share in range(options.processes)]
    sys.exit(max(process.wait() for process in running))


if __name__ == "__main__":
    main()
