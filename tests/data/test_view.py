"""The controlled view against loops; what it hides; that it travels with the checkpoint to every use."""

import json

import cv2
import numpy as np
import pytest
import torch
from checkpoints import SIZE, as_function, pictures, write_images
from commands import run_command, train
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae.data.controlled import DEVIATION, MEAN, RESOLUTION, controlled_batch
from solder_vae.data.folder import FolderSource
from solder_vae.data.synthetic.source import SyntheticSource
from solder_vae.data.table import ImageTable
from solder_vae.data.transforms import CONTROLLED, PLAIN, apply_view, prepare, to_tensor
from solder_vae.evaluation.baselines import trivial_scores
from solder_vae.evaluation.evaluate import decision_state
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.onnx.graph import InspectionGraph
from solder_vae.inspection.onnx.parity import compare
from solder_vae.metrics.threshold import Quantile, fit_threshold
from solder_vae.models.autoencoder import Autoencoder
from solder_vae.models.checkpoint import load_model
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL


def blotches(height, width, seed=0, low=0, high=256):
    coarse = np.random.default_rng(seed).integers(low, high, (5, 5, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def by_loops(image, size):
    """The definition, pixel by pixel, without OpenCV and without matrices."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    grey = [
        [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row[left : left + side].tolist()]
        for row in image[top : top + side]
    ]

    def resized(picture, target):
        side = len(picture)
        weights = []
        for cell in range(target):
            if side < target:
                at = min(max((cell + 0.5) * side / target - 0.5, 0), side - 1)
                line = [max(0.0, 1 - abs(at - pixel)) for pixel in range(side)]
            else:
                start, end = cell * side / target, (cell + 1) * side / target
                line = [max(0.0, min(end, p + 1) - max(start, p)) * target / side for p in range(side)]
            weights.append({p: w for p, w in enumerate(line) if w})
        return [
            [sum(v * w * picture[p][q] for p, v in down.items() for q, w in across.items()) for across in weights]
            for down in weights
        ]

    values = np.array(resized(resized(grey, RESOLUTION), size))
    values = (values - values.mean()) / max(values.std(), 1)
    target = values.std()
    for _ in range(16):
        values = np.clip(values, -127 / DEVIATION, 127 / DEVIATION)
        values = (values - values.mean()) * (target / values.std() if values.std() else 1)
    return np.rint(MEAN + DEVIATION * np.clip(values, -127 / DEVIATION, 127 / DEVIATION))


@pytest.mark.parametrize("shape", [(24, 24), (60, 31), (9, 14), (48, 50), (25, 25), (2, 3)])
@pytest.mark.parametrize("size", [16, 32])
def test_view_is_what_it_is_defined_to_be(shape, size):
    image = blotches(*shape, seed=shape[0])
    got = apply_view(image, size, CONTROLLED)
    assert got.shape == (size, size, 3)
    assert got.dtype == np.uint8
    assert (got == got[..., :1]).all()
    difference = np.abs(got[..., 0] - by_loops(image, size))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01  # exact halves may go either way


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 90), st.integers(2, 90), st.integers(0, 99), st.sampled_from(["blotches", "dark field", "noise"]))
def test_every_image_has_the_same_mean_and_deviation(height, width, seed, kind):
    rng = np.random.default_rng(seed)
    image = {
        "blotches": blotches(height, width, seed),
        "dark field": np.where(blotches(height, width, seed) > 190, 255, 10).astype(np.uint8),
        "noise": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
    }[kind]
    got = apply_view(image, 32, CONTROLLED).astype(float)
    bright_share = (got > MEAN).mean()
    if got.std() > 1 and 0.15 < bright_share < 0.85:  # fewer bright pixels cannot have that deviation in 8 bits
        slow = not 1 / 6 < bright_share < 5 / 6  # hardly more of them reach it slowly
        # Rounding to whole grey levels moves pictures of two tones by up to half of one, and some have not settled yet.
        assert got.mean() == pytest.approx(MEAN, abs=1)
        assert got.std() == pytest.approx(DEVIATION, abs=1.5 if slow else 1)


@given(st.floats(0.3, 1.0), st.integers(0, 60), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_colour_brightness_and_contrast_do_not_show(gain, offset, seed):
    image = np.repeat(blotches(60, 60, seed, 40, 190)[..., :1], 3, axis=-1)
    changed = np.clip(np.rint(gain * image.astype(float) + offset), 0, 255).astype(np.uint8)
    assert (
        np.abs(apply_view(image, 32, CONTROLLED).astype(int) - apply_view(changed, 32, CONTROLLED)).max() <= 4
    )  # 8-bit rounding


def test_resolution_does_not_show():
    """One scene at many native sizes: alike in the controlled view, told apart by sharpness in the plain one."""
    coarse = np.random.default_rng(0).integers(0, 256, (31, 31, 3), dtype=np.uint8)
    scene = cv2.resize(coarse, (480, 480), interpolation=cv2.INTER_NEAREST)
    shots = [cv2.resize(scene, (side, side), interpolation=cv2.INTER_AREA) for side in (24, 48, 96, 240, 480)]
    controlled = [apply_view(shot, 64, CONTROLLED).astype(float) for shot in shots]
    plain = [apply_view(shot, 64, PLAIN).astype(float) for shot in shots]
    assert max(np.abs(one - controlled[-1]).mean() for one in controlled) < 1
    assert np.abs(plain[0] - plain[-1]).mean() > 5


def test_constant_and_nearly_constant_images_are_not_blown_up():
    assert (apply_view(np.full((30, 30, 3), 77, np.uint8), 16, CONTROLLED) == MEAN).all()
    faint = np.full((32, 32, 3), 77, np.uint8)
    faint[:16, :16] += 1  # deviation 0.43
    assert np.ptp(apply_view(faint, 16, CONTROLLED)) == pytest.approx(DEVIATION, abs=1)


def test_plain_is_prepare():
    image = blotches(50, 70)
    assert np.array_equal(apply_view(image, 16, PLAIN), prepare(image, 16))


def test_batches_are_seen_as_single_images():
    images = np.stack([blotches(37, 51, seed) for seed in range(5)])
    batch = controlled_batch(torch.from_numpy(images), 32).numpy()
    assert np.array_equal(batch, np.stack([apply_view(image, 32, CONTROLLED)[..., 0] for image in images]))


def test_trivial_baselines_of_the_controlled_view_are_useless_but_size():
    def table(images, defect, side):
        seen = np.stack([apply_view(image, 16, CONTROLLED) for image in images])
        return ImageTable(seen, [str(i) for i in range(len(seen))], [defect] * len(seen), np.full((len(seen), 2), side))

    normals = [blotches(40, 40, seed, 60, 200) for seed in range(30)]
    odd = [(blotches(80, 80, seed, 60, 200) * [1, 0.5, 0.2]).astype(np.uint8) for seed in range(40, 60)]
    scores = trivial_scores(table(normals, NORMAL, 40), table(odd, "red", 80))
    assert (scores["mean colour"] == 0).all()
    assert (scores["contrast"] == 0).all()
    assert (scores["size"] > 0).all()


@pytest.mark.parametrize("make", [lambda **o: FolderSource(".", **o), SyntheticSource])
def test_unknown_views_are_refused(make):
    with pytest.raises(UserError, match=r"data\.view=grey is unknown: use plain or controlled"):
        make(view="grey")


def test_folder_tables_hold_the_view_and_split_as_before(tmp_path):
    write_images(tmp_path / "normal", pictures(12, 40))
    write_images(tmp_path / "short", pictures(3, 50, seed=1))
    plain, controlled = (FolderSource(tmp_path, image_size=16, view=view).tables() for view in (PLAIN, CONTROLLED))
    for split, table in plain.items():
        assert controlled[split].paths == table.paths
        assert np.array_equal(controlled[split].native_size, table.native_size)
        for path, image in zip(table.paths, controlled[split].images, strict=True):
            photo = cv2.imread(path, cv2.IMREAD_COLOR_RGB)
            assert np.array_equal(image, apply_view(photo, 16, CONTROLLED))


def test_synthetic_tables_are_cached_apart(tmp_path):
    counts = {"train": 3, "val": 2, "test_normal": 2, "test_abnormal": 2}
    source = SyntheticSource(16, **counts, cache_dir=tmp_path, render_workers=1)
    plain, controlled = source.tables(), source.in_view(CONTROLLED).tables()
    assert source.view == PLAIN
    assert len(list(tmp_path.glob("*.bin"))) == 2
    for split, table in plain.items():
        assert controlled[split].paths == table.paths
        assert np.array_equal(controlled[split].masks, table.masks)
        assert (controlled[split].images == controlled[split].images[..., :1]).all()
    assert not (plain["train"].images == plain["train"].images[..., :1]).all()


@pytest.fixture(scope="module")
def inspector():
    """Calibrated on the controlled view, as a run leaves it; random weights."""
    torch.manual_seed(1)
    network = Autoencoder.registry["beta_vae"](score="gradcon").eval()
    network.reference.update([torch.randn_like(mean) for mean in network.reference.means])
    network.preprocessing = {"image_size": SIZE, "view": CONTROLLED}
    seen = np.stack([apply_view(image, SIZE, CONTROLLED) for image in pictures(40, 40, seed=9)])
    scores = {name: values.double().numpy() for name, values in network.score(to_tensor(seen)).scores.items()}
    limits = {name: fit_threshold(values, Quantile(0.5)) for name, values in scores.items()}
    network.decision_state = decision_state("gradcon", limits, scores, 1.0)
    return Inspector(network)


def test_inspector_and_graph_see_the_checkpoints_view(inspector):
    images = pictures(12, 40, seed=3)
    verdicts = inspector.score(images)
    for image, verdict in zip(images, verdicts, strict=True):
        assert np.array_equal(verdict.image, apply_view(image, SIZE, CONTROLLED))
    scores, labels, maps = InspectionGraph(inspector)(torch.from_numpy(images))
    np.testing.assert_allclose(scores.detach().numpy(), [verdict.score for verdict in verdicts], rtol=1e-5)
    assert labels.tolist() == [int(verdict.abnormal) for verdict in verdicts]
    np.testing.assert_allclose(maps.detach().numpy(), [verdict.heat_map for verdict in verdicts], atol=1e-3)


def test_a_checkpoint_with_an_unknown_view_is_refused_and_one_without_is_plain(inspector):
    network = inspector.model
    network.preprocessing = {"image_size": SIZE, "view": "infrared"}
    with pytest.raises(UserError, match="infrared"):
        Inspector(network)
    network.preprocessing = {"image_size": SIZE}
    assert Inspector(network).view == PLAIN
    network.preprocessing = {"image_size": SIZE, "view": CONTROLLED}


@pytest.mark.slow
def test_training_prediction_threshold_and_graph_agree_on_the_view(tmp_path):
    """As a file, too: ``inspection/onnx/test_export.py`` exports checkpoints of this view."""
    write_images(tmp_path / "data" / "normal", pictures(40, 40))
    write_images(tmp_path / "data" / "short", pictures(6, 50, seed=1))
    options = ("data.root=data", "data.image_size=16", "data.view=controlled", "data.batch_size=16")
    trained = run_command(
        "train", "data=folder", "few_normals=accept", *options,
        "data.fractions=[60,20,20]", "trainer.max_epochs=2", "hydra.run.dir=run",
        "logger.mode=disabled", "pictures=false", cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert load_model(tmp_path / "run/best.ckpt").preprocessing == {"image_size": 16, "view": CONTROLLED}
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["view"] == CONTROLLED
    assert metrics["baseline/mean colour/auroc"] == 0.5
    predicted = run_command("predict", "checkpoint=run/best.ckpt", "images=data", "out=out", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    new = {row["path"]: row for row in json.loads((tmp_path / "out/predictions.json").read_text())["predictions"]}
    rows = [line.split(",") for line in (tmp_path / "run/predictions.csv").read_text().splitlines()]
    column = rows[0].index("recon")
    assert len(rows) > 6
    for row in rows[1:]:
        assert float(row[column]) == pytest.approx(new[row[0]]["scores"]["recon"], rel=2e-6)
    again = run_command(
        "threshold",
        "checkpoint=run/best.ckpt",
        "rule=quantile",
        "q=0.5",
        "normals=data/normal",
        "out=thr",
        cwd=tmp_path,
        fresh=True,
    )
    assert again.returncode == 0, again.stderr
    assert load_model(tmp_path / "thr/calibrated.ckpt").preprocessing["view"] == CONTROLLED
    inspector = Inspector.load(tmp_path / "thr/calibrated.ckpt")
    assert compare(inspector, as_function(InspectionGraph(inspector)), count=20).holds


@pytest.mark.slow
def test_resuming_in_another_view_is_refused(tmp_path):
    assert train("scheduler=plateau", "hydra.run.dir=run", cwd=tmp_path).returncode == 0
    longer = ("scheduler=plateau", "resume=run/last.ckpt", "trainer.max_epochs=3")
    other = train(*longer, "data.view=controlled", cwd=tmp_path)
    assert other.returncode == 2
    assert "data.view" in other.stderr
