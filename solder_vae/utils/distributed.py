"""The mathematics of data-parallel training: what the processes (*ranks*) must know of each other's images.

Each rank holds its share of the global batch. DistributedDataParallel averages the ranks' gradients, which is all
that an ordinary loss needs. Two things here are not means over images: batch norm's statistics and GradCon's cosine.
Both are functions of *sums* over the global batch. So ranks exchange those sums by :func:`all_reduce_sum`, which
autograd can differentiate any number of times. It differentiates the sum of all ranks' losses. The average of these
gradients over the ranks is the gradient of the mean loss, exactly that of one process with the global batch.

In a single process there is one rank, and nothing is exchanged. Starting the processes is
:mod:`solder_vae.training.data_parallel`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """How many processes share a batch; 1 without data parallelism."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum of the ranks' tensors, the same on all; differentiable any number of times.

    All ranks must call it equally often and in the same order.
    """
    return _Total.apply(x) if world_size() > 1 else x  # type: ignore[no-untyped-call]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return all_reduce_sum(gradients[0])  # each rank's tensor is in every rank's sum


def loss_weight(x: Tensor) -> Tensor | float:
    """What to multiply a rank's mean over its images ``(B, ...)`` by, so that the ranks' average is the mean of all.

    Other than 1 only where the shares differ, as in an epoch's last batch.
    """
    if world_size() == 1:
        return 1.0
    return len(x) * world_size() / all_reduce_sum(torch.tensor(float(len(x)), device=x.device))
