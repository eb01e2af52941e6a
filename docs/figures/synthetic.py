"""The figures and numbers of docs/research/synthetic.md.

python docs/figures/synthetic.py sheet                        docs/images/synthetic_sheet.png
python docs/figures/synthetic.py normals                      docs/images/synthetic_normals.png
python docs/figures/synthetic.py real FOLDER                  docs/images/synthetic_spectrum.png and a table
python docs/figures/synthetic.py severity CHECKPOINT          docs/images/synthetic_severity.png and a table
python docs/figures/synthetic.py difficulty CHECKPOINT ...    a table
python docs/figures/synthetic.py timing                       a table
python docs/figures/synthetic.py baselines                    a table
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from solder_vae.data.image_files import read_image
from solder_vae.data.synthetic import DEFECTS, SyntheticSource, render
from solder_vae.data.synthetic.sheet import contact_sheet
from solder_vae.data.transforms import prepare, to_tensor
from solder_vae.evaluation.baselines import shortcut_scores
from solder_vae.utils.labels import NORMAL

matplotlib.use("Agg")
import matplotlib.pyplot as plt

IMAGES = Path(__file__).resolve().parents[1] / "images"
SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".bmp"}


def auroc(normal, abnormal):
    ordered = np.sort(normal)
    return (
        (np.searchsorted(ordered, abnormal, "left") + np.searchsorted(ordered, abnormal, "right")).mean()
        / 2
        / len(normal)
    )


def save(name, sheet):
    cv2.imwrite(str(IMAGES / name), sheet[..., ::-1])


def sheet():
    """A row for each type: severity rises to the right; a row of normals on top."""
    severities = np.linspace(0.1, 1.0, 10)
    joints = [render(0, "test_normal", index) for index in range(10)]
    for row, defect in enumerate(DEFECTS):
        joints += [
            render(0, "test_abnormal", 10 * row + column, defect, (severity, severity))
            for column, severity in enumerate(severities)
        ]
    save("synthetic_sheet.png", contact_sheet(joints))


def normals():
    save("synthetic_normals.png", contact_sheet([render(0, "train", index) for index in range(40)]))


def radial_spectrum(images):
    """Mean power of the grey images in [0, 1] by radial frequency in cycles per image, after a Hann window."""
    grey = images @ np.array([0.299, 0.587, 0.114]) / 255
    grey = grey - grey.mean(axis=(1, 2), keepdims=True)
    size = grey.shape[1]
    power = np.abs(np.fft.fft2(grey * np.outer(np.hanning(size), np.hanning(size)))) ** 2
    frequency = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(*np.meshgrid(frequency, frequency)).round().astype(int)
    return np.array([power[:, radius == r].mean() for r in range(1, size // 2)])


def colour_statistics(images):
    pixels = images.reshape(len(images), -1, 3).astype(float)
    grey, within = images @ np.array([0.299, 0.587, 0.114]), pixels.std(axis=1)
    saturation = np.array([cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1].mean() for image in images])
    laplacian = [cv2.Laplacian(g, cv2.CV_64F).var() for g in grey]
    return {
        "mean R, G, B": " ".join(f"{v:.0f}" for v in pixels.mean(axis=(0, 1))),
        "spread of that mean between images (sd)": " ".join(f"{v:.0f}" for v in pixels.mean(axis=1).std(axis=0)),
        "contrast: sd within an image": f"{within.mean():.0f} ± {within.mean(axis=1).std():.0f}",
        "saturation (HSV, 0-255)": f"{saturation.mean():.0f} ± {saturation.std():.0f}",
        "grey level, percentiles 5 25 50 75 95": " ".join(f"{v:.0f}" for v in np.percentile(grey, [5, 25, 50, 75, 95])),
        "variance of the Laplacian, percentiles 5 50 95": " ".join(
            f"{v:.0f}" for v in np.percentile(laplacian, [5, 50, 95])
        ),
    }


def real(folder):
    """Figures only: no photograph leaves its folder."""
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in SUFFIXES]
    photographs = np.stack([prepare(read_image(path)) for path in paths])
    rendered = np.stack([prepare(render(0, "train", index).image) for index in range(1000)])
    print(f"| | {len(photographs)} photographs | {len(rendered)} rendered |\n|---|---|---|")
    ours = colour_statistics(rendered)
    for name, value in colour_statistics(photographs).items():
        print(f"| {name} | {value} | {ours[name]} |")
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    theirs, own = radial_spectrum(photographs), radial_spectrum(rendered)
    frequency = np.arange(1, len(own) + 1)
    axes.loglog(frequency, theirs, color="black", label="photographs")
    axes.loglog(frequency, own, color="tab:blue", label="rendered")
    axes.set(xlabel="cycles per image", ylabel="mean power", title="Good joints at 64x64, grey")
    axes.legend(frameon=False)
    figure.savefig(IMAGES / "synthetic_spectrum.png", dpi=130)
    print(f"\nlargest ratio of the two spectra: {np.exp(np.abs(np.log(theirs / own)).max()):.2f}")


def severity(checkpoint):
    """The same joints at rising severity, scored by a trained model's reconstruction error (Eq. 2)."""
    import torch

    from solder_vae.models.checkpoint import load_model

    model = load_model(checkpoint)

    @torch.no_grad()
    def errors(images):
        x = to_tensor(np.stack(images))
        return np.concatenate([((model(part) - part) ** 2).mean(dim=(1, 2, 3)).numpy() for part in x.split(64)])

    normal = errors([prepare(render(1, "test_normal", index).image) for index in range(400)])
    levels, count = np.linspace(0.1, 1.0, 7), 30
    found = {}
    for defect in DEFECTS:
        found[defect] = [
            errors([prepare(render(1, "test_abnormal", i, defect, (s, s)).image) for i in range(count)]) for s in levels
        ]
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for defect, by_level in found.items():
        axes.plot(
            levels, [auroc(normal, values) for values in by_level], lw=0.9, alpha=0.7, label=defect.replace("_", " ")
        )
    together = [auroc(normal, np.concatenate([found[d][k] for d in DEFECTS])) for k in range(len(levels))]
    axes.plot(levels, together, color="black", lw=2.5, label="all nine")
    axes.axhline(0.5, color="grey", lw=0.7, ls=":")
    axes.set(xlabel="severity", ylabel="AUROC of the reconstruction error", ylim=(0.3, 1))
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(IMAGES / "synthetic_severity.png", dpi=130)
    print(
        "| severity | " + " | ".join(f"{level:.2f}" for level in levels) + " |\n|---" * 1 + "|---" * len(levels) + "|"
    )
    for name, row in [("all nine", together)] + [(d, [auroc(normal, v) for v in found[d]]) for d in DEFECTS]:
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |")


