"""The exported graph decides as the checkpoint does: preparation, manual gradients, threshold, whole command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import SIZE, as_function, pictures, write_checkpoint
from commands import run_command
from hypothesis import given, settings
from hypothesis import strategies as st

from solder_vae import export as export_command
from solder_vae.data.framing import LETTERBOX, SQUARE
from solder_vae.data.transforms import CONTROLLED, PLAIN, prepare
from solder_vae.inspection.inspector import Inspector
from solder_vae.inspection.onnx import export
from solder_vae.inspection.onnx.graph import InspectionGraph, decode_with_gradient_loss
from solder_vae.inspection.onnx.parity import Parity, compare, load_onnx
from solder_vae.inspection.onnx.resize import prepare_batch
from solder_vae.models import gradcon
from solder_vae.models.networks import Decoder
from solder_vae.utils.errors import UserError

KINDS = [("cae", "recon"), ("cae", "gradcon"), ("vae", "elbo"), ("beta_vae", "gradcon")]


def inspector_of(folder, model="cae", score="recon", **options):
    return Inspector.load(write_checkpoint(folder / "best.ckpt", model, score, **options)[0])


# preparation


@pytest.mark.parametrize("size", [16, 64])
def test_every_square_is_prepared_as_by_opencv(size):
    rng = np.random.default_rng(0)
    for side in [*range(2, 2 * size + 2, 3), 2 * size, 3 * size, 4 * size, 6 * size]:
        image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        assert np.array_equal(prepare_batch(torch.from_numpy(image[None]), size)[0].numpy(), prepare(image, size)), side


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 200), st.integers(2, 200), st.sampled_from([16, 64]), st.integers(0, 99))
def test_any_shape_is_prepared_as_by_opencv(height, width, size, seed):
    images = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    ours = prepare_batch(torch.from_numpy(images), size).numpy()
    difference = np.abs(ours - np.stack([prepare(image, size) for image in images]))
    # Means within rounding of half a grey level may go either way.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("size", [24, 48])
def test_exact_ties_go_where_opencv_sends_them(size):
    """32 pixels to 24: a sixteenth of the means lie half way between two grey levels."""
    images = np.random.default_rng(0).integers(0, 256, (4, size * 4 // 3, size * 4 // 3, 3), dtype=np.uint8)
    ours = prepare_batch(torch.from_numpy(images), size).numpy()
    assert np.array_equal(ours, np.stack([prepare(image, size) for image in images]))


@pytest.mark.slow
def test_onnx_runtime_enlarges_to_the_bit(tmp_path):
    """Products of 26 bits, which an exported division must not round to single precision."""
    import onnxruntime

    class Preparation(torch.nn.Module):
        def forward(self, images):
            return prepare_batch(images, 64, LETTERBOX)

    images = np.random.default_rng(0).integers(0, 256, (300, 24, 37, 3), dtype=np.uint8)
    torch.onnx.export(
        Preparation().eval(), (torch.from_numpy(images),), tmp_path / "a.onnx", dynamo=True, input_names=["images"]
    )
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (ours,) = session.run(None, {"images": images})
    assert np.array_equal(ours, np.stack([prepare(image, 64, LETTERBOX) for image in images]))


# GradCon without autograd


@pytest.mark.parametrize("side", [2, 8])
def test_manual_gradients_equal_autograd(side):
    decoder = Decoder().double()
    for _ in range(3):
        decoder(torch.randn(8, 10, side, side, dtype=torch.float64))
    for parameter in decoder.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    decoder.eval()
    z = torch.randn(5, 10, side, side, dtype=torch.float64)
    x = torch.rand(5, 3, 8 * side, 8 * side, dtype=torch.float64) * 2 - 1
    reference = [torch.randn_like(conv.weight) for conv in decoder.convolutions]
    expected = gradcon.decode_with_gradient_loss(decoder, z, x, reference)
    with torch.no_grad():
        recon, loss = decode_with_gradient_loss(decoder, z, x, reference)
    torch.testing.assert_close(recon, expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss, expected[1], rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(("model", "score"), KINDS)
def test_graph_decides_as_the_inspector_before_it_is_exported(tmp_path, model, score):
    inspector = inspector_of(tmp_path, model, score)
    parity = compare(inspector, as_function(InspectionGraph(inspector)), count=20)
    assert parity.holds
    assert parity.difference < 1e-5
    assert parity.heat < 1e-4


def test_sampled_latents_are_the_same_draws(tmp_path):
    inspector = inspector_of(tmp_path, "vae", "recon", latent="sample", draws=3)
    assert compare(inspector, as_function(InspectionGraph(inspector)), count=6).holds


def test_noise_of_each_image_is_refused(tmp_path):
    inspector = inspector_of(tmp_path, "vae", "recon", latent="sample", noise="per_image")
    with pytest.raises(UserError, match=r"score\.noise=per_image .* can't"):
        export.write_onnx(inspector, tmp_path / "model.onnx")


@pytest.mark.slow
def test_parity_sees_a_wrong_score_a_wrong_label_and_a_wrong_preparation(tmp_path):
    inspector = inspector_of(tmp_path)
    right = as_function(InspectionGraph(inspector))

    def scaled(images):
        score, label, heat = right(images)
        return [score * (1 + 2e-4), label, heat]

    def flipped(images):
        score, label, heat = right(images)
        return [score, 1 - label, heat]

    def stretched(images):
        return right(images if images.shape[1:3] == (SIZE, SIZE) else images[:, 1:])

    assert compare(inspector, right, count=10).holds
    assert compare(inspector, scaled, count=10).difference == pytest.approx(2e-4, rel=0.1)
    assert compare(inspector, flipped, count=10).labels == 10
    assert not any(compare(inspector, graph, count=10).holds for graph in (scaled, flipped, stretched))


# the command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["format=tflite"], "format=tflite is unknown"),
        (["out=best.ckpt"], "must end in .onnx"),
        (["checkpoint=nowhere.ckpt"], "No checkpoint at nowhere.ckpt"),
    ],
)
def test_refusals(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "best.ckpt", "cae", "recon")
    before = (tmp_path / "best.ckpt").read_bytes()
    given_keys = {argument.partition("=")[0] for argument in arguments}
    defaults = [text for text in ("checkpoint=best.ckpt", "out=a.onnx") if text.partition("=")[0] not in given_keys]
    with pytest.raises(UserError, match=message):
        export_command.run([*defaults, *arguments])
    assert (tmp_path / "best.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'solder-vae\[export\]'"):
        export.check_installed()


def test_graph_that_disagrees_is_not_kept(tmp_path, monkeypatch):
    path, _ = write_checkpoint(tmp_path / "best.ckpt", "cae", "recon")
    out = tmp_path / "a.onnx"
    out.write_bytes(b"the last good one")
    monkeypatch.setattr(export_command, "write_onnx", lambda inspector, path: path.write_bytes(b"graph"))
    monkeypatch.setattr("solder_vae.inspection.onnx.parity.load_onnx", lambda path: None)
    monkeypatch.setattr("solder_vae.inspection.onnx.parity.compare", lambda inspector, graph: Parity(200, 3e-4, 0, 0.0))
    with pytest.raises(UserError, match=r"disagrees .*inspect with python -m solder_vae\.predict"):
        export_command.run([f"checkpoint={path}", f"out={out}"])
    assert out.read_bytes() == b"the last good one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "best.ckpt"]


def check_file(path: Path, inspector: Inspector):
    """An exported file by itself: well formed, free sizes, the same decisions alone and in a batch, metadata."""
    import onnx

    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [value.name for value in proto.graph.output] == ["score", "label", "heat_map"]
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    assert facts["model"] == inspector.model.name
    assert facts["score"] == inspector.primary
    assert float(facts["threshold"]) == inspector.threshold.value
    assert facts["rule"] == "quantile"
    assert json.loads(facts["rule_params"]) == {"q": 0.5}
    assert int(facts["image_size"]) == SIZE
    graph = load_onnx(path)
    images = pictures(7, size=37, seed=5)
    scores, labels, maps = graph(images)
    verdicts = inspector.score(images)
    np.testing.assert_allclose(scores, [verdict.score for verdict in verdicts], rtol=1e-4)
    assert labels.tolist() == [int(verdict.abnormal) for verdict in verdicts]
    assert labels.dtype == np.int64
    np.testing.assert_allclose(maps, [verdict.heat_map for verdict in verdicts], atol=1e-3)
    np.testing.assert_allclose(graph(images[2:3])[0], scores[2:3], rtol=1e-5)


def check_letterbox(path: Path, inspector: Inspector):
    """Whole pictures, long ones too, whose sides do not divide the square: what ONNX Runtime makes of each."""
    graph = load_onnx(path)
    rng = np.random.default_rng(0)
    for height, width in [(8, 120), (121, 9), (15, 17), (2 * SIZE, 33), (33, 2 * SIZE), *rng.integers(8, 90, (15, 2))]:
        # Few grey levels: many means lie just between two of them, where rounding decides.
        image = rng.integers(0, 4, (1, height, width, 3), dtype=np.uint8) * 85
        verdict = inspector.score(image)[0]
        score, label, heat_map = graph(image)
        assert score[0] == pytest.approx(verdict.score, rel=1e-4), (height, width)
        assert label[0] == verdict.abnormal
        np.testing.assert_allclose(heat_map[0], verdict.heat_map, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "score", "view", "crop", "options"),
    [
        (*KINDS[2], CONTROLLED, LETTERBOX, {"latent": "sample", "draws": 2}),
        (*KINDS[3], PLAIN, SQUARE, {}),
    ],
)  # the other models' graphs are parts of these; how ONNX Runtime makes a letterbox in the plain view: see above
def test_command(tmp_path, model, score, view, crop, options):
    path, _ = write_checkpoint(tmp_path / "best.ckpt", model, score, **options)
    content = torch.load(path, weights_only=True)
    content["preprocessing"] |= {"view": view, "crop": crop}
    torch.save(content, path)
    done = run_command("export", f"checkpoint={path}", "out=graphs/a.onnx", cwd=tmp_path, fresh=model == "vae")
    assert done.returncode == 0, done.stderr
    assert "200 images" in done.stdout
    assert "0 labels differ" in done.stdout
    assert [file.name for file in (tmp_path / "graphs").iterdir()] == ["a.onnx"]
    inspector = Inspector.load(path)
    assert (inspector.view, inspector.crop) == (view, crop)
    check_file(tmp_path / "graphs/a.onnx", inspector)
    if crop == LETTERBOX:
        check_letterbox(tmp_path / "graphs/a.onnx", inspector)
