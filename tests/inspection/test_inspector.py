"""The Python API: the same verdict on an image however it is handed over, and none on what is no image."""

import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from checkpoints import SIZE, pictures, png, write_checkpoint, write_images

from solder_vae.data.transforms import prepare, to_tensor
from solder_vae.inspection.inspector import Inspector, Unreadable
from solder_vae.inspection.joints import Joint
from solder_vae.utils.errors import UserError


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path, model = write_checkpoint(tmp_path_factory.mktemp("inspector") / "best.ckpt")
    return Inspector.load(path), model


def scores(verdicts):
    return np.array([list(verdict.scores.values()) for verdict in verdicts])


def test_a_verdict_is_the_models_score_against_the_threshold(loaded):
    inspector, model = loaded
    images = pictures(50)
    verdicts = inspector.score(images)
    expected = model.score(to_tensor(images))
    threshold = model.decision_state["thresholds"]["gradcon"]["value"]
    normals = model.decision_state["validation_scores"]["gradcon"]
    labels = set()
    for row, verdict in enumerate(verdicts):
        assert verdict.scores == pytest.approx({name: v[row].item() for name, v in expected.scores.items()}, rel=1e-6)
        assert verdict.score == verdict.scores["gradcon"]
        assert (verdict.threshold, verdict.margin) == (threshold, verdict.score - threshold)
        assert verdict.abnormal == (verdict.score > threshold) == (verdict.label == "abnormal")
        assert verdict.rank == pytest.approx(np.mean([normal < verdict.score for normal in normals]))
        assert np.array_equal(verdict.image, images[row])
        assert verdict.recon.shape == (SIZE, SIZE, 3)
        assert verdict.recon.dtype == np.uint8
        labels.add(verdict.label)
    assert labels == {"normal", "abnormal"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "score", "options"),
    [("cae", "recon", {}), ("vae", "elbo", {}), ("beta_vae", "gradcon", {"latent": "sample", "draws": 2})],
)
def test_the_batch_does_not_matter(model, score, options, tmp_path):
    path, _ = write_checkpoint(tmp_path / "best.ckpt", model, score, **options)
    inspector = Inspector.load(path)
    images = pictures(70, seed=3)
    together = scores(inspector.score(images))
    alone = np.concatenate([scores(inspector.score(image)) for image in images[:12]])
    np.testing.assert_allclose(alone, together[:12], rtol=2e-6)
    order = np.random.default_rng(0).permutation(70)
    np.testing.assert_allclose(scores(inspector.score(list(images[order]))), together[order], rtol=2e-6)


def test_files_and_arrays_of_any_size_mix(loaded, tmp_path):
    inspector, _ = loaded
    ragged = [pictures(1, size)[0, : size - cut] for size, cut in ((16, 0), (40, 7), (100, 31))]
    paths = write_images(tmp_path / "images", ragged)
    from_files = inspector.score(paths)
    assert [verdict.name for verdict in from_files] == [str(path) for path in paths]
    mixed = inspector.score([str(paths[0]), ragged[1], paths[2]])
    assert [verdict.name for verdict in mixed] == [str(paths[0]), "image 1", str(paths[2])]
    assert (scores(mixed) == scores(from_files)).all()
    assert (scores(inspector.score(paths[1])) == scores(inspector.score([ragged[1]]))).all()
    for verdict, image in zip(from_files, ragged, strict=True):
        assert np.array_equal(verdict.image, prepare(image, SIZE))
    assert inspector.score([]) == []


