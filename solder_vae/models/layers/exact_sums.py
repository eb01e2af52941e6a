"""``trainer.precision=32-reproducible``: the same bits whatever the number of threads and of processes.

Floating-point sums depend on their order, and training turns a last bit into a whole step: a kink of LeakyReLU is
crossed, a small gradient changes its sign. So the same training with other threads or processes ends in other weights
(docs/distributed.md). Here nothing depends on how a batch is shared out:

* What concerns one image is computed as it always is. On one thread, the library's kernels give an image the same bits
  whatever else is in the batch, so a process uses one thread, and processes use the cores.
* What is summed over images is summed exactly, in any order: :func:`exact_sum`.

Two kinds of tensors take part. *Each image's* ``(B, ...)`` are those of this rank's images. *Shared* ones (weights,
statistics, the loss) are the same on all ranks, and so are their gradients, which are those of the loss of the global
batch. :func:`sum_of_images` and :func:`for_each_image` lead from one kind to the other and are each other's derivative;
a convolution with a shared kernel and its weight gradient are such a pair, too. All can be differentiated any number
of times, as GradCon's constraint asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from solder_vae.data.datamodule import images_dealt
from solder_vae.models.gradcon import one_by_one
from solder_vae.models.precision import REPRODUCIBLE, is_cpu
from solder_vae.utils.distributed import images_of_all, ranks, track
from solder_vae.utils.errors import UserError

MOST_IMAGES = 1 << 12
"""A batch of more would overflow: 52 bits of a double hold so many numbers of 40 bits. (Memory may end before: a step
holds the weight gradients of each image, 1.2 MB of the widest layer, twice.)"""

_BITS = 40
_AT_ONCE = 1 << 18  # numbers that are added together: they stay in the processor's cache


def exact_sum(x: Tensor) -> Tensor:
    """The sum over the images of all ranks, the same on all to the bit, in whatever order they come.

    Each number is rounded to a multiple of 2^-40 of the largest beside it. Those multiples are whole numbers, which
    doubles add without any rounding (Demmel and Nguyen, "Fast Reproducible Floating-Point Summation", 2013). So the
    result is as good as that of any other summation in single precision, or better.

    Args:
        x: each image's ``(B, ...)``; all ranks together have :data:`MOST_IMAGES` images at most.

    Returns:
        Shared ``(...)``.
    """
    images, shape = len(x), x.shape[1:]
    x = x.detach().reshape(images, -1)
    low, high = torch.aminmax(x, dim=0)
    largest = torch.maximum(-low, high)
    if ranks() > 1:
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    unit = torch.ldexp(torch.ones_like(largest, dtype=torch.float64), torch.frexp(largest).exponent - _BITS)
    columns = max(1, _AT_ONCE // images)
    parts = zip(torch.split(x, columns, 1), torch.split(unit, columns), strict=True)
    result = torch.cat([(part.double() / scale).round_().sum(0) for part, scale in parts])
    if ranks() > 1:
        distributed.all_reduce(result)
    return (result * unit).to(x.dtype).reshape(shape)


def sum_of_images(x: Tensor) -> Tensor:
    """:func:`exact_sum`, which autograd sees through: each image's ``(B, ...)`` to shared ``(...)``."""
    return _SumOfImages.apply(x)  # type: ignore[no-untyped-call, no-any-return]


def for_each_image(x: Tensor, images: int) -> Tensor:
    """Repeat a shared tensor for each of this rank's images, ``(...)`` to ``(B, ...)``."""
    return _ForEachImage.apply(x, images)  # type: ignore[no-untyped-call, no-any-return]


def mean_of_images(x: Tensor) -> Tensor:
    """The mean over the images of all ranks, each image's ``(B, ...)`` to shared ``(...)``."""
    return sum_of_images(x) / images_of_all(x)


class _SumOfImages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.images = len(x)
        return exact_sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return for_each_image(gradients[0], ctx.images)


class _ForEachImage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, images: int) -> Tensor:
        return x.expand(images, *x.shape).clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return sum_of_images(gradients[0]), None


