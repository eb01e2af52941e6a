"""Anomaly scores, per image, batched; higher = more anomalous. The paper's three, and the base of your own.

A score is computed from a model's output for a batch, :class:`ModelOutput`. ``latent`` says which latent is decoded:
"mean" takes the posterior mean (deterministic, the default), "sample" draws ``draws`` latents and averages the scores,
as the paper samples. The noise of the draws is the same for every image, or each image has its own, made from its
pixels; either way it is the same at every call, so that a score depends on the image and the model alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from solder_vae.utils.errors import UserError, check_name, refusal

if TYPE_CHECKING:  # a run's options are checked with the help of this module, before torch is imported
    from torch import Tensor

Code = tuple["Tensor", ...]  # the encoder's output for a batch: (z,) or (mu, logvar)

SHARED, PER_IMAGE = NOISES = ("shared", "per_image")  # noise of sampled latents

#: What a score may need of a model.
RECONSTRUCTION, POSTERIOR, GRADIENTS, FEATURES = NEEDS = ("reconstruction", "posterior", "gradients", "features")


class ModelOutput(NamedTuple):
    """A model's output for a batch.

    Attributes:
        images: ``(B, 3, H, W)`` in [-1, 1], as they went in.
        code: the encoder's output: (z,) or (mu, logvar); None, like the next two, of a model that does not reconstruct.
        recon: reconstructions of the shape of ``images``; the mean over the draws of a sampled latent.
        error: squared error of each image ``(B,)`` (Eq. 2).
        divergence: each image's divergence as it enters the objective, weight included, ``(B,)``; None without one.
        grad_loss: each image's gradient loss ``(B,)`` in [-1, 1] (Eq. 4); None before there are reference gradients.
        scores: each score ``(B,)`` by name.
        features: ``(B, D)``, see :meth:`solder_vae.models.detector.Detector.describe`; None where no score needs them.
        anomaly: a map ``(B, h, w)`` of the model's own that says where the anomaly is; None where that is told from
            ``recon``.
        types: each image's component type ("": not known); None where none is known.
    """

    images: Tensor
    code: Code | None
    recon: Tensor | None
    error: Tensor | None
    divergence: Tensor | None
    grad_loss: Tensor | None
    scores: dict[str, Tensor]
    features: Tensor | None = None
    anomaly: Tensor | None = None
    types: Sequence[str] | None = None


class Examples(Protocol):
    """Images as the trained model sees them: in evaluation mode, not augmented.

    Iterating passes them through the network and gives its outputs, batch by batch.

    Attributes:
        defects: each image's defect type, or "normal".
        types: each image's component type; None where none is known.
        features: ``(N, D)``, on the CPU; computed once.
        thumbnails: small pictures ``(N, s, s, 3)`` uint8; None where there are none.
    """

    @property
    def defects(self) -> Sequence[str]: ...

    @property
    def types(self) -> Sequence[str] | None: ...

    @property
    def features(self) -> Tensor: ...

    @property
    def thumbnails(self) -> Tensor | None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ModelOutput]: ...


class FitData(NamedTuple):
    """What a fitted score may learn from.

    Attributes:
        normals: training normals; of more than :data:`MEMORY` a seeded choice.
        validation: the normals that thresholds are set by. Iterating gives the scores of :attr:`Score.beside`, too.
        known: defects that may be learnt from; None without any.
        neighbour_features: how many of the features, the first ones, neighbours are told by; None: all.
        left_out: what :meth:`Score.leave_one_out` gives of the scores that are fitted already, by name; empty where
            the validation normals are enough.
    """

    normals: Examples
    validation: Examples
    known: Examples | None = None
    neighbour_features: int | None = None
    left_out: Mapping[str, Tensor] = MappingProxyType({})


MEMORY = 20_000
"""Training normals that fitted scores see at most: a memory of all would make checkpoints of gigabytes."""


class Score:
    """An anomaly score. A subclass gives its name and takes plain values: ``class Mine(Score, name="mine")``.

    Attributes:
        name: what ``score=NAME``, metrics.json and checkpoints call it.
        needs: of "reconstruction", "posterior" (a Gaussian posterior and its divergence), "gradients" (GradCon's
            gradient losses) and "features". A model that lacks one of them is not tested under the score.
        beside: names of scores that are computed before this one (it may read them in ``output.scores``) and tested
            beside it.
        fitted: whether :meth:`fit` must see the training normals first; :meth:`state` then travels in the checkpoint.
        needs_known: whether it cannot be fitted without known defects; a run that has none refuses it as the primary
            score, and otherwise goes without it.
        exportable: whether :meth:`__call__` is made of tensor operations that ONNX has.
        has_parts: whether it is a distance that :meth:`parts` shares out.
        leaves_one_out: whether :meth:`leave_one_out` tells what fewer than 20 validation normals cannot.
        rules: what its parameters may be, see :mod:`solder_vae.models.options`; checked before it is made.
    """

    registry: ClassVar[dict[str, type[Score]]] = {}
    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    beside: tuple[str, ...] = ()
    fitted: ClassVar[bool] = False
    needs_known: ClassVar[bool] = False
    exportable: ClassVar[bool] = False
    has_parts: ClassVar[bool] = False
    leaves_one_out: ClassVar[bool] = False
    rules: ClassVar[Mapping[str, Callable[[str, Any], None]]] = MappingProxyType({})

    @property
    def within_types(self) -> bool:
        """Whether the score, as it is fitted, depends on an image's type."""
        return False

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not isinstance(cls.needs, Set) or not {*cls.needs} <= {*NEEDS}:
            raise UserError(
                f"{cls.__name__}.needs={cls.needs!r} does not fit: use a set of some of {', '.join(NEEDS)}."
            )
        if name is not None:
            check_name(Score.registry, name, cls, "score")
            cls.name = name
            Score.registry[name] = cls

    @property
    def usable(self) -> bool:
        """Whether it can be computed; one that lacked what it learns from is left out wherever scores are computed."""
        return True

    @classmethod
    def beside_of(cls, given: Mapping[str, Any]) -> tuple[str, ...]:
        """:attr:`beside` of a score with these parameters."""
        return cls.beside

    @classmethod
    def parameters_beside(cls, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those of this score's parameters that the score ``name``, which is :attr:`beside`, takes, too."""
        return {}

    def check_normals(self, count: int) -> None:
        """Check that so many training normals are enough to fit it; most scores take any number.

        Raises:
            UserError: they are not.
        """

    def fit(self, data: FitData) -> None:
        """Learn from what the trained model says of normals; most scores learn nothing."""

    def leave_one_out(self, data: FitData) -> Tensor:
        """The score ``(N,)`` of each training normal that it is fitted to, as if it were not; right after :meth:`fit`,
        with the same data, where :attr:`leaves_one_out`.
        """
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """What :meth:`fit` learned, for the checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""

    def __call__(self, output: ModelOutput) -> Tensor:
        """The score of each image ``(B,)``, on the device of the output."""
        raise NotImplementedError

    def parts(self, output: ModelOutput) -> tuple[Tensor, Tensor]:
        """An origin o and weights w, each ``(B, C)``, of an output's features f ``(B, D)``.

        The squared distance is the sum over the first C features of (f - o) w.
        """
        raise NotImplementedError


class Recon(Score, name="recon"):
    """Mean squared error of each image (Eq. 2), 0 or greater."""

    needs = frozenset({RECONSTRUCTION})
    exportable = True

    def __call__(self, output: ModelOutput) -> Tensor:
        assert output.error is not None
        return output.error


class Elbo(Score, name="elbo"):
    """Minus the ELBO of each image, reduced as the training objective is: recon + beta * KL.

    Eq. 3 as printed is the ELBO itself (its KL term and its error both negative); a score must grow with the anomaly,
    so this is its negative, the objective L of that image.
    """

    needs = frozenset({RECONSTRUCTION, POSTERIOR})
    exportable = True

    def __call__(self, output: ModelOutput) -> Tensor:
        assert output.error is not None
        assert output.divergence is not None
        return output.error + output.divergence


class GradConScore(Score, name="gradcon"):
    """Squared error plus gamma times the image's own gradient loss.

    Args:
        gamma: weight of the gradient loss, 0.12 in Kwon et al.
    """

    needs = frozenset({RECONSTRUCTION, GRADIENTS})
    exportable = True

    def __init__(self, gamma: float = 0.12) -> None:
        self.gamma = gamma

    def __call__(self, output: ModelOutput) -> Tensor:
        assert output.error is not None
        assert output.grad_loss is not None
        return output.error + self.gamma * output.grad_loss


#: The paper's scores. Every model is tested under those that it admits.
PAPER_SCORES: tuple[type[Score], ...] = (Recon, Elbo, GradConScore)
SCORES = tuple(kind.name for kind in PAPER_SCORES)


def paper_scores(provides: frozenset[str]) -> list[str]:
    """The names of the paper's scores that a model admits which provides so much."""
    return [kind.name for kind in PAPER_SCORES if kind.needs <= provides]


def score_class(name: str) -> type[Score]:
    """The class of a score's name.

    Raises:
        UserError: it is not known (nothing is imported here).
    """
    if name not in Score.registry:
        raise UserError(
            f"score={name} is unknown: use {', '.join(Score.registry)}, or name its module by plugins=[...]."
        )
    return Score.registry[name]


def make_score(name: str, parameters: Mapping[str, Any]) -> Score:
    """The score of a name.

    Raises:
        UserError: it is not known, or does not take these parameters.
    """
    kind = score_class(name)
    try:
        return kind(**parameters)
    except UserError:
        raise
    except Exception as error:
        raise refusal(error, kind, "score", f"score={name}") from error


def score_with(output: ModelOutput, scores: Mapping[str, Score]) -> ModelOutput:
    """The output with these scores, each of which sees those before it."""
    for name, score in scores.items():
        output = output._replace(scores={**output.scores, name: score(output)})
    return output
