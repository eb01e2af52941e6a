"""What every model has in common: images in, scores out, a checkpoint that decides on new joints.

:class:`~solder_vae.models.autoencoder.Autoencoder` is the base of those that reconstruct.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from solder_vae.models import appearance, combined, mahalanobis  # noqa: F401  # which register their scores
from solder_vae.models.classifier import Classifier, Likeness
from solder_vae.models.history import Entry, entries
from solder_vae.models.neighbours import Knn, Near
from solder_vae.models.options import Rules, check_admitted, check_options
from solder_vae.models.precision import FULL
from solder_vae.models.scores import Code, ModelOutput, Score, make_score, paper_scores, score_class
from solder_vae.utils.errors import UserError, check_name


class Detector(nn.Module):
    """The base of all models. A subclass gives its name, ``class Mine(Detector, name="mine")``, and :meth:`score`.

    Attributes:
        provides: to scores, see :attr:`solder_vae.models.scores.Score.needs`.
        rules: what its arguments may be, see :mod:`solder_vae.models.options`; checked before it is made.
        stride: heights and widths of images must be multiples of it.
        hparams: what makes the model anew from a checkpoint: plain values only.
        scores: those that it is tested under, by name.
        primary_score: the one whose threshold decides.
        preprocessing: how a picture becomes its input; set by the run ...
        decision_state: ... and thresholds, once they are set; both travel with the weights.
        log: what was done to it, see :mod:`solder_vae.models.history`; travels with the weights, too.
        precision: of training, see :mod:`solder_vae.models.precision`.
        seed: of the run that made it.
        alpha: weight of the gradient constraint in its training; 0 without one.
    """

    registry: ClassVar[dict[str, type[Detector]]] = {}
    name: ClassVar[str]
    provides: ClassVar[frozenset[str]] = frozenset()
    rules: ClassVar[Rules] = {}
    stride: int = 1
    hparams: dict[str, Any]
    scores: dict[str, Score]
    primary_score: str
    seed: int = 0
    alpha: float = 0.0

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:  # checkpoints hold the name, not a path: loading must not import what a file says
            check_name(Detector.registry, name, cls, "model")
            cls.name = name
            Detector.registry[name] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if not hasattr(cls, "name"):
            raise UserError(
                f"{cls.__module__}.{cls.__qualname__} has no name: write class {cls.__name__}(..., name=...)."
            )
        model = super().__new__(cls)
        model.hparams = arguments(cls, *args, **kwargs)
        check_options(cls.rules, model.hparams)
        return model

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing: dict[str, Any] | None = None
        self.log: list[Entry] = []
        self.precision = FULL
        self.decision_state: dict[str, Any] | None = None

    def make_scores(
        self,
        primary: str,
        extra: Mapping[str, Mapping[str, Any]],
        provides: frozenset[str],
        own: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Make :attr:`scores`: the paper's that the model admits, further ones, and those that belong beside them.

        Args:
            primary: the one that decides.
            extra: parameters of further scores by name.
            provides: what the model gives to scores.
            own: parameters that the model itself has for a score.

        Raises:
            UserError: one does not fit the model, or the primary one is not among them.
        """
        wanted = dict.fromkeys(paper_scores(provides))
        given = {name: dict(parameters) for name, parameters in extra.items()}
        for name, parameters in extra.items():
            kind = score_class(name)
            beside = kind.beside_of(parameters)
            wanted |= dict.fromkeys((*beside, name))
            for other in beside:
                given[other] = {**kind.parameters_beside(other, parameters), **given.get(other, {})}
        check_admitted(self.name, primary, wanted)
        self.scores = {}
        for name in wanted:
            parameters = {**own.get(name, {}), **given.get(name, {})}
            check_options(score_class(name).rules, parameters, "score")
            self.scores[name] = make_score(name, parameters)
        for name, score in self.scores.items():
            if missing := score.needs - provides:
                raise UserError(f"score={name} needs a {' and '.join(sorted(missing))}, which model={self.name} lacks.")
        self.primary_score = primary

    @property
    def admitted_scores(self) -> tuple[str, ...]:
        """Names of the scores that the model is tested under."""
        return tuple(name for name, score in self.scores.items() if score.usable)

    def chosen_scores(self, names: Collection[str] | None) -> dict[str, Score]:
        """The scores of these names (None: all) and those that they read, in the order in which they are computed."""
        usable = {name: score for name, score in self.scores.items() if score.usable}
        if names is None:
            return usable
        read = {other for name in names if name in usable for other in usable[name].beside}
        return {name: score for name, score in usable.items() if name in names or name in read}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def score(
        self,
        x: Tensor,
        names: Collection[str] | None = None,
        needs: Collection[str] = frozenset(),
        types: Sequence[str] | None = None,
    ) -> ModelOutput:
        """Score images ``(B, 3, H, W)`` in [-1, 1]; the model must be in evaluation mode.

        Args:
            x: the images.
            names: of the scores to compute; all by default.
            needs: what to give beside what these scores need, see :attr:`solder_vae.models.scores.Score.needs`.
            types: the component type of each image; None where none is known.
        """
        raise NotImplementedError

    def describe(self, x: Tensor) -> Tensor:
        """Features ``(B, D)`` of images ``(B, 3, H, W)`` in [-1, 1], which normals are compared by."""
        raise NotImplementedError

    def likeness(self, features: Tensor | None) -> list[Likeness] | None:
        """Which type of known defect each of ``(B, D)`` features looks like; None where no types are told apart."""
        for score in self.scores.values():
            if isinstance(score, Classifier) and score.tells_types and features is not None:
                return score.likeness(features)
        return None

    def twin(self) -> Self:
        """This model for another thread: modules of its own, as GradCon hangs hooks on them, and the same tensors."""
        return copy.deepcopy(self, {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())})

    def near(self, features: Tensor, types: Sequence[str] | None = None) -> list[tuple[Near, ...]]:
        """Which normal and which known defect each of ``(B, D)`` features is nearest to, as far as pictures are kept.

        Args:
            features: of B images ...
            types: ... and their component types; None where none is known.
        """
        found: list[list[Near]] = []
        for score in self.scores.values():
            if isinstance(score, Knn) and len(score.pictures):
                found.append(score.near(features, types))
            elif isinstance(score, Classifier) and len(score.pictures):
                found.append(score.near(features))
        return list(zip(*found, strict=True)) or [()] * len(features)

    @property
    def known_defects(self) -> list[str]:
        """The types of the defects that a score of the model has learned from, sorted; none where it knows none."""
        return sorted(
            {kind for score in self.scores.values() if isinstance(score, Classifier) for kind in score.defects}
        )

    @property
    def neighbour_features(self) -> int | None:
        """How many of the features, the first ones, scores that compare neighbours read; None: all."""
        return None

    def prepare(self) -> None:
        """What a model does that is not trained, before its scores are fitted: nothing here."""

    def score_traced(self, x: Tensor, wanted: Mapping[str, Score]) -> ModelOutput:
        """Of a model that does not reconstruct: :meth:`score` in operations that an exporter can trace."""
        raise NotImplementedError

    @classmethod
    def unknown(cls, arguments: Mapping[str, Any]) -> list[str]:
        """What a checkpoint's arguments of the model need that the user has not named: nothing here."""
        return []

    def validation_terms(self, x: Tensor, code: Code, step: int) -> dict[str, Tensor]:
        """The objective's terms on the ``step``-th validation batch, averaged over its images; none here."""
        return {}

    def validation_summary(self) -> dict[str, float]:
        """What a validation says beside the means of its terms; the next one starts anew."""
        return {}

    def diagnostics(self) -> dict[str, NDArray[Any]]:
        """Numbers of the latest validation by name, one value for each latent unit; each name becomes a CSV file."""
        return {}

    # checkpoints ------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model"] = self.name
        checkpoint["preprocessing"] = self.preprocessing
        checkpoint["precision"] = self.precision
        checkpoint["calibration"] = self.decision_state
        checkpoint["plugins"] = self.plugins
        checkpoint["scores"] = self.score_states()
        if self.log:
            checkpoint["log"] = self.log

    def score_states(self) -> dict[str, dict[str, Tensor]]:
        """What the fitted scores have learned, by name."""
        return {name: score.state() for name, score in self.scores.items() if score.fitted}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Not the precision: a run that goes on from the checkpoint may have another.
        self.preprocessing = checkpoint["preprocessing"]
        self.decision_state = checkpoint["calibration"]
        self.log = entries(checkpoint.get("log"))
        for name, state in checkpoint.get("scores", {}).items():  # not in files of earlier versions
            if name in self.scores and state:
                self.scores[name].load_state(state)

    @property
    def parts(self) -> list[Any]:
        """What the model is made of, as far as a class of somebody's own can stand there."""
        return [self, *self.scores.values()]

    @property
    def plugins(self) -> list[str]:
        """The modules outside this package that the model is made of: loading it needs them to be imported."""
        modules = {type(part).__module__ for part in self.parts}
        return sorted(module for module in modules if not module.startswith("solder_vae."))


def arguments(kind: type[Detector], /, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What a model is called with, by name, and the defaults of what it is not called with, its bases' included."""
    values: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Detector) and "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters
            values |= {name: item.default for name, item in parameters.items() if item.default is not item.empty}
    signature = inspect.signature(kind.__init__)
    bound = signature.bind_partial(None, *args, **kwargs).arguments
    for name, value in list(bound.items())[1:]:
        values |= value if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return values