def test_threads_share_an_inspector(loaded):
    inspector, _ = loaded
    sets = [pictures(20, seed=seed) for seed in range(6)]
    alone = [scores(inspector.score(images)) for images in sets]
    together, start = [None] * len(sets), threading.Barrier(len(sets))

    def work(index):
        start.wait()
        together[index] = scores(inspector.score(sets[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(sets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(loaded, context):
    inspector, _ = loaded
    expected = scores(inspector.score(pictures(3)))
    with context():
        assert (scores(inspector.score(pictures(3))) == expected).all()
    inspector.model.requires_grad_(False)
    assert (scores(inspector.score(pictures(3))) == expected).all()


def test_the_heat_maps_unit_is_fixed_by_the_normals(loaded):
    inspector, _ = loaded
    normals = np.stack([verdict.heat_map for verdict in inspector.score(pictures(40, seed=99))])
    assert np.quantile(normals, 0.99) == pytest.approx(1, rel=1e-4)
    image = pictures(1)
    noisy = inspector.score(np.concatenate([image, 255 - image]))
    # Not by the batch: what is left is the last bit, for convolutions round differently in batches of another size.
    np.testing.assert_allclose(noisy[0].heat_map, inspector.score(image)[0].heat_map, rtol=1e-5, atol=1e-6)


def test_inspection_goes_on_past_unreadable_images(loaded, tmp_path):
    inspector, _ = loaded
    paths = write_images(tmp_path / "images", pictures(80))
    paths[5].write_bytes(b"")
    paths[40].write_bytes(png(pictures(1)[0])[:60])
    paths[79].unlink()
    results = list(inspector.inspect([Joint(path.name, path) for path in paths]))
    assert [result.name for result in results] == [path.name for path in paths]
    bad = [result for result in results if isinstance(result, Unreadable)]
    assert [result.name for result in bad] == ["005.png", "040.png", "079.png"]
    assert "0 bytes" in bad[0].reason
    with pytest.raises(UserError, match="0 bytes"):
        inspector.score(paths)


def test_images_are_taken_as_they_are_needed(loaded):
    """A million joints may be handed over as a generator."""
    inspector, _ = loaded
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield Joint(str(len(taken)), pictures(1)[0])

    results = inspector.inspect(endless())
    assert [next(results).name for _ in range(3)] == ["1", "2", "3"]
    results.close()
    assert len(taken) < 200


def claimed(width, height):
    """A PNG file that claims a size and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_what_is_no_image_is_refused(loaded, tmp_path):
    inspector, _ = loaded
    image = pictures(1)[0]
    for wrong, message in [
        (image / 255, "float64"),
        (image[..., 0], "must be a uint8 RGB array"),
        (np.zeros((4, 4, 4), np.uint8), "must be a uint8 RGB array"),
        (image[:1], "16x1 px"),
        (None, "NoneType"),
        (tmp_path / "nowhere.png", "nowhere.png"),
    ]:
        with pytest.raises(UserError, match=message):
            inspector.score([wrong])
    (tmp_path / "huge.png").write_bytes(claimed(60_000, 60_000))
    with pytest.raises(UserError, match="too many to decode"):
        inspector.score(tmp_path / "huge.png")


@pytest.mark.slow
@pytest.mark.measured
def test_a_checkpoint_that_cannot_decide_is_refused(tmp_path):
    path, _ = write_checkpoint(tmp_path / "best.ckpt")
    content = torch.load(path, weights_only=True)
    for change in (
        {"calibration": None},
        {"calibration": {**content["calibration"], "thresholds": {}}},
        {"calibration": {"primary": "gradcon"}},
        {"calibration": {**content["calibration"], "validation_scores": {"gradcon": []}}},
        {"preprocessing": {}},
    ):
        torch.save({**content, **change}, tmp_path / "other.ckpt")
        with pytest.raises(UserError, match=r"other\.ckpt"):
            Inspector.load(tmp_path / "other.ckpt")
    torch.save({"model": object}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="tensors and plain values"):
        Inspector.load(tmp_path / "other.ckpt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    path = write_checkpoint(tmp_path / "best.ckpt")[0]
    with pytest.raises(UserError, match=r"device=cuda is not there: use cpu, or cuda where there is a GPU\."):
        Inspector.load(path, "cuda")


def test_a_damaged_file_is_refused_whatever_the_damage(tmp_path):
    path, _ = write_checkpoint(tmp_path / "best.ckpt")
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for damaged in (
        b"junk",
        b"\x80\x02junk",
        *(whole[: int(share * len(whole))] for share in (0.001, 0.3, 0.999)),
        *(bytes(generator.integers(0, 256, 200, dtype=np.uint8)) for _ in range(20)),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"best\.ckpt"):
            Inspector.load(path)


def test_scores_that_are_no_numbers_never_pass_for_normal(tmp_path):
    path, _ = write_checkpoint(tmp_path / "best.ckpt")
    content = torch.load(path, weights_only=True)
    next(iter(content["state_dict"].values())).fill_(torch.nan)
    torch.save(content, path)
    with pytest.raises(UserError, match="not numbers"):
        Inspector.load(path).score(pictures(1))
