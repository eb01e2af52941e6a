"""A pretrained network that stays as it is: good joints are told from bad ones by its features alone.

Features are means and deviations over positions, so the squared distance from the nearest normal is the mean over
positions of a map, and each score says where in the image it comes from (:meth:`Backbone.anomaly`).
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solder_vae.models.detector import Detector
from solder_vae.models.efficientnet_lite import EfficientNetLite0
from solder_vae.models.neighbours import Knn
from solder_vae.models.networks import channel_statistics, log_scale
from solder_vae.models.options import BACKBONE, COMPARES, MEANS, STATISTICS, Rules
from solder_vae.models.scores import ModelOutput, Score, score_with
from solder_vae.utils.errors import UserError
from solder_vae.utils.plugins import is_named

#: Arguments of other libraries that fetch weights; a checkpoint has them already.
_FETCHING = {"pretrained": False, "weights": None}


LOG_UNIT = 1.0
"""Of the logarithmic scale: half of a channel's typical mean and deviation in EfficientNet-Lite0."""

_CLOSE = 1e-3


class Backbone(Detector, name="backbone"):
    """A frozen network and what normals look like to it.

    Its features are means and deviations over positions of some layers' maps, each averaged over neighbouring
    positions before, on a logarithmic scale, and behind them the maxima. Scores that compare neighbours do not read
    the maxima.

    Args:
        score: the primary score: the one whose threshold decides.
        scores: further scores by name, each with its own parameters; knn and mahalanobis are always there.
        network: None for EfficientNet-Lite0; ``_target_`` and arguments of another network, which takes images
            ``(B, 3, H, W)`` and returns maps ``(B, C_i, H_i, W_i)``; or the path of a TorchScript file that does.
        layers: numbers of the blocks of EfficientNet-Lite0, or places in what another network returns; ascending.
        size: pixels a side that smaller images are enlarged to.
        pooling: side of the average over neighbouring positions, odd; 1 for none.
        features: "statistics", or "means": means as they are, as in earlier versions, whose checkpoints don't say so.
        mean: of each channel in [0, 1], which the network was trained with ...
        std: ... and its deviation.
        seed: of the run, for its files: nothing here is drawn.

    Raises:
        UserError: a value does not fit.
    """

    provides: ClassVar[frozenset[str]] = COMPARES
    rules: ClassVar[Rules] = BACKBONE
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        score: str = Knn.name,
        scores: Mapping[str, Mapping[str, Any]] | None = None,
        network: Mapping[str, Any] | str | None = None,
        layers: Sequence[int] = (4, 10),
        size: int = 128,
        pooling: int = 3,
        features: str = MEANS,
        mean: Sequence[float] = (0.498, 0.498, 0.498),
        std: Sequence[float] = (0.502, 0.502, 0.502),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(network, str):
            network = self.hparams["network"] = str(Path(network).resolve())
        self.hparams |= {"layers": list(layers), "mean": list(mean), "std": list(std)}
        self.layers, self.size, self.pooling, self.features = list(layers), size, pooling, features
        self.seed = seed
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.network = self._frozen(make_network(network, layers, fetch=False))
        # The map needs the nearest normal, whatever decides.
        self.make_scores(score, {Knn.name: {}, **(scores or {})}, self.provides, own={})

    def prepare(self) -> None:
        """Take the pretrained weights. (A checkpoint has them inside.)

        Raises:
            UserError: they are not there, or the network does not return what :attr:`layers` asks for.
        """
        if isinstance(self.network, EfficientNetLite0):
            self.network.load_pretrained()
        elif isinstance(self.hparams["network"], Mapping):
            self.network = self._frozen(make_network(self.hparams["network"], self.layers, fetch=True)).to(self.device)
        self.describe(torch.zeros(1, 3, self.size, self.size, device=self.device))

    @staticmethod
    def _frozen(network: nn.Module) -> nn.Module:
        # Filters of single channels are twice as fast with the channels last in memory.
        return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def plugins(self) -> list[str]:
        return sorted({*super().plugins, *source_of(self.hparams["network"])})

    @classmethod
    def unknown(cls, arguments: Mapping[str, Any]) -> list[str]:
        return [name for name in source_of(arguments.get("network")) if not is_named(name)]

    # features ---------------------------------------------------------------------------------------------------

    def maps_of(self, x: Tensor) -> list[Tensor]:
        """The maps ``(B, C_i, H_i, W_i)`` of images ``(B, 3, H, W)`` in [-1, 1] that features are made of."""
        if (side := min(x.shape[-2:])) < self.size:
            shape = [round(length * self.size / side) for length in x.shape[-2:]]
            x = F.interpolate(x, shape, mode="bilinear")
        x = ((x + 1) / 2 - self.mean) / self.std
        returned = self.network(x.contiguous(memory_format=torch.channels_last))
        chosen = returned if isinstance(self.network, EfficientNetLite0) else pick(returned, self.layers)
        if self.pooling == 1:
            return chosen
        return [F.avg_pool2d(maps, self.pooling, 1, self.pooling // 2) for maps in chosen]

    @property
    def neighbour_features(self) -> int:
        with torch.no_grad():
            blank = torch.zeros(1, 3, self.size, self.size, device=self.device)
            channels = sum(values.shape[1] for values in self.maps_of(blank))
        return channels if self.features == MEANS else 2 * channels

    @torch.no_grad()
    def describe(self, x: Tensor) -> Tensor:
        return self.summary_of(self.maps_of(x))

    def summary_of(self, maps: Sequence[Tensor]) -> Tensor:
        """Features ``(B, D)`` of maps: each one's means, with their deviations behind them; at last all maxima."""
        maxima = [values.amax((2, 3)) for values in maps]
        if self.features == MEANS:
            return torch.cat([*(values.mean((2, 3)) for values in maps), *maxima], 1)
        return torch.cat([log_scale(channel_statistics(maps), LOG_UNIT), *maxima], 1)

    # scoring ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def score(
        self,
        x: Tensor,
        names: Collection[str] | None = None,
        needs: Collection[str] = frozenset(),
        types: Sequence[str] | None = None,
    ) -> ModelOutput:
        return self.score_traced(x, self.chosen_scores(names), types)

    def score_traced(self, x: Tensor, wanted: Mapping[str, Score], types: Sequence[str] | None = None) -> ModelOutput:
        maps = self.maps_of(x)
        features = self.summary_of(maps)
        output = score_with(ModelOutput(x, None, None, None, None, None, {}, features, types=types), wanted)
        # Scores that are fitted after others are shown outputs before all are fitted.
        fitted = wanted and all(len(part) for part in self.explaining.state().values())
        return output._replace(anomaly=self.anomaly(maps, output)) if fitted else output

    @property
    def explaining(self) -> Score:
        """The score whose map is shown: the primary one where it has parts, else knn."""
        primary = self.scores[self.primary_score]
        return primary if primary.has_parts else self.scores[Knn.name]

    def anomaly(self, maps: Sequence[Tensor], output: ModelOutput) -> Tensor:
        """Where the squared distance comes from: ``(B, H_1, W_1)``, of the finest map's positions.

        The distance is that of :attr:`explaining`. The mean over positions is its square: with means f of values f_p
        over positions p, and the distance's weights w at f, the sum over channels of (f - n) w is the mean over p of
        that of (f_p - n) w. Deviations are shared out by their squares, which are means of (f_p - f)^2, and a scale by
        its slope between f and n.
        """
        origin, weights = self.explaining.parts(output)
        finest = maps[0].shape[-2:]
        layers, first = [], 0
        for values in maps:
            part = slice(first, first := first + values.shape[1])
            of, weight = origin[:, part], weights[:, part]
            mean = values.mean((2, 3))
            if self.features == STATISTICS:
                of, weight = unscaled(of, weight, mean)
            of_layer = ((values - of[:, :, None, None]) * weight[:, :, None, None]).sum(1)
            if self.features == STATISTICS:
                part = slice(first, first := first + values.shape[1])
                squares = (values - mean[:, :, None, None]).square()
                deviation = squares.mean((2, 3)).sqrt()
                of, weight = unscaled(origin[:, part], weights[:, part], deviation)
                of, weight = of.square(), weight / (deviation + of).clamp_min(1e-9)
                of_layer = of_layer + ((squares - of[:, :, None, None]) * weight[:, :, None, None]).sum(1)
            layers.append(spread(of_layer, finest))
        return torch.stack(layers).sum(0)


def unscaled(origin: Tensor, weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Of statistics ``(B, C)``: o and w so that (value - o) w is what it is on the logarithmic scale."""
    of = torch.sinh(origin) * LOG_UNIT
    away = values - of
    close = away.abs() < _CLOSE * (values.abs() + LOG_UNIT)
    slope = (log_scale(values, LOG_UNIT) - origin) / torch.where(close, 1.0, away)
    return of, weights * torch.where(close, 1 / (values.square() + LOG_UNIT**2).sqrt(), slope)


def spread(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Maps ``(B, h, w)`` as ``(B, *shape)``, finer, with the same mean over positions."""
    if tuple(values.shape[-2:]) == tuple(shape):
        return values
    finer = F.interpolate(values[:, None], list(shape), mode="nearest")[:, 0]
    # Where the sides are no multiples of the coarser ones, some positions are repeated more often than others.
    return finer + (values.mean((1, 2)) - finer.mean((1, 2)))[:, None, None]


def pick(returned: Any, layers: Sequence[int]) -> list[Tensor]:
    """The maps at some places of what a network returned: a map, or several in a list, a tuple or a mapping.

    Raises:
        UserError: they are not there, or are no maps.
    """
    if isinstance(returned, Tensor):
        returned = [returned]
    every = list(returned.values()) if isinstance(returned, Mapping) else list(returned)
    if layers[-1] >= len(every):
        raise UserError(
            f"model.layers={list(layers)} does not fit the network, which returns {len(every)} maps: "
            f"use places from 0 to {len(every) - 1}."
        )
    chosen: list[Tensor] = [every[layer] for layer in layers]
    for layer, maps in zip(layers, chosen, strict=True):
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            shape = f" of shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else ""
            raise UserError(
                f"model.layers={list(layers)}: the network returns no map (B, C, H, W) at place {layer}, "
                f"but a {type(maps).__name__}{shape}."
            )
    return chosen


# networks of others ---------------------------------------------------------------------------------------------


class Script(nn.Module):
    """A TorchScript file's network, which can be sent to another process."""

    def __init__(self, script: Any) -> None:
        super().__init__()
        self.script = script

    def forward(self, x: Tensor) -> Any:
        return self.script(x)

    def __reduce__(self) -> tuple[Any, ...]:
        buffer = io.BytesIO()
        torch.jit.save(self.script, buffer)
        return _script_of, (buffer.getvalue(),)


def _script_of(content: bytes) -> Script:
    return Script(torch.jit.load(io.BytesIO(content), map_location="cpu")).eval()  # type: ignore[no-untyped-call]


def source_of(network: Any) -> list[str]:
    """What must be named to load a network: the module of its ``_target_``, or its file; nothing for our own."""
    if isinstance(network, Mapping):
        return [str(network.get("_target_")).rpartition(".")[0]]
    return [] if network is None else [str(network)]


def make_network(network: Mapping[str, Any] | str | None, layers: Sequence[int], fetch: bool) -> nn.Module:
    """The network that a config or a checkpoint names.

    Args:
        network, layers: see :class:`Backbone`.
        fetch: whether another library may fetch its weights, as its arguments say.

    Raises:
        UserError: the user has not named where its code lies (a file never causes code to run), or it can't be made.
    """
    if network is None:
        return EfficientNetLite0(layers)
    if unnamed := Backbone.unknown({"network": network}):
        raise UserError(f"model.network needs plugins=[{unnamed[0]}]: give that if you trust it.")
    if isinstance(network, str):
        try:
            return Script(torch.jit.load(network, map_location="cpu"))  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise UserError(f"model.network={network} is no TorchScript file: write it by torch.jit.save.") from error
    arguments = {name: value for name, value in network.items() if name != "_target_"}
    if not fetch:
        arguments |= {name: value for name, value in _FETCHING.items() if name in arguments}
    module, _, name = str(network["_target_"]).rpartition(".")
    try:
        made = getattr(import_module(module), name)(**arguments)
    except Exception as error:  # of somebody else's code
        raise UserError(f"model.network ({network['_target_']}) can't be made: {error}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"model.network ({network['_target_']}) is no torch.nn.Module, but a {type(made).__name__}.")
    return made
