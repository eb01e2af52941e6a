"""The training step's operations in the forms that a CPU computes fastest; each equals the layer it stands for.

* :func:`winograd_conv3x3`: a 3x3 convolution of a small map in a quarter of the multiplications (Lavin and Gray 2016).
* :func:`interpolated_conv3x3`: interpolation and convolution at once, with the channels mixed at low resolution.
Both are products of matrices, which autograd can differentiate any number of times. They are made for training: they
take plain tensors and return them as ``(B, C, H, W)``, in any memory order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from numpy.polynomial import polynomial
from torch import Tensor

aten = torch.ops.aten

# convolutions -------------------------------------------------------------------------------------------------------

TILE = 4  # outputs of a tile along each axis: F(4x4, 3x3)
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)  # and infinity; these keep the rounding error low (Barabasz et al. 2018)


def toom_cook() -> tuple[Tensor, Tensor, Tensor]:
    """Matrices with ``y = A @ ((G @ w) * (B @ x))`` for the 4 outputs of 6 inputs ``x`` under a 3-tap kernel ``w``.

    Correlation is the transpose of a product of polynomials, which is pointwise once they are evaluated at 6 points.

    Returns:
        A ``(4, 6)``, B ``(6, 6)`` and G ``(6, 3)``, in double precision.
    """
    taps, points = 3, len(POINTS) + 1
    a, b, g = (torch.zeros(shape, dtype=torch.float64) for shape in ((TILE, points), (points, points), (points, taps)))
    for row, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        a[:, row] = point ** torch.arange(TILE, dtype=torch.float64)
        g[row] = point ** torch.arange(taps, dtype=torch.float64) / prod(point - other for other in others)
        b[row, : points - 1] = torch.from_numpy(polynomial.polyfromroots(others))
    a[-1, -1] = g[-1, -1] = 1  # the point at infinity: the leading coefficients
    b[-1] = torch.from_numpy(polynomial.polyfromroots(POINTS))
    return a, b, g


@cache
def tile_transforms(size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """:func:`toom_cook`'s A and B along an axis of zero-padded length ``size``, for all of its tiles.

    Returns:
        From the 6 values of each tile to its outputs, and from the inputs to them; both ``(T, 6, size)``.
    """
    a, b, _ = toom_cook()
    outputs = torch.zeros(size // TILE, 6, size, dtype=torch.float64)
    inputs = torch.zeros(size // TILE, 6, size + 2, dtype=torch.float64)
    for tile, start in enumerate(range(0, size, TILE)):
        outputs[tile, :, start : start + TILE] = a.T
        inputs[tile, :, start : start + TILE + 2] = b
    return outputs.to(device, dtype), inputs[..., 1:-1].to(device, dtype)  # what lies on the padding meets zeros


@cache
def kernel_transform(device: torch.device, dtype: torch.dtype) -> Tensor:
    """:func:`toom_cook`'s G along both axes: ``(36, 9)``."""
    g = toom_cook()[2]
    return torch.kron(g, g).to(device, dtype)


def winograd_pays(channels_in: int, channels_out: int, height: int, width: int) -> bool:
    """Whether :func:`winograd_conv3x3` takes less than the sum over 9 taps, by multiply-adds for each pixel.

    Those of its transforms count 2.5 times: such small matrices are bound by what they read and write.
    """
    transforms = (6 / 4 * width + 36 / 16 * height) * (channels_in + channels_out)
    products = 36 / 16 * channels_in * channels_out
    return height % TILE == width % TILE == 0 and 2.5 * transforms + products < 9 * channels_in * channels_out