class _Convolve(torch.autograd.Function):
    """``F.conv2d(x, weight, padding=1)`` of each image's ``(B, I, H, W)`` with a shared kernel ``(O, I, 3, 3)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        # For one image alone the library would take another kernel.
        return F.conv2d(x.repeat(2, 1, 1, 1) if len(x) == 1 else x, weight, padding=1)[: len(x)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        of_weight = _WeightGradient.apply(x, gradients[0].contiguous())  # type: ignore[no-untyped-call]
        return convolve(gradients[0], turned(weight)), of_weight


class _WeightGradient(torch.autograd.Function):
    """The gradient ``(O, I, 3, 3)`` of the kernel, from each image's input and gradient of the output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(x, gradient)
        return exact_sum(one_by_one(x, gradient, x.new_empty(gradient.shape[1], x.shape[1], 3, 3)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, gradient = ctx.saved_tensors
        return convolve(gradient, turned(gradients[0])), convolve(x, gradients[0])


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """See :class:`_Convolve`; always in the same memory order."""
    return _Convolve.apply(x.contiguous(), weight.contiguous())  # type: ignore[no-untyped-call, no-any-return]


def turned(weight: Tensor) -> Tensor:
    """The kernel ``(I, O, 3, 3)`` of the transposed convolution."""
    return weight.flip(2, 3).transpose(0, 1)


class Convolution(nn.Conv2d):
    """3x3, padding 1, without a bias."""

    def forward(self, input: Tensor) -> Tensor:
        return convolve(input, self.weight) if self.training else super().forward(input)


class BatchNorm(nn.BatchNorm2d):
    """Affine, with running statistics and a momentum; in training by the statistics of all ranks' images."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        images = len(input)

        def everywhere(channels: Tensor) -> Tensor:
            return for_each_image(channels, images)[..., None, None]

        count = images_of_all(input) * input[0, 0].numel()
        mean = sum_of_images(input.sum((2, 3))) / count
        centred = input - everywhere(mean)
        variance = sum_of_images(centred.square().sum((2, 3))) / count
        track(self, mean, variance, count)
        gain = self.weight * torch.rsqrt(variance + self.eps)
        return centred * everywhere(gain) + everywhere(self.bias)


def check_reproducible(accelerator: str, batch_size: int) -> None:
    """Refuse what cannot train reproducibly.

    Args:
        accelerator: Lightning's name of where the training runs.
        batch_size: of all ranks together.

    Raises:
        UserError: a GPU, whose kernels choose their order by the batch, or too large a batch.
    """
    if not is_cpu(accelerator):
        raise UserError(f"trainer.precision={REPRODUCIBLE} is for CPUs: add trainer.accelerator=cpu.")
    if batch_size > MOST_IMAGES:
        raise UserError(f"trainer.precision={REPRODUCIBLE} sums up to {MOST_IMAGES} images: lower data.batch_size.")


def check_shares(images: int, batch_size: int, processes: int) -> None:
    """Refuse a last batch that one process would train on and these cannot: each needs an image of it.

    Args:
        images: of the training.
        batch_size: of all ranks together.
        processes: ranks.

    Raises:
        UserError: the last batch has fewer images than there are processes.
    """
    if images_dealt(images, batch_size, processes) < images_dealt(images, batch_size, 1):
        last = images % batch_size
        raise UserError(
            f"{images} images leave a last batch of {last}, too few for trainer.devices={processes} to train as one "
            f"process would: use {last} processes or fewer, or another data.batch_size."
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread inside the block."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def reproducible(model: nn.Module) -> Iterator[None]:
    """Let a model train reproducibly inside the block, on one thread."""
    kinds: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: Convolution, nn.BatchNorm2d: BatchNorm}
    swapped = [(module, type(module)) for module in model.modules() if type(module) in kinds]
    try:
        for module, kind in swapped:
            module.__class__ = kinds[kind]
        with one_thread():
            yield
    finally:
        for module, kind in swapped:
            module.__class__ = kind
