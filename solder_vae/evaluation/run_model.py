"""The one way through a trained network: batches of images in, reconstructions and scores of each batch out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from solder_vae.data.table import Images
from solder_vae.data.transforms import to_tensor
from solder_vae.models.detector import Detector
from solder_vae.models.scores import ModelOutput
from solder_vae.utils.errors import UserError

AT_ONCE = 64


def batches_of(images: Images, size: int = AT_ONCE) -> Iterator[Tensor]:
    """Images ``(N, S, S, 3)`` uint8 as tensors ``(B, 3, S, S)`` in [-1, 1], in their order."""
    return (to_tensor(images[start : start + size]) for start in range(0, len(images), size))


def run_model(
    model: Detector,
    batches: Iterable[Tensor],
    names: Collection[str] | None = None,
    needs: Collection[str] = frozenset(),
    types: Sequence[str] | None = None,
) -> Iterator[ModelOutput]:
    """Pass each batch through the network once; scores, maps, pictures and verdicts are all made from the output.

    Args:
        model: in evaluation mode.
        batches: images ``(B, 3, S, S)`` in [-1, 1].
        names: of the scores to compute; all by default.
        needs: what to give beside what these scores need, see :attr:`solder_vae.models.scores.Score.needs`.
        types: the component type of each image of all batches, one after the other; None where they are not known.

    Raises:
        UserError: a score, which may be the user's own, is not one number for each image.
    """
    start = 0
    for x in batches:
        of_batch = None if types is None else types[start : start + len(x)]
        start += len(x)
        # GradCon needs gradients even where the caller has switched them off.
        with torch.inference_mode(False):
            output = model.score((x.clone() if x.is_inference() else x).to(model.device), names, needs, of_batch)
        for name, values in output.scores.items():
            if values.shape != (len(x),):
                shape = tuple(values.shape)
                raise UserError(f"score={name} gives {shape} for {len(x)} images: it must give one number for each.")
        yield output