def winograd_conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """``F.conv2d(x, weight, padding=1)`` for maps whose height and width are multiples of 4.

    Args:
        x: ``(B, I, H, W)``.
        weight: ``(O, I, 3, 3)``.
    """
    channels_out, channels_in, *_ = weight.shape
    outputs, inputs = zip(*(tile_transforms(size, x.device, x.dtype) for size in x.shape[-2:]), strict=True)
    tiles = ToTiles.apply(x.permute(0, 2, 3, 1), *inputs)  # type: ignore[no-untyped-call]
    kernels = kernel_transform(x.device, x.dtype) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    kernels = kernels.reshape(36, channels_in, channels_out)
    products = TileProducts.apply(tiles.reshape(-1, 36, channels_in), kernels)  # type: ignore[no-untyped-call]
    y: Tensor = FromTiles.apply(products.reshape(*tiles.shape[:-1], channels_out), *outputs)  # type: ignore[no-untyped-call]
    return y.permute(0, 3, 1, 2)


class ToTiles(torch.autograd.Function):
    """``torch.einsum("tah,ubw,nhwc->untabc", rows, columns, x)``, contiguous: each tile's 6 x 6 values at once.

    One axis after the other, which takes a fifth of the multiply-adds of both at once. Each product is one of small
    matrices for each line or image: between the rows of a whole batch, a power of two apart, a CPU's caches lose three
    quarters of the speed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        batch, height, width, channels = x.shape
        lines = x.reshape(batch * height, width, channels)
        part = torch.bmm(columns.flatten(0, 1).expand(len(lines), -1, -1), lines).view(batch, height, len(columns), -1)
        tiles = x.new_empty(len(columns), batch, len(rows) * 6, 6 * channels)
        operator = rows.flatten(0, 1).expand(batch, -1, -1)
        for number, result in enumerate(tiles):
            torch.bmm(operator, part[:, :, number], out=result)
        return tiles.view(len(columns), batch, len(rows), 6, 6, channels)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return FromTiles.apply(gradient, *ctx.saved_tensors), None, None  # type: ignore[no-untyped-call]


class FromTiles(torch.autograd.Function):
    """The adjoint of :class:`ToTiles`: ``torch.einsum("tah,ubw,untabc->nhwc", rows, columns, tiles)``."""

    @staticmethod
    def forward(ctx: Any, tiles: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        batch, channels = tiles.shape[1], tiles.shape[-1]
        height, width = rows.shape[-1], columns.shape[-1]
        part = tiles.new_empty(batch, height, len(columns), 6 * channels)
        operator = rows.flatten(0, 1).mT.expand(batch, -1, -1)
        for number, tile in enumerate(tiles):
            torch.bmm(operator, tile.reshape(batch, -1, 6 * channels), out=part[:, :, number])
        lines = part.view(batch * height, -1, channels)
        x = torch.bmm(columns.flatten(0, 1).mT.expand(len(lines), -1, -1), lines)
        return x.view(batch, height, width, channels)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ToTiles.apply(gradient, *ctx.saved_tensors), None, None  # type: ignore[no-untyped-call]


class TileProducts(torch.autograd.Function):
    """``torch.einsum("npi,pio->npo", tiles, kernels)``, its result and all derivatives in just that order in memory."""

    @staticmethod
    def forward(ctx: Any, tiles: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(tiles, kernels)
        result = tiles.new_empty(*tiles.shape[:2], kernels.shape[2])
        torch.bmm(tiles.transpose(0, 1), kernels, out=result.transpose(0, 1))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        tiles, kernels = ctx.saved_tensors
        for_tiles, for_kernels = ctx.needs_input_grad
        kernel_gradient = None
        if for_kernels and kernels.stride(-1) == 1:
            kernel_gradient = KernelGradient.apply(tiles, gradient)  # type: ignore[no-untyped-call]
        elif for_kernels:  # in the memory order of the kernels: another is summed and copied ten times as slowly
            kernel_gradient = KernelGradient.apply(gradient, tiles).mT  # type: ignore[no-untyped-call]
        return TileProducts.apply(gradient, kernels.mT) if for_tiles else None, kernel_gradient  # type: ignore[no-untyped-call]


class KernelGradient(torch.autograd.Function):
    """``torch.einsum("npi,npo->pio", tiles, gradient)``: the backward pass of :class:`TileProducts`, and its own."""

    @staticmethod
    def forward(ctx: Any, tiles: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(tiles, gradient)
        return torch.bmm(tiles.permute(1, 2, 0), gradient.transpose(0, 1))

    @staticmethod
    def backward(ctx: Any, kernels: Tensor) -> Any:
        tiles, gradient = ctx.saved_tensors
        for_tiles, for_gradient = ctx.needs_input_grad
        return (
            TileProducts.apply(gradient, kernels.mT) if for_tiles else None,  # type: ignore[no-untyped-call]
            TileProducts.apply(tiles, kernels) if for_gradient else None,  # type: ignore[no-untyped-call]
        )


BAND, HALO = 64, 2  # pixels that are interpolated together, and their neighbours on either side that matter


def interpolation_pays(channels_in: int, channels_out: int, height: int, width: int) -> bool:
    """Whether :func:`interpolated_conv3x3` to twice the size needs fewer multiply-adds than doing one after the other.

    Args:
        channels_in: of the convolution.
        channels_out: of the convolution.
        height: before the interpolation.
        width: before the interpolation.
    """
    height, width = (BAND + 2 * HALO if band_count(size) > 1 else size for size in (height, width))
    together = 9 * channels_in * channels_out + (18 * height + 12 * width) * channels_out
    apart = 36 * channels_in * channels_out + (2 * height + 4 * width) * channels_in
    return together < apart


def interpolated_conv3x3(x: Tensor, weight: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``F.conv2d(rows @ x @ columns.T, weight, padding=1)`` with the channels mixed before the interpolation.

    A tap of the kernel mixes the channels and shifts the map. Mixing commutes with the interpolation, so it is done
    on the small map, and the shift joins the interpolation: ``y = sum_ij rows_i @ (x mixed by tap ij) @ columns_j.T``.

    Args:
        x: ``(B, I, h, w)``.
        weight: ``(O, I, 3, 3)``.
        rows: interpolation of the height ``(2h, h)``, see :func:`interpolate`.
        columns: interpolation of the width ``(2w, w)``.

    Returns:
        ``(B, O, 2h, 2w)``.
    """
    batch, channels_in, small_height, small_width = x.shape
    channels_out, height, width = len(weight), len(rows), len(columns)
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels_in)
    y = None
    for shifted_rows, taps in zip(shifts(rows), weight.permute(2, 1, 3, 0), strict=True):
        mixed = (pixels @ taps.reshape(channels_in, -1)).reshape(batch, small_height, -1)  # (B, h, w * 3 * O)
        operator = bands(shifted_rows).expand(batch, -1, -1, -1).flatten(0, 1)
        windows = band_windows(mixed).flatten(0, 1)
        y = torch.bmm(operator, windows) if y is None else y.baddbmm_(operator, windows)
    assert y is not None
    y = y.reshape(batch, -1, y.shape[-1])[:, :height].reshape(batch * height, small_width * 3, channels_out)
    if channels_out < 8:
        # Products with so few columns crawl. Those of whole lines are faster, though they multiply many zeros.
        y = BandProduct.apply(y.flatten(1), *line_blocks(columns, channels_out, y.dtype))  # type: ignore[no-untyped-call]
    else:
        y = interpolate(shifts(columns).permute(1, 2, 0).reshape(width, -1), y, 3)  # by a matrix (W, w * 3)
    return y.reshape(batch, height, width, channels_out).permute(0, 3, 1, 2)


