"""What a GPU computes against the same in double precision on the CPU; a part of ``benchmarks/gpu.sh``.

Differences are ``norm(a - b) / norm(b)``. Convolutions in float32 use TF32 where the GPU has it, as PyTorch does unless
told otherwise: it keeps 10 bits of a factor, hence the tolerance of that row.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from benchmarks import reference as published
from benchmarks.bench import GAMMA
from benchmarks.gpu.part import Part
from solder_vae.models.autoencoder import TRAINING
from solder_vae.models.gradcon import (
    dot_and_norm_from_gradients,
    dot_and_norm_from_gram,
    weight_gradients_unfold,
)
from solder_vae.models.layers.convolution import weight_gradients_loop
from solder_vae.models.vae import BetaVAE

Check = tuple[str, float, float]  # what, difference, tolerance

ALPHA = 0.7  # enough for the constraint to show beside the loss

FORMS = {  # of computing on the device: type, TF32, autocast; tolerances of values and of gradients
    "float64": (torch.float64, False, False, 1e-9, 1e-8),
    "float32 without TF32": (torch.float32, False, False, 1e-4, 5e-3),
    "float32 as PyTorch has it": (torch.float32, True, False, 2e-2, 2e-1),
    "bf16-mixed": (torch.float32, True, True, 1e-1, 5e-1),
}


def difference(found: Sequence[Tensor] | Tensor, expected: Sequence[Tensor] | Tensor) -> float:
    """``norm(found - expected) / norm(expected)`` of all values together; NaN where there is one."""
    one, other = (
        torch.cat(
            [part.detach().double().cpu().flatten() for part in ([value] if isinstance(value, Tensor) else value)]
        )
        for value in (found, expected)
    )
    return ((one - other).norm() / other.norm()).item()


def lively_model(size: int, seed: int = 0, **options: float) -> BetaVAE:
    """A model in double precision whose batch norms have seen data and learnt something, with reference gradients."""
    torch.manual_seed(seed)
    model = BetaVAE(seed=seed, **options).double()
    for _ in range(3):
        model(images(8, size))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    model.reference.update([torch.randn_like(conv.weight) for conv in model.decoder.convolutions])
    return model


def images(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size).double() * 2 - 1


def step_values(model: BetaVAE, x: Tensor, mixed: bool = False) -> dict[str, list[Tensor]]:
    """A training step up to its gradients: terms of the objective, gradients, statistics of the batch norms."""
    model.train().zero_grad()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
        terms, posterior = model.loss_terms(x, model.noise(x, TRAINING, 0))
        objective = terms["loss"]
        if model.alpha:
            objective = objective + model.alpha * model.gradient_constraint(terms["recon"])
    objective.backward()
    return {
        "posterior": list(posterior),
        "objective": [*terms.values(), objective],
        "gradients": [parameter.grad for parameter in model.parameters() if parameter.grad is not None],
        "batch norms": [buffer for name, buffer in model.named_buffers() if "running" in name],
    }


def against_cpu(device: torch.device, size: int) -> Iterator[Check]:
    """Training steps and scores on the device against double precision on the CPU."""
    for form, (dtype, tf32, mixed, tolerance, gradient_tolerance) in FORMS.items():
        torch.backends.cudnn.allow_tf32 = tf32
        for alpha in (0.0, ALPHA):
            model = lively_model(size, alpha=alpha, gamma=GAMMA)
            x = images(8, size)
            there = copy.deepcopy(model).to(device, dtype)
            expected = step_values(copy.deepcopy(model), x)
            for name, values in step_values(copy.deepcopy(there), x.to(device, dtype), mixed).items():
                limit = gradient_tolerance if name == "gradients" else tolerance
                yield f"{form}, alpha = {alpha:g}: {name}", difference(values, expected[name]), limit
        if not mixed:  # scores are never computed in bfloat16
            truth, found = model.eval().score(x), there.eval().score(x.to(device, dtype))
            yield f"{form}: reconstructions", difference(found.recon, truth.recon), tolerance
            for name in truth.scores:
                yield f"{form}: {name} scores", difference(found.scores[name], truth.scores[name]), tolerance
    torch.backends.cudnn.allow_tf32 = True


def against_published(device: torch.device, size: int) -> Iterator[Check]:
    """Ours against :mod:`benchmarks.reference`, both on the device in double precision."""
    for alpha in (0.0, ALPHA):
        model = lively_model(size, alpha=alpha, gamma=GAMMA).to(device)
        network = published.published_twin(model)
        x = images(8, size).to(device)
        means = [published.flipped(mean) for mean in model.reference.means]
        objective = published.objective(network, x, model.noise(x, TRAINING, 0), model.beta, alpha, means)
        objective.backward()
        step = step_values(model, x)
        pairs = zip(
            published.blocks_of(network.features, network.heads, network.decoder),
            published.blocks_of(model.encoder.features, model.encoder.heads, model.decoder),
            strict=True,
        )
        theirs, ours = [], []
        for (their_conv, their_norm), (our_conv, our_norm) in pairs:
            gradient = their_conv.weight.grad
            assert gradient is not None
            transposed = isinstance(their_conv, nn.ConvTranspose2d)
            theirs += [published.flipped(gradient) if transposed else gradient, their_norm.weight.grad]
            ours += [our_conv.weight.grad, our_norm.weight.grad]
        yield f"network as published, alpha = {alpha:g}: objective", difference(step["objective"][-1], objective), 1e-9
        yield f"network as published, alpha = {alpha:g}: gradients", difference(ours, theirs), 1e-8
    model.eval()
    network = published.published_twin(model)
    expected = torch.tensor([published.gradcon_score(network, image, GAMMA, means) for image in x], dtype=x.dtype)
    yield "network as published: gradcon scores", difference(model.score(x).scores["gradcon"], expected), 1e-9


def per_image_gradients(device: torch.device) -> Iterator[Check]:
    """All ways to each image's weight gradient, on the device in double precision."""
    torch.manual_seed(0)
    for channels_in, channels_out, side in ((10, 256, 8), (128, 64, 8), (16, 3, 16)):
        inputs, gradients = (
            torch.randn(5, channels, side, side, device=device, dtype=torch.float64)
            for channels in (channels_in, channels_out)
        )
        weight = torch.randn(channels_out, channels_in, 3, 3, device=device, dtype=torch.float64)
        loop = weight_gradients_loop(inputs, gradients, weight)
        name = f"gradients of each image, {channels_in} to {channels_out} channels"
        yield f"{name}: batched by loop", difference(weight_gradients_unfold(inputs, gradients, weight), loop), 1e-10
        batched, gram = (
            way(inputs, gradients, weight) for way in (dot_and_norm_from_gradients, dot_and_norm_from_gram)
        )
        yield f"{name}: Gram by batched", difference(gram, batched), 1e-10


