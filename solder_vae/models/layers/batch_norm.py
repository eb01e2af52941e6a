"""All batch norms: twice differentiable on a CPU, before a pooling, over ranks, folded into a convolution.

GradCon's constraint differentiates a gradient. Autograd would compute the second derivative of a batch norm in a dozen
passes over the map; here it is in closed form.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from solder_vae.models.layers.convolution import (
    aten,
)
from solder_vae.utils.distributed import all_reduce_sum


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals ``norm(conv(x))`` in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """``norm(x)`` in training mode, running statistics updated, in the memory order of ``x``.

    Args:
        x: ``(B, C, H, W)`` in any dense memory order.
        norm: affine, with running statistics and a momentum.
    """
    count = x.numel() // x.shape[1]
    if count == 1:
        return norm(x)  # type: ignore[no-any-return]  # raises: one value has no variance
    order = sorted(range(4), key=x.stride, reverse=True)
    permuted = x.permute(order)
    channel = order.index(1)
    y, mean, rstd = BatchNorm.apply(  # type: ignore[no-untyped-call]
        permuted.reshape(prod(permuted.shape[:channel]), x.shape[1], -1), norm.weight, norm.bias, norm.eps
    )
    update_running_stats(norm, mean, rstd.pow(-2) - norm.eps, count)
    result: Tensor = y.reshape(permuted.shape).permute(*(order.index(axis) for axis in range(4)))
    return result


class BatchNorm(torch.autograd.Function):
    """Batch norm of ``(N, C, L)`` by the statistics of each channel; also returns its mean and 1 / deviation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        k = rows_at_once(x)
        if k == 1:
            y, mean, rstd = aten.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        else:
            mean, variance = statistics(x, weight)
            rstd = torch.rsqrt(variance + eps)
            repeated = (part.repeat(k) for part in (weight, bias, mean, variance))
            y = aten.native_batch_norm(joined(x, k), *repeated, False, 0.0, eps)[0].view(x.shape)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.mark_non_differentiable(mean, rstd)
        ctx.eps = eps
        return y, mean, rstd

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> Any:
        return *BatchNormBackward.apply(gradient, *ctx.saved_tensors, ctx.eps), None  # type: ignore[no-untyped-call]


def statistics(x: Tensor, weight: Tensor) -> Any:
    """Mean and variance of each channel of ``(N, C, L)``, in the precision of ``weight``."""
    k = rows_at_once(x, 2 * NARROW)
    unused = torch.zeros_like(weight).repeat(k)  # running statistics, which say in what precision to sum
    means, variances = aten.batch_norm_update_stats(joined(x, k) if k > 1 else x, unused, unused, 0.0)
    if k == 1:
        return means, variances
    means, variances = means.view(k, -1), variances.view(k, -1)
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