Blocks = Sequence[tuple[slice, slice, Tensor]]  # of a matrix: rows, columns, and the block that they share


class BandProduct(torch.autograd.Function):
    """``x @ matrix`` for a constant matrix that is 0 far from its diagonal: only blocks about it are multiplied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Blocks, back: Blocks) -> Tensor:
        """By :func:`blocks_of` the matrix and, for the backward pass, of its transpose."""
        ctx.blocks = there, back
        y = x.new_empty(len(x), there[-1][1].stop)
        for rows, columns, block in there:
            torch.mm(x[:, rows], block, out=y[:, columns])
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        there, back = ctx.blocks
        return BandProduct.apply(gradient, back, there), None, None  # type: ignore[no-untyped-call]


@lru_cache(maxsize=64)
def line_blocks(columns: Tensor, channels: int, dtype: torch.dtype) -> tuple[Blocks, Blocks]:
    """:func:`interpolated_conv3x3`'s last product as one of whole lines ``(w * 3 * O)``: its blocks, there and back."""
    matrix = shifts(columns).permute(2, 0, 1).flatten(0, 1).to(dtype)  # of one channel: (w * 3, W)
    return blocks_of(matrix, 16, channels), blocks_of(matrix.T, 24, channels)


def blocks_of(matrix: Tensor, width: int, channels: int) -> Blocks:
    """So many columns of a matrix at a time, with the rows in which they are not 0; each entry for all channels."""
    identity = torch.eye(channels, device=matrix.device, dtype=matrix.dtype)
    found = []
    for start in range(0, matrix.shape[1], width):
        block = matrix[:, start : start + width]
        used = block.any(1).nonzero()
        first, end = int(used.min()), int(used.max()) + 1
        rows = slice(first * channels, end * channels)
        columns = slice(start * channels, (start + block.shape[1]) * channels)
        found.append((rows, columns, torch.kron(block[first:end].contiguous(), identity)))
    return found


def shifts(matrix: Tensor) -> Tensor:
    """The rows moved down by one, as they are, and up by one, zeros moving in: ``(3, *matrix.shape)``."""
    padded = F.pad(matrix, (0, 0, 1, 1))
    return torch.stack([padded[tap : tap + len(matrix)] for tap in range(3)])


def interpolate(matrix: Tensor, x: Tensor, per: int = 1) -> Tensor:
    """``matrix @ x`` where the matrix doubles a length by bicubic interpolation.

    Such a matrix is a band: what is far from the diagonal is 0. Of a long one only the blocks that hold the band are
    multiplied, so the work grows with the length and not with its square.

    Args:
        matrix: ``(2h, h * per)``; each of its rows may be shifted by one.
        x: ``(N, h * per, K)``.
        per: columns of the matrix that belong to one pixel.

    Returns:
        ``(N, 2h, K)``.
    """
    y = bands(matrix, per) @ band_windows(x, per)
    return y.flatten(1, 2)[:, : len(matrix)]


def band_count(size: int) -> int:
    """Into how many bands a length is divided; short ones stay whole."""
    return 1 if size <= 2 * BAND else -(-size // BAND)


def bands(matrix: Tensor, per: int = 1) -> Tensor:
    """The blocks ``(T, rows, columns)`` of :func:`interpolate`'s matrix that are not 0 everywhere."""
    size = len(matrix) // 2
    count = band_count(size)
    if count == 1:
        return matrix[None]
    surplus = count * BAND - size
    padded = F.pad(matrix, (HALO * per, (HALO + surplus) * per, 0, 2 * surplus))
    blocks = padded.unfold(1, (BAND + 2 * HALO) * per, BAND * per).reshape(count, 2 * BAND, count, -1)
    return blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def band_windows(x: Tensor, per: int = 1) -> Tensor:
    """``(N, h * per, K)`` to ``(N, T, columns, K)``: what the blocks of :func:`bands` multiply."""
    size = x.shape[1] // per
    count = band_count(size)
    if count == 1:
        return x[:, None]
    surplus = count * BAND - size
    padded = F.pad(x, (0, 0, HALO * per, (HALO + surplus) * per))
    return padded.unfold(1, (BAND + 2 * HALO) * per, BAND * per).mT


# weight gradients ---------------------------------------------------------------------------------------------------


def weight_gradients_loop(inputs: Tensor, output_gradients: Tensor, weight: Tensor) -> Tensor:
    """Each image's weight gradient ``(B, O, I, 3, 3)``, by the library's own kernel: the fastest way on a CPU."""
    return torch.cat(
        [
            torch.ops.aten.convolution_backward(
                output_gradients[i : i + 1], inputs[i : i + 1], weight, None,
                [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False],
            )[1][None]
            for i in range(len(inputs))
        ]
    )  # fmt: skip
