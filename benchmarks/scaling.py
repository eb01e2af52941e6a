"""``python -m benchmarks.scaling``: how time and peak memory grow with the data set and with the image.

Every point is a process of its own, with one thread: its processor time for one pass of training (with the constraint)
and of scoring (GradCon), and how far its peak memory lies above where it stood before the data. Adds to
``benchmarks/results.json`` and draws ``docs/images/scaling.png``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

from benchmarks.bench import ALPHA, HERE, bare_step, peak_megabytes, random_images, trained_model
from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.table import ImageTable
from solder_vae.utils.files import atomic_file
from solder_vae.utils.labels import NORMAL

mpl.use("Agg")
import matplotlib.pyplot as plt

POINTS = {  # images, side, batch
    "images": [(160, 64, 64), (640, 64, 64), (2560, 64, 64)],
    "pixels": [(64, 64, 16), (64, 128, 16), (64, 256, 16)],
}


def measure(images: int, size: int, batch: int) -> dict[str, float]:
    """One pass over ``images`` images of side ``size`` in batches; in this process, so call it once in each."""
    torch.set_num_threads(1)
    model = trained_model(ALPHA)
    step = bare_step(model)
    for x in torch.rand(2, 2, 3, 64, 64):
        step(x)
    base = peak_megabytes()
    table = ImageTable(
        random_images(images, size), [str(i) for i in range(images)], [NORMAL] * images, np.full((images, 2), size)
    )
    data = SolderDataModule(lambda: None, batch)  # type: ignore[arg-type]
    data.tables = {"train": table, "test": table}
    result = {"images": images, "size": size, "batch": batch, "data_mb": table.images.nbytes / 1e6}
    model.eval()
    start = time.process_time()
    for x in data.test_dataloader():
        model.score(x["image"])
    result |= {"score_s": time.process_time() - start, "score_mb": peak_megabytes() - base}
    model.train()
    start = time.process_time()
    for x in data.train_dataloader():
        step(x["image"])
    return result | {"train_s": time.process_time() - start, "train_mb": peak_megabytes() - base}


def in_process(*numbers: int) -> dict[str, float]:
    """:func:`measure` in a new process."""
    code = f"import json; from benchmarks.scaling import measure; print(json.dumps(measure(*{numbers})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=HERE.parent)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def draw(scaling: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Time and memory against the number of images and of pixels, with a line for growth in proportion."""
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for column, (key, label) in enumerate((("images", "images"), ("pixels", "pixels of an image"))):
        points = scaling[key]
        x = np.array([p["images"] if key == "images" else p["size"] ** 2 for p in points])
        for panel, unit in ((axes[2 * column], "s"), (axes[2 * column + 1], "mb")):
            for name, colour in (("train", "#1f77b4"), ("score", "#ff7f0e")):
                y = [p[f"{name}_{unit}"] for p in points]
                panel.loglog(x, y, "o-", color=colour, label="training" if name == "train" else "scoring (GradCon)")
                panel.loglog(x, y[0] * x / x[0], ":", color=colour, linewidth=1)
            panel.set_xlabel(label)
            panel.set_xticks(x, [f"{value:,}".replace(",", " ") for value in x])
            panel.minorticks_off()
            panel.set_ylabel("processor time of a pass, s" if unit == "s" else "peak memory above the start, MB")
    axes[0].plot([], [], ":", color="grey", label="in proportion")
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)


def main() -> None:
    scaling = {key: [in_process(*point) for point in points] for key, points in POINTS.items()}
    path = HERE / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results["scaling"] = {"command": "python -m benchmarks.scaling", **scaling}
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")
    draw(scaling, HERE.parent / "docs" / "images" / "scaling.png")
    for key, points in scaling.items():
        print(key, *points, sep="\n  ")


if __name__ == "__main__":
    main()
