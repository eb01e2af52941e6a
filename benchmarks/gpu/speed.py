"""Speed on the device: bare steps (no Lightning, no loading, the images on the device), scores, processes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks import reference as published
from benchmarks.bench import GAMMA, bare_step, random_images, trained_model, training_pair
from benchmarks.gpu.part import ALPHAS, Found, Part
from solder_vae.data.transforms import to_tensor
from solder_vae.models.autoencoder import CAE, VALIDATION, Autoencoder
from solder_vae.models.precision import FULL, MIXED
from solder_vae.models.vae import BetaVAE
from solder_vae.utils.files import atomic_file

TRAIN_STEPS, VALIDATION_STEPS = 40, 9  # of an epoch of the embedded data set in batches of 64
EPOCHS = 20  # of the default training
MODELS = {"cae": CAE, "beta_vae": BetaVAE}


def batch(part: Part, count: int | None = None) -> Tensor:
    """Images on the device, channels last."""
    return to_tensor(random_images(count or part.size("batch"), part.size("side"))).to(part.device)


def wait(device: str) -> None:
    if device == "cuda":
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
    x = batch(part)
    rows: Found = {}

    def row(name: str, value: float) -> None:
        rows[name] = value
        print(f"{name:66} {value:8.2f} ms", flush=True)
        part.add("steps", rows)

    for alpha in ALPHAS:
        theirs, ours = training_pair(alpha, FULL, x)
        row(f"beta_vae, alpha = {alpha:g}, {FULL}, as published", milliseconds(theirs, part))
        row(f"beta_vae, alpha = {alpha:g}, {FULL}", milliseconds(ours, part))
        if part.device == "cuda":
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


def constrained(name: str, alpha: float, seed: int = 0) -> Autoencoder:
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
    for count in dict.fromkeys((part.size("batch"), part.size("score_batch"))):
        x = batch(part, count)  # channels last, as ours has them
        row(f"gradcon, recon and elbo, batches of {count}", milliseconds(lambda x=x: model.score(x), part, count))
        row(
            f"recon and elbo, batches of {count}",
            milliseconds(lambda x=x: model.score(x, ("recon", "elbo")), part, count),
        )

        def recon(x: Tensor = x) -> Tensor:
            with torch.no_grad():
                return (network.decoder(network.encode(x)[0]) - x).square().mean((1, 2, 3))

        row(f"recon as published, batches of {count}", milliseconds(recon, part, count))
    image = batch(part, 1)[0].contiguous()
    one_by_one = milliseconds(lambda: published.gradcon_score(network, image, GAMMA, means), part)
    row("gradcon as published, one by one", one_by_one)


def trainings_an_hour(train: Callable[[], Any], validate: Callable[[], Any], part: Part) -> float:
    """How many default runs these steps would make in an hour; training and validation take turns."""
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


def model_steps(alpha: float, part: Part) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Training and validation steps of a model."""
    x = batch(part)
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


def worker(part: Part) -> None:
    """One of the processes: says that it is ready, waits for the word, then counts its steps."""
    number = part.count
    for alpha in ALPHAS:
        train, validate = model_steps(alpha, part)
        train()
        validate()
        wait(part.device)
        (part.work / f"ready-{alpha:g}-{number}").touch()
        while not (part.work / f"go-{alpha:g}").exists():
            time.sleep(0.01)
        rate = trainings_an_hour(train, validate, part)
        with atomic_file(part.work / f"rate-{alpha:g}-{number}") as temporary:
            temporary.write_text(repr(rate))