def fixed_noise(noise: Callable[[Tensor, int, int], Tensor]) -> Callable[[Tensor, int, int], Tensor]:
    """Each step's noise is the first one's, whoever counts the steps."""
    return lambda x, stream, step: noise(x, stream, 0)


def repeated(device: torch.device, size: int) -> Iterator[Check]:
    """Two equal steps in float32 with PyTorch's deterministic kernels: equal to the bit."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    for alpha in (0.0, ALPHA):
        model = lively_model(size, alpha=alpha).float().to(device)
        x = images(8, size).float().to(device)
        first, second = (step_values(copy.deepcopy(model), x)["gradients"] for _ in range(2))
        yield f"the same step twice, alpha = {alpha:g}: gradients", difference(first, second), 0.0
    torch.use_deterministic_algorithms(False)


def all_checks(device: torch.device, size: int) -> Iterator[Check]:
    yield from against_cpu(device, size)
    yield from against_published(device, size)
    yield from per_image_gradients(device)
    yield from repeated(device, size)


def checks(part: Part) -> None:
    """The device's numbers against double precision on the CPU, and ways to compute the same against each other."""
    rows, wrong = {}, 0
    for name, difference, tolerance in all_checks(torch.device(part.device), part.size("side")):
        good = difference <= tolerance  # NaN is not
        wrong += not good
        rows[name] = {"difference": difference, "tolerance": tolerance, "good": good}
        print(f"{name:62} {difference:8.1e}  at most {tolerance:.0e}{'' if good else '  WRONG'}")
        part.add("checks", rows)
    print(f"{len(rows)} checks, {wrong} wrong")
    if wrong:
        sys.exit(1)
