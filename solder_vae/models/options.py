"""What the options of models and scores may be (imports no torch).

A class's constructor checks what it is given by these rules. So do a run's first checks, which know a class by its name
alone, since importing it would bring torch and take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from solder_vae.models.scores import FEATURES, GRADIENTS, NOISES, POSTERIOR, RECONSTRUCTION
from solder_vae.utils.checks import check_choice, check_flag, check_number, check_whole_number, is_number
from solder_vae.utils.errors import UserError, unknown_key

#: Takes a key and its value, and raises a UserError if the value does not fit.
Rule = Callable[[str, Any], None]
Rules = Mapping[str, Rule]

LATENT_CHANNELS = 10
WIDTH = 16  # channels of the first convolution; the deepest has 16 times as many
STRIDE = 8  # three poolings by 2: height and width must be multiples of it
HEADS = ("block", "conv")
LOG_BLOCKS, BLOCKS, CODE = FEATURE_KINDS = ("log_blocks", "blocks", "code")
STATISTICS, MEANS = BACKBONE_FEATURES = ("statistics", "means")

RECONSTRUCTS = frozenset({RECONSTRUCTION, GRADIENTS, FEATURES})  # what a model gives to scores that reconstructs ...
COMPARES = frozenset({FEATURES})  # ... and one that compares features alone


def check_options(rules: Rules, values: Mapping[str, Any], group: str = "model") -> None:
    """Check the options that stand in ``values``; others keep their defaults.

    Raises:
        UserError: one does not fit.
    """
    for name, rule in rules.items():
        if name in values:
            rule("beta" if name == "beta" else f"{'score' if name in EVERY_SCORE else group}.{name}", values[name])


def or_null(rule: Rule) -> Rule:
    """The rule, or null."""
    return lambda key, value: None if value is None else rule(key, value)


def _network(key: str, value: object) -> None:
    if not isinstance(value, Mapping | str | None):
        raise UserError(f"{key}={value} does not fit: use a _target_ and its arguments, a file's path, or null.")


def check_known_keys(group: str, given: Iterable[str], known: Iterable[str], target: str) -> None:
    """Check that a group has no key that its class does not take.

    Raises:
        UserError: it has one.
    """
    known = {*known, "_target_"}
    for key in given:
        if key not in known:
            keys = sorted(name for name in known if not name.startswith("_"))
            raise UserError(unknown_key(f"{group}.{key}", keys, target))


def _part(key: str, value: Any, others: Rules = MappingProxyType({})) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"{key}={value} does not fit: use a _target_ and its arguments, or null.")
    target = str(value.get("_target_"))
    if target in OF_OPTIMIZATION:
        check_known_keys(key, value, {*OF_OPTIMIZATION[target], *others}, target)
    check_options({**OF_OPTIMIZATION.get(target, {}), **others}, value, key)


def _schedule(key: str, value: Any) -> None:
    _part(key, value, {"interval": partial(check_choice, choices=("epoch", "step"))})


def _factor(key: str, value: object) -> None:
    if not is_number(value) or not 0 < value < 1:  # type: ignore[operator]
        raise UserError(f"{key}={value} does not fit: use a number between 0 and 1.")


def _reduction(key: str, value: object) -> None:
    if value not in ("sum", "mean"):
        raise UserError(f"{key}={value} is unknown: use sum (Eq. 1) or mean (the authors' published code).")


def _sum(key: str, value: object) -> None:
    if value != "sum":
        raise UserError(f"{key}={value} does not fit: this model sums over the latents, so leave it out.")


def _beta_of_vae(key: str, value: object) -> None:
    if value != 1:
        raise UserError(f"model=vae is beta = 1: for another weight type model=beta_vae beta={value}.")


def _odd(key: str, value: Any) -> None:
    check_whole_number(key, value, 1)
    if value % 2 == 0:
        raise UserError(f"{key}={value} does not fit: use an odd number.")


def _channels(key: str, values: Any, above_0: bool = False) -> None:
    fits = isinstance(values, Sequence) and len(values) == 3 and all(map(is_number, values))
    if not fits or (above_0 and 0 in values):
        raise UserError(f"{key}={values} does not fit: use a number for each of the three channels.")


def _layers(key: str, values: Any) -> None:
    whole = isinstance(values, Sequence) and all(type(value) is int and value >= 0 for value in values)
    if not whole or not values or sorted({*values}) != list(values):
        raise UserError(f"{key}={values} does not fit: use whole numbers in ascending order.")


def _number_or_numbers(key: str, value: Any) -> None:
    for each in value if isinstance(value, list | tuple) else [value]:
        check_number(key, each)


def _decays(key: str, values: Any) -> None:
    fits = isinstance(values, Sequence) and len(values) == 2 and all(map(is_number, values))
    if not fits or max(values) >= 1:
        raise UserError(f"{key}={values} does not fit: use two numbers, each 0 or more and below 1.")


def _decay(key: str, value: Any) -> None:
    if not is_number(value) or value >= 1:
        raise UserError(f"{key}={value} does not fit: use a number from 0 to below 1.")


def _several_scores(key: str, value: Any) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence) or len({*map(str, value)}) < 2:
        raise UserError(f"{key}={value} does not fit: name two scores or more, such as [recon,pixels].")


count = partial(check_whole_number, least=1)
whole_number = partial(check_whole_number, least=0)

#: Options that every ``conf/score`` file has, and that models take.
EVERY_SCORE: Rules = {
    **dict.fromkeys(("alpha", "gamma"), check_number),
    "latent": partial(check_choice, choices=("mean", "sample")),
    **dict.fromkeys(("draws", "constraint_every"), count),
    "noise": partial(check_choice, choices=NOISES),
}
AUTOENCODER: Rules = {
    **EVERY_SCORE,
    "features": partial(check_choice, choices=FEATURE_KINDS),
    "head": partial(check_choice, choices=HEADS),
    **dict.fromkeys(("latent_channels", "width"), count),
    **dict.fromkeys(("lr_patience", "seed"), whole_number),
    **dict.fromkeys(("lr", "weight_decay"), check_number),
    "lr_factor": _factor,
    **dict.fromkeys(("flips", "fast"), check_flag),
    **dict.fromkeys(("encoder", "decoder", "optimizer"), or_null(_part)),
    "scheduler": or_null(_schedule),
}
BETA_VAE: Rules = {**AUTOENCODER, "beta": check_number, "reduction": _reduction}
VAE_OPTIONS: Rules = {**BETA_VAE, "beta": _beta_of_vae}
ANNEALED_VAE: Rules = {**BETA_VAE, "reduction": _sum, "capacity": check_number, "capacity_steps": count}
BETA_TCVAE: Rules = {**BETA_VAE, "reduction": _sum, "images": or_null(count)}
BACKBONE: Rules = {
    "network": _network,
    "layers": _layers,
    "size": partial(check_whole_number, least=8),
    "pooling": _odd,
    "features": partial(check_choice, choices=BACKBONE_FEATURES),
    "mean": _channels,
    "std": partial(_channels, above_0=True),
    "seed": whole_number,
}

KNN: Rules = {"k": count, "whiten": check_flag, "thumbnails": check_flag}
CLASSIFIER: Rules = {"strength": or_null(partial(check_number, above_0=True)), "thumbnails": check_flag}
BLEND: Rules = {"of": _several_scores}

#: Of the scores that a config names by their class.
OF_SCORES: Mapping[str, Rules] = {
    "Knn": KNN,
    "Mahalanobis": {},
    "Classifier": CLASSIFIER,
    "Combined": {**KNN, **CLASSIFIER},
    "Pixels": {},
    "Blend": BLEND,
}

_positive = partial(check_number, above_0=True)

ADAM: Rules = {
    **dict.fromkeys(("lr", "weight_decay", "eps"), check_number),
    "betas": _decays,
    **dict.fromkeys(("amsgrad", "maximize", "capturable", "differentiable"), check_flag),
    **dict.fromkeys(("fused", "foreach"), or_null(check_flag)),
}
#: All arguments of the optimizers and schedules in ``conf/`` but what the run itself gives them. Any other class tells
#: itself what it takes, once torch is imported.
OF_OPTIMIZATION: Mapping[str, Rules] = {
    "torch.optim.Adam": {**ADAM, "decoupled_weight_decay": check_flag},
    "torch.optim.AdamW": ADAM,
    "solder_vae.models.muon.Muon": {
        **dict.fromkeys(("lr", "weight_decay", "eps"), check_number),
        "momentum": _decay,
        "betas": _decays,
    },
    "torch.optim.lr_scheduler.OneCycleLR": {
        **dict.fromkeys(("max_lr", "div_factor", "final_div_factor"), _positive),
        **dict.fromkeys(("pct_start", "base_momentum", "max_momentum"), _factor),
        **dict.fromkeys(("cycle_momentum", "three_phase"), check_flag),
        "total_steps": or_null(count),
        "anneal_strategy": partial(check_choice, choices=("cos", "linear")),
    },
    "torch.optim.lr_scheduler.ReduceLROnPlateau": {
        "factor": _factor,
        **dict.fromkeys(("patience", "cooldown"), whole_number),
        **dict.fromkeys(("threshold", "eps"), check_number),
        "min_lr": _number_or_numbers,
        "mode": partial(check_choice, choices=("min", "max")),
        "threshold_mode": partial(check_choice, choices=("rel", "abs")),
    },
}


class Kind(NamedTuple):
    """What is known of a model's class without importing it."""

    name: str
    rules: Rules
    provides: frozenset[str] = RECONSTRUCTS | {POSTERIOR}
    stride: int = STRIDE
    scores: tuple[str, ...] = ()  # that it is always tested under, beside the paper's


OF_MODELS: Mapping[str, Kind] = {
    "CAE": Kind("cae", AUTOENCODER, RECONSTRUCTS),
    "VAE": Kind("vae", VAE_OPTIONS),
    "BetaVAE": Kind("beta_vae", BETA_VAE),
    "AnnealedVAE": Kind("annealed_vae", ANNEALED_VAE),
    "BetaTCVAE": Kind("beta_tcvae", BETA_TCVAE),
    "Backbone": Kind("backbone", BACKBONE, COMPARES, 1, ("mahalanobis", "knn")),
}


def own_class(target: object) -> str:
    """The name of a class of this room that a config's ``_target_`` names; "" where it is somebody else's."""
    return str(target).rpartition(".")[2] if str(target).startswith("solder_vae.models.") else ""


def check_admitted(model: str, primary: str, admitted: Iterable[str]) -> None:
    """Check that a model is tested under the score that decides.

    Raises:
        UserError: it is not.
    """
    if primary not in admitted:
        raise UserError(
            f"score={primary} does not fit model={model}: use one of {', '.join(f'score={name}' for name in admitted)}."
        )