class BatchNormBackward(torch.autograd.Function):
    r"""The backward pass of :class:`BatchNorm`, and its own backward pass.

    Per channel, with n values, r = 1 / deviation, :math:`\hat x = r (x - \mu)`, sums and means over the channel, and
    the projection :math:`P(g) = r (g - \overline{g} - \hat x\,\overline{g \hat x})`, the backward pass maps g to

    .. math:: d = \gamma P(g), \quad d_\gamma = \textstyle\sum g \hat x, \quad d_\beta = \sum g.

    Given the gradients u, v, w with respect to these three, the second pass gives

    .. math::
        \bar g &= \gamma P(u) + v \hat x + w \\
        \bar\gamma &= \textstyle\sum u\,P(g)
            = r \big(\sum u g - \sum u \sum g / n - \sum u \hat x \sum g \hat x / n\big) \\
        \bar x &= -r\,\overline{g \hat x}\;\gamma P(u) - r\,\overline{u \hat x}\; d
            - \gamma \bar\gamma\, r \hat x / n + v P(g)

    P is symmetric, hence the first; in the last, the products with :math:`\hat x` are differentiated through
    :math:`\hat x` (whose own backward pass is P) and the factor r through :math:`dr = -r^2\,\overline{\hat x\,dx}`.
    So all it takes is one more ordinary backward pass (of u), one sum, and one linear combination.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, eps: float) -> Any:
        output = native_backward(gradient, x, weight, mean, rstd, eps)
        ctx.save_for_backward(gradient, x, weight, mean, rstd, *output)
        ctx.set_materialize_grads(False)
        ctx.eps = eps
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, u: Tensor | None, v: Tensor | None, w: Tensor | None) -> Any:
        g, x, weight, mean, rstd, d, sum_gx, sum_g = ctx.saved_tensors
        n = x.numel() // len(weight)
        u = torch.zeros_like(g) if u is None else u
        projected, sum_ux, sum_u = native_backward(u, x, weight, mean, rstd, ctx.eps)  # gamma P(u), sums
        weight_bar = rstd * ((u * g).sum((0, 2)) - sum_u * sum_g / n - sum_ux * sum_gx / n)
        scale = -weight * weight_bar * rstd.square() / n  # of x - mean
        x_bar = torch.addcmul(column(-scale * mean), projected, column(-rstd * sum_gx / n))
        x_bar = torch.addcmul(x_bar, d, column(-rstd * sum_ux / n))
        x_bar = torch.addcmul(x_bar, x, column(scale))
        g_bar = projected
        if v is not None:
            x_bar += column(v) * native_backward(g, x, torch.ones_like(weight), mean, rstd, ctx.eps)[0]
            g_bar = g_bar + column(v * rstd) * (x - column(mean))
        if w is not None:
            g_bar = g_bar + column(w)
        return g_bar, x_bar, weight_bar, None, None, None


def native_backward(gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, eps: float) -> Any:
    """d, sum of g x-hat and sum of g, as :class:`BatchNormBackward` names them."""
    k = rows_at_once(x)
    if k == 1:
        mask = [True, True, True]
        return aten.native_batch_norm_backward(gradient, x, weight, None, None, mean, rstd, True, eps, mask)
    repeated = (part.repeat(k) for part in (mean, rstd))
    _, *sums = aten.native_batch_norm_backward(
        joined(gradient, k), joined(x, k), weight.repeat(k), None, None, *repeated, True, eps, [False, True, True]
    )
    sum_gx, sum_g = (part.view(k, -1).sum(0) for part in sums)
    n = x.numel() // len(weight)
    gain = weight * rstd
    slope = -gain * rstd * sum_gx / n
    d = torch.addcmul(wide_row(-gain * sum_g / n - slope * mean, k), joined(x, k), wide_row(slope, k))
    d.addcmul_(joined(gradient, k), wide_row(gain, k))
    return d.to(gradient.dtype).view(x.shape), sum_gx, sum_g


NARROW = 16  # channels; torch's loops over fewer are mostly overhead


def rows_at_once(x: Tensor, narrow: int = NARROW) -> int:
    """How many rows of ``(N, C, 1)`` to see as one of as many times the channels; 1 of another shape or not narrow."""
    rows, channels, length = x.shape
    k = 1
    while length == 1 and channels < narrow and k < 2 * NARROW and rows % (2 * k) == 0:
        k *= 2
    return k


def joined(x: Tensor, k: int) -> Tensor:
    """``(N, C, 1)`` as ``(N / k, k C, 1)``."""
    return x.reshape(-1, k * x.shape[1], 1)


def wide_row(channels: Tensor, k: int) -> Tensor:
    """``(C,)`` to ``(k C, 1)``, which broadcasts against what :func:`joined` returns."""
    return channels.repeat(k)[:, None]


def column(channels: Tensor) -> Tensor:
    """``(C,)`` to ``(C, 1)``, which broadcasts against ``(N, C, L)``."""
    return channels[:, None]


def pooled_batch_norm(x: Tensor, norm: nn.BatchNorm2d, sign: Tensor) -> Tensor:
    """``F.max_pool2d(norm(sign * x), 2)`` in training mode, running statistics updated.

    A batch norm without negative scales keeps the order of values. So what is pooled can be chosen first, and only that
    is normalised.

    Args:
        x: ``(B, C, H, W)``, channels last in memory; each channel has been multiplied by its ``sign``.
        norm: affine, with running statistics and a momentum.
        sign: of each of its scales, ``(C,)``: 1 or -1.
    """
    y, mean, variance = PooledBatchNorm.apply(x, norm.weight * sign, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
    update_running_stats(norm, mean * sign, variance, x.numel() // x.shape[1])
    return y  # type: ignore[no-any-return]


class PooledBatchNorm(torch.autograd.Function):
    r"""Batch norm by the statistics of each channel, then maxima of 2 x 2; also returns mean and variance.

    The gradient with respect to the map is that of :class:`BatchNormBackward`, where g is 0 but at the maxima. So it is
    :math:`-\gamma r\,(\overline{g} + \hat x\,\overline{g \hat x})` everywhere, which is a batch norm of x with other
    scales, and at the maxima :math:`\gamma r g` more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        mean, variance = statistics(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1], 1), weight)
        pooled, where = aten.max_pool2d_with_indices(x, [2, 2], [2, 2])
        y = aten.native_batch_norm(pooled, weight, bias, mean, variance, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, bias, mean, variance, pooled, where)
        ctx.mark_non_differentiable(mean, variance)
        ctx.eps = eps
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> Any:
        x, weight, bias, mean, variance, pooled, where = ctx.saved_tensors
        if torch.is_grad_enabled():  # it will be differentiated again: the constraint asks that of the decoder alone
            y = BatchNorm.apply(x.flatten(2), weight, bias, ctx.eps)[0]  # type: ignore[no-untyped-call]
            y = y.gather(2, where.flatten(2)).view_as(g)
            wanted = [part for part in (x, weight, bias) if part.requires_grad]
            found = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
            return *(next(found) if part.requires_grad else None for part in (x, weight, bias)), None
        channels = len(weight)
        rstd = torch.rsqrt(variance + ctx.eps)
        _, sum_gx, sum_g = aten.native_batch_norm_backward(
            g, pooled, weight, None, None, mean, rstd, True, ctx.eps, [False, True, True]
        )
        gain = weight * rstd
        scale, shift = (-gain * total / (x.numel() // channels) for total in (sum_gx, sum_g))
        x_bar, at_maxima = (
            aten.native_batch_norm(values, scale, shift, mean, variance, False, 0.0, ctx.eps)[0]
            for values in (x, pooled)
        )
        at_maxima = torch.addcmul(at_maxima, g, column(gain)[:, None]).to(x.dtype)
        x_bar, at_maxima, where = (values.permute(0, 2, 3, 1) for values in (x_bar, at_maxima, where))
        places = torch.add(torch.arange(channels), where, alpha=channels)  # in an image, as it lies in memory
        scatter_bits(*(values.reshape(len(x), -1) for values in (x_bar, places, at_maxima)))
        return x_bar.permute(0, 3, 1, 2), sum_gx, sum_g, None


def scatter_bits(target: Tensor, places: Tensor, values: Tensor) -> None:
    """``target.scatter_(1, places, values)``, as integers of that size, which torch moves up to four times as fast."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[target.element_size()]
    target.view(bits).scatter_(1, places, values.view(bits))


def global_batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """``norm(x)`` in training mode by the statistics of all ranks' images; running statistics come out equal on all.

    Unlike ``nn.SyncBatchNorm`` it runs on a CPU, too, and can be differentiated twice, as GradCon's constraint asks.

    Args:
        x: this rank's share ``(B, C, H, W)``.
        norm: affine, with running statistics and a momentum.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    sums = torch.cat([wide.sum((0, 2, 3)), wide.new_full((1,), x.numel() // x.shape[1])])
    sums = all_reduce_sum(sums)
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = wide - mean[:, None, None]
    variance = all_reduce_sum(centred.square().sum((0, 2, 3))) / count
    update_running_stats(norm, mean, variance, count)
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    return torch.addcmul(norm.bias[:, None, None], centred, gain[:, None, None]).to(x.dtype)


@torch.no_grad()
def update_running_stats(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: Tensor | int) -> None:
    """Update the running statistics by those of a batch.

    Args:
        norm: with running statistics and a momentum.
        mean: of each channel ``(C,)``.
        variance: of each channel ``(C,)``, divided by ``count``.
        count: values of a channel.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), norm.momentum)
    norm.num_batches_tracked.add_(1)
