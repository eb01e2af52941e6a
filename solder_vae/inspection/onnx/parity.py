"""Does an exported graph decide as its checkpoint does: the check after an export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from solder_vae.data.framing import SQUARE
from solder_vae.data.image_files import Image
from solder_vae.data.synthetic import DEFECTS, render
from solder_vae.data.transforms import prepare
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.onnx.graph import OUTPUTS
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.threads import busy, tracked

PARITY_IMAGES = 200
TOLERANCE = 1e-4
"""Largest relative difference between the scores of graph and checkpoint."""

Run = Callable[[Image], list[Any]]  # images (B, H, W, 3) -> scores (B,), labels (B,), heat maps (B, S, S)


class Parity(NamedTuple):
    """How a graph compares with its checkpoint.

    Attributes:
        images: number of images compared, each alone at its native size and in a batch of prepared ones.
        difference: largest difference of two scores, relative to the score.
        labels: number of labels that differ.
        heat: largest difference of two heat maps' pixels, in the unit of the map.
    """

    images: int
    difference: float
    labels: int
    heat: float

    @property
    def holds(self) -> bool:
        return self.difference <= TOLERANCE and self.labels == 0

    def __str__(self) -> str:
        return (
            f"{self.images} images: scores differ by {self.difference:.1e} relative at most (allowed {TOLERANCE:.0e}), "
            f"{self.labels} labels differ, heat maps differ by {self.heat:.1e} at most"
        )


def load_onnx(path: Path, threads: int = 1) -> Run:
    """The graph as a function of images, run by ONNX Runtime on the CPU; one thread does not wait for others."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: list(session.run(list(OUTPUTS), {"images": images}))


def parity_images(count: int) -> list[Image]:
    """Joints of the embedded data set at their native sizes, half of them good."""
    good = count // 2
    kinds = list(DEFECTS)
    wanted = [("test_normal", index, NORMAL) for index in range(good)]
    wanted += [("test_abnormal", index, kinds[index % len(kinds)]) for index in range(count - good)]
    return [render(0, *each).image for each in tracked(wanted, "Rendering joints", count)]


def compare(inspector: Inspector, graph: Run, count: int = PARITY_IMAGES) -> Parity:
    """Compare a graph with the inspector that it was made of.

    Every image goes through the graph twice: alone, as the camera took it, and cropped and resized, in a batch.
    """
    images = parity_images(count)
    if inspector.crop != SQUARE:  # and long boxes
        images[::2] = [image[len(image) // 4 : -len(image) // 4] for image in images[::2]]
    resized = np.stack([prepare(image, inspector.image_size, inspector.crop) for image in images])
    singly = (graph(image[None]) for image in tracked(images, "Comparing", count))
    alone = [np.concatenate(part) for part in zip(*singly, strict=True)]
    with busy("Comparing with the checkpoint"):
        ran = [np.concatenate(ways) for ways in zip(alone, graph(resized), strict=True)]
        verdicts = [*inspector.score(images), *inspector.score(resized)]
    scores = np.array([verdict.score for verdict in verdicts]).reshape(2, count)
    # A GradCon score may be about zero, where a relative difference means nothing.
    scale = np.maximum(np.abs(scores), 0.1 * np.abs(scores).mean(1, keepdims=True))
    unlike = ran[1] != np.array([verdict.abnormal for verdict in verdicts])
    return Parity(
        images=count,
        difference=float((np.abs(ran[0].reshape(2, count) - scores) / scale).max()),
        labels=int(unlike.reshape(2, count).any(0).sum()),
        heat=float(np.abs(ran[2] - np.stack([verdict.heat_map for verdict in verdicts])).max()),
    )
