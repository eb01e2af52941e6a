"""A calibrated checkpoint in no time: random weights, but everything in it that an inspection needs."""

from pathlib import Path

import cv2
import numpy as np
import torch

from solder_vae.data.transforms import to_tensor
from solder_vae.evaluation.anomaly_map import anomaly_map, map_scale
from solder_vae.evaluation.evaluate import decision_state
from solder_vae.evaluation.fit_scores import fit_scores
from solder_vae.evaluation.looks import looks_of, looks_to_keep
from solder_vae.metrics.threshold import Quantile, fit_threshold
from solder_vae.models import vae  # noqa: F401 - which registers its models
from solder_vae.models.autoencoder import Autoencoder

SIZE = 16


def pictures(count, size=SIZE, seed=0):
    """``(count, size, size, 3)`` uint8: coarse random blotches."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC) for image in coarse])


def write_checkpoint(path, model="beta_vae", score="gradcon", normals=40, tables=None, **options):
    """Write a checkpoint whose threshold is the median of its normals; returns the path and the model.

    It has half the paper's width, unless ``options``, which are the model's, say otherwise. Scores that are fitted are
    fitted on ``tables``, as by :func:`fit_scores`.
    """
    torch.manual_seed(1)
    network = Autoencoder.registry[model](score=score, **{"width": 8, **options}).eval()
    network.reference.update([torch.randn_like(mean) for mean in network.reference.means])
    images = pictures(normals, seed=99)
    network.preprocessing = {"image_size": SIZE}
    if tables is not None:
        fit_scores(network, tables, 32, 0)
    output = network.score(to_tensor(images))
    scores = {name: values.double().numpy() for name, values in output.scores.items()}
    thresholds = {name: fit_threshold(values, Quantile(0.5)) for name, values in scores.items()}
    network.decision_state = decision_state(
        score, thresholds, scores, map_scale(anomaly_map(output.images, output.recon).numpy())
    )
    content = {"state_dict": network.state_dict(), "hyper_parameters": dict(network.hparams)}
    network.on_save_checkpoint(content)
    torch.save(content, path)
    return Path(path), network


def with_looks(path, images):
    """Give a checkpoint the looks of images, as if they were its validation normals."""
    content = torch.load(path, weights_only=True)
    looks = [looks_of(image, image.shape[:2]) for image in images]
    content["calibration"]["looks"] = looks_to_keep(looks, content["preprocessing"])
    torch.save(content, path)
    return path


def write_images(folder, images):
    """PNG files ``000.png`` ... in a new folder; returns their paths."""
    folder.mkdir(parents=True)
    paths = [folder / f"{index:03d}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(png(image))
    return paths


def png(image):
    return cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def as_function(graph):
    """A graph run by PyTorch in place of ONNX Runtime."""
    return lambda images: [output.detach().numpy() for output in graph(torch.from_numpy(images))]
