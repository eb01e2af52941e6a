"""Muon: momentum made orthogonal before it moves a kernel (Jordan et al. 2024), Adam for all that is no matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

#: Of the quintic that is repeated: large at 0, so that small singular values grow soon (Jordan et al. 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
REPETITIONS = 5
RMS = 0.2  # about that of Adam's updates, so that learning rates mean the same (Liu et al. 2025)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Nearly the orthogonal matrix next to this one: the same singular vectors, singular values of 0.7 to 1.2.

    Those far below the norm (a thousandth) are smaller still.

    Newton-Schulz: X <- a X + b (X X^T) X + c (X X^T)^2 X, five times, from X / ||X||. Each time X is multiplied by a
    polynomial of X X^T; so the polynomials are multiplied, which are small where X is wide, and X once by all of them.

    Args:
        matrix: ``(rows, columns)``, real and dense, in single precision or double: half precision's products do not do.

    Returns:
        As large.
    """
    if len(matrix) > matrix.shape[1]:
        turned: Tensor = orthogonalized(matrix.T).T
        return turned
    a, b, c = COEFFICIENTS
    x: Tensor = matrix / matrix.norm().clamp_min(1e-7)
    gram = x @ x.T
    identity: Tensor = torch.eye(len(x), dtype=x.dtype, device=x.device)
    total: Tensor = identity
    for _ in range(REPETITIONS):
        factor = a * identity + b * gram + c * (gram @ gram)
        total = factor @ total
        gram = factor @ gram @ factor  # all are polynomials of the first one, so they commute
    return total @ x


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions, Adam for the others, both with the same learning rate.

    A kernel ``(out, ...)`` is a matrix with a row for each output. Its step is its momentum (Nesterov's) made
    orthogonal, so that what few images show is learnt as fast as what all do. ``torch.optim.Muon`` takes matrices
    alone, and multiplies wide ones five times.

    Args:
        params: as for every optimizer of torch.
        lr: learning rate.
        momentum: of the kernels' gradients, from 0 to below 1.
        weight_decay: of the kernels, decoupled: each step takes off ``lr * weight_decay`` of them.
        betas: Adam's.
        eps: Adam's.

    Raises:
        ValueError: a value is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        momentum: float = 0.8,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        if not all(0 <= value < float("inf") for value in (lr, weight_decay, eps)):
            raise ValueError("lr, weight_decay and eps must be finite, 0 or more")
        if not all(0 <= decay < 1 for decay in (momentum, *betas)):
            raise ValueError("momentum and betas must be from 0 to below 1")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "betas": tuple(betas), "eps": eps}
        super().__init__(params, {**defaults, "fused": True})  # so a loaded state's steps are moved to the device, too

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do a step; the value of ``closure``, which computes the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in moved:
                if parameter.ndim > 1:
                    self._move_kernel(parameter, group)
            self._move_others([parameter for parameter in moved if parameter.ndim < 2], group)
        return loss

    def _move_kernel(self, kernel: Tensor, group: dict[str, Any]) -> None:
        gradient, state = kernel.grad, self.state[kernel]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["momentum"], group["momentum"]).flatten(1)
        step = orthogonalized(ahead).view(kernel.shape)
        kernel.mul_(1 - group["lr"] * group["weight_decay"])
        kernel.sub_(step, alpha=group["lr"] * RMS * max(ahead.shape) ** 0.5)

    def _move_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                means = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
                self.state[parameter].update(means, step=torch.zeros((), device=parameter.device))
        states = [self.state[parameter] for parameter in parameters]
        first, second = group["betas"]
        adam(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )
