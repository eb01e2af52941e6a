"""Pictures of the latent space: t-SNE panels (Figs. 5 and 6) and traversals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from solder_vae.data.transforms import to_images, to_tensor
from solder_vae.evaluation.latent_space import Unit, posterior_kl
from solder_vae.evaluation.style import BLACK, BLUE, GREY, VERMILION
from solder_vae.evaluation.tsne import Embedding
from solder_vae.models.autoencoder import Autoencoder

Panel = tuple[str, Embedding, ArrayLike, str]

_COLUMNS = 4  # the paper's row: four betas


def embedding_figure(panels: Sequence[Panel]) -> Figure:
    """t-SNE embeddings beside each other, as in the paper's Figs. 5 and 6: blue circles normal, red ones abnormal.

    Args:
        panels: of each its title (such as "beta = 3"), embedding, labels ``(N,)`` with 1 = abnormal, and the text to
            stand below, see :func:`numbers_text`.
    """
    columns = max(1, min(_COLUMNS, len(panels)))
    rows = math.ceil(len(panels) / columns) or 1
    figure = Figure(figsize=(0.4 + 3.0 * columns, 0.5 + 3.6 * rows), layout="constrained")
    for position, (title, embedding, labels, text) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, position)
        truth = np.asarray(labels)
        # In an order that does not depend on the labels, so that neither class is drawn on top of the other.
        order = np.random.default_rng(0).permutation(len(truth))
        colours = np.where(truth[order] == 1, VERMILION, BLUE)
        x, y = embedding.points[order].T
        axes.scatter(x, y, s=24, c=colours, alpha=0.8, edgecolors="white", linewidths=0.4)
        ticks = (0, 0.5, 1)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=ticks, yticks=ticks)
        axes.tick_params(labelsize=8, color=GREY)
        axes.set_title(_literal(title), fontsize=11)
        axes.set_xlabel(_literal(text), fontsize=9)
    handles = [
        Line2D([], [], linestyle="", marker="o", color=colour, label=name)
        for colour, name in ((BLUE, "normal"), (VERMILION, "abnormal"))
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def numbers_text(silhouette: float, purity: float, chance: float, k: int = 5) -> str:
    """The text below a t-SNE panel: the separation in the latent space itself."""
    score = "undefined" if math.isnan(silhouette) else f"{silhouette:.2f}"
    return f"silhouette {score}\n{k}-NN purity {purity:.2f}  (chance {chance:.2f})"


def traversal_figure(
    model: Autoencoder,
    image: NDArray[np.uint8],
    units: Sequence[Unit],
    span: tuple[float, float] = (-3.0, 3.0),
    steps: int = 7,
) -> Figure:
    """What the decoder makes of an image's posterior mean as one unit, or one whole channel, moves: a row for each.

    A unit is set to the values of ``span``, the prior's range, and all others stay. It belongs to one position of the
    latent map, so only a patch about the frame in the input changes. A channel is shifted by them at all positions
    together. At the end of a row stands where the two ends of the span differ.

    Args:
        model: VAE or beta-VAE, in evaluation mode.
        image: ``(S, S, 3)`` uint8, RGB.
        units: ``(channel, row, column)`` for a unit, ``(channel,)`` for a channel, one at least; see
            :func:`solder_vae.evaluation.latent_space.strongest_units`.
        span: first and last value, in the prior's standard deviations.
        steps: number of values.

    Raises:
        UserError: the model is a CAE: its code has no prior, so there is no range to move in.
    """
    divergence = posterior_kl(model, image[None])
    values = np.linspace(*span, steps)
    with torch.no_grad():
        mean = model.encoder(to_tensor(image[None]).to(model.device))[0]
        rows = [to_images(model.decoder(moved(mean, unit, values))) for unit in units]
    changes = [np.abs(row[-1].astype(int) - row[0].astype(int)).max(axis=2) for row in rows]
    most = max(1, max(int(change.max()) for change in changes))

    figure = Figure(figsize=(2.2 + 1.15 * (steps + 2), 0.6 + 1.25 * len(rows)), layout="constrained")
    axes = np.atleast_2d(np.asarray(figure.subplots(len(rows), steps + 2)))
    for line, unit, row, change in zip(axes, units, rows, changes, strict=True):
        _bare(line[0], image)
        line[0].set_ylabel(
            f"{_name(unit)}\nKL {divergence[unit].sum():.2f} nats\nmean {float(mean[0][unit].mean()):.2f}",
            rotation=0,
            ha="right",
            va="center",
            fontsize=9,
        )
        if len(unit) == 3:
            side = model.stride
            corner = (unit[2] * side - 0.5, unit[1] * side - 0.5)
            line[0].add_patch(Rectangle(corner, side, side, fill=False, edgecolor=VERMILION, linewidth=1.8))
        for place, picture, value in zip(line[1:-1], row, values, strict=True):
            _bare(place, picture)
            place.set_title(f"{value:+.3g}" if len(unit) == 1 and value else f"{value:.3g}", fontsize=9, pad=3)
        # By the square root, so that a single unit's small change is seen beside a channel's.
        shown = line[-1].imshow(change, cmap="magma", norm=PowerNorm(0.5, 0, most), interpolation="nearest")
        line[-1].set(xticks=[], yticks=[])
        line[-1].set_title(f"change, max {change.max()}", fontsize=9, pad=3)
    axes[0, 0].set_title("input", fontsize=9, pad=3)
    bar = figure.colorbar(shown, ax=axes[:, -1].tolist(), shrink=0.9, aspect=12 * len(rows))
    bar.set_label("difference of the two ends, grey levels of 255", fontsize=8, color=BLACK)
    bar.ax.tick_params(labelsize=8)
    return figure


def moved(mean: Tensor, unit: Unit, values: NDArray[np.float64]) -> Tensor:
    """The latents of a traversal.

    Args:
        mean: ``(1, C, H, W)``.
        unit: ``(channel, row, column)``: set to each value. ``(channel,)``: shifted by each value everywhere.
        values: ``(steps,)``.

    Returns:
        ``(steps, C, H, W)``.
    """
    latents = mean.repeat(len(values), 1, 1, 1)
    steps = torch.as_tensor(values, dtype=mean.dtype, device=mean.device)
    if len(unit) == 1:
        latents[:, unit[0]] += steps[:, None, None]
    else:
        channel, row, column = unit
        latents[:, channel, row, column] = steps
    return latents


def _name(unit: Unit) -> str:
    return f"channel {unit[0]} shifted by" if len(unit) == 1 else f"unit ({', '.join(map(str, unit))}) set to"


def _bare(axes: Axes, picture: NDArray[np.uint8]) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def _literal(text: str) -> str:
    """Text whose dollar signs begin no mathematics."""
    return text.replace("$", r"\$")