def difficulty(*checkpoints):
    """Each score's AUROC over the default range of severities, on joints of another seed than the training's."""
    from solder_vae.models.checkpoint import load_model
    from solder_vae.models.scores import SCORES

    def images(stream, count, *defect):
        return np.stack([prepare(render(2, stream, index, *defect).image) for index in range(count)])

    def scores(model, images):
        parts = [model.score(to_tensor(images[i : i + 64])).scores for i in range(0, len(images), 64)]
        return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}

    normal = images("test_normal", 400)
    abnormal = np.concatenate([images("test_abnormal", 100, defect) for defect in DEFECTS])
    print("| checkpoint | latent | " + " | ".join(SCORES) + " |\n|---" + "|---" * (1 + len(SCORES)) + "|")
    for checkpoint in checkpoints:
        model = load_model(checkpoint)
        for latent in ("mean", "sample") if model.heads == 2 else ("mean",):
            model.latent = latent
            found, others = scores(model, normal), scores(model, abnormal)
            cells = [f"{auroc(found[name], others[name]):.3f}" if name in found else "" for name in SCORES]
            print(f"| {checkpoint} | {latent} | " + " | ".join(cells) + " |")


STAGES = {
    "draw scene, look and camera": ["draw_scene", "draw_conditions"],
    "paint board and pads": ["paint_board", "paint_pad", "pad_distance", "terminal_distance"],
    "solve the solder's surface": ["meniscus"],
    "paint solder and components": ["flow", "wedge", "paint_solder", "paint_component"],
    "shade": ["shade"],
    "photograph": ["photograph"],
}


def timing(count=300):
    """CPU time of each stage, by wrapping the functions that render.py calls."""
    module = sys.modules["solder_vae.data.synthetic.render"]
    spent = dict.fromkeys(STAGES, 0.0)

    def wrapped(function, stage):
        def call(*args):
            start = time.process_time()
            result = function(*args)
            spent[stage] += time.process_time() - start
            return result

        return call

    cv2.setNumThreads(1)
    for stage, names in STAGES.items():
        for name in names:
            setattr(module, name, wrapped(getattr(module, name), stage))
    for kind, defects in (("good joint", [NORMAL]), ("bad joint", list(DEFECTS))):
        for stage in spent:
            spent[stage] = 0.0
        start = time.process_time()
        for index in range(count):
            module.render(0, "test_abnormal", index, defects[index % len(defects)])
        total = (time.process_time() - start) / count * 1e3
        print(f"\n| stage, {kind} | ms |\n|---|---|")
        for stage, seconds in spent.items():
            print(f"| {stage} | {seconds / count * 1e3:.1f} |")
        print(f"| the rest | {total - sum(spent.values()) / count * 1e3:.1f} |\n| **one image** | **{total:.1f}** |")
    start = time.perf_counter()
    SyntheticSource(use_cache=False).tables()
    print(f"\nthe default set, {3230} images: {time.perf_counter() - start:.0f} s")


def baselines():
    tables = SyntheticSource(train=500, val=0, test_normal=1000, test_abnormal=1000, use_cache=False).tables()
    for name, scores in shortcut_scores(tables["train"], tables["test"]).items():
        print(f"| {name} | {auroc(scores[:1000], scores[1000:]):.3f} |")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:] or ["help"]
    commands = {f.__name__: f for f in (sheet, normals, real, severity, difficulty, timing, baselines)}
    if command not in commands:
        sys.exit(__doc__)
    IMAGES.mkdir(exist_ok=True)
    commands[command](*arguments)
