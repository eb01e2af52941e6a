"""``trainer.precision=32-reproducible``: exact sums, true gradients, the same bits from any threads and processes."""

import csv

import numpy as np
import pytest
import torch
from commands import train
from documented import compose_command
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import RecordingVAE, trained
from torch import nn

from solder_vae.models.autoencoder import CAE, BetaVAE
from solder_vae.models.checkpoint import read_checkpoint
from solder_vae.models.layers import exact_sums as module
from solder_vae.models.layers.exact_sums import (
    check_shares,
    convolve,
    exact_sum,
    for_each_image,
    one_thread,
    reproducible,
    sum_of_images,
)
from solder_vae.models.precision import REPRODUCIBLE
from solder_vae.training.data_parallel import fit_on_ranks
from solder_vae.training.run import training_precision
from solder_vae.training.trainer import fit
from solder_vae.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def on_one_thread():
    with one_thread():
        yield


def numbers(images, seed, spread):
    """Of very different sizes, some of them 0."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((images, 3, 5)) * 10.0 ** rng.uniform(-spread, spread, (images, 3, 5))
    return torch.from_numpy(np.where(rng.random(values.shape) < 0.1, 0, values)).float()


# sums


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(0, 10**6), st.integers(0, 15))
def test_a_sum_is_right_and_does_not_depend_on_the_order(images, seed, spread):
    x = numbers(images, seed, spread)
    got = exact_sum(x)
    assert got.shape == x.shape[1:]
    exact = x.double().sum(0)
    rounding = 2.0**-24 * exact.abs() + images * 2.0**-40 * x.double().abs().amax(0)
    assert ((got - exact).abs() <= rounding).all()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(images))
    assert torch.equal(exact_sum(x[order]), got)
    # Doubles show what single precision would hide nearly always: that no digit at all depends on the order.
    assert torch.equal(exact_sum(x.double()[order]), exact_sum(x.double()))


def test_what_is_no_number_stays_none():
    x = torch.tensor([[1.0, float("nan"), float("inf"), 0.0, 1e-45], [2.0, 1.0, 1.0, 0.0, 1e-45]])
    got = exact_sum(x)
    assert got[0] == 3
    assert not got[1:3].isfinite().any()
    assert got[3] == 0
    assert got[4] == x[:, 4].sum() > 0
    assert exact_sum(torch.tensor([0.1, 0.2, 0.3])).shape == ()


# derivatives


@pytest.mark.parametrize("images", [1, 3])
def test_first_and_second_derivatives_are_those_of_finite_differences(images):
    torch.manual_seed(0)
    tensors = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((images, 2, 3, 4), (3, 2, 3, 3))
    ]
    assert torch.autograd.gradcheck(convolve, tensors, atol=1e-4)
    assert torch.autograd.gradgradcheck(convolve, tensors, atol=1e-4)
    square = lambda x: for_each_image(sum_of_images(x).square(), images) * x  # noqa: E731
    assert torch.autograd.gradcheck(square, tensors[:1], atol=1e-4)
    assert torch.autograd.gradgradcheck(square, tensors[:1], atol=1e-4)


def gradients(model, x, noise, reference, alpha):
    """Of the loss with the constraint, and the running statistics."""
    for mean, value in zip(model.reference.means, reference, strict=True):
        mean.copy_(value)
    model.reference.steps += 1
    terms, _ = model.losses(x, noise)
    loss = terms["loss"]
    if alpha:
        loss = loss + alpha * model.gradient_constraint(terms["recon"], shared=model.reproducible)
    found = torch.autograd.grad(loss, list(model.parameters()))
    statistics = [value for name, value in model.named_buffers() if "running" in name]
    return [torch.cat([tensor.double().flatten() for tensor in tensors]) for tensors in (found, statistics)]


@pytest.mark.parametrize("images", [1, 6])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("kind", [CAE, BetaVAE])
def test_gradients_are_those_of_the_plain_network_in_double_precision(kind, alpha, images):
    """From images whose channels are last in memory, too, as those of a training are."""
    torch.manual_seed(0)
    plain, ours = kind(), kind()
    ours.load_state_dict(plain.state_dict())
    plain.double()
    ours.precision = REPRODUCIBLE
    x = (torch.rand(images, 3, 16, 16) * 2 - 1).contiguous(memory_format=torch.channels_last)
    noise = plain.noise(x, 0, 0)
    reference = [torch.randn_like(mean) for mean in ours.reference.means]
    expected = gradients(plain, x.double(), noise.double(), reference, alpha)
    with reproducible(ours):
        got = gradients(ours, x, noise, reference, alpha)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() < 1e-4 * b.norm()


def test_only_inside_the_block_and_on_one_thread():
    torch.set_num_threads(2)
    model = CAE()
    kinds = [type(part) for part in model.modules()]
    with reproducible(model):
        assert torch.get_num_threads() == 1
        assert not any(type(part) in (nn.Conv2d, nn.BatchNorm2d) for part in model.modules())
    assert torch.get_num_threads() == 2
    assert [type(part) for part in model.modules()] == kinds


@pytest.mark.parametrize("size", [16, 24, 64])
def test_what_an_image_gives_does_not_depend_on_the_others(size):
    """The ground that all stands on: on one thread, the library gives an image the same bits in any batch."""
    torch.manual_seed(0)
    model = BetaVAE().train()
    model.precision = REPRODUCIBLE
    x = torch.rand(7, 3, size, size) * 2 - 1
    noise = model.noise(x, 0, 0)

    def step(rows):
        """The derivative of each image's error, as if its batch were all there is but for the statistics."""
        image = x[rows].requires_grad_()
        mu, logvar = model.encoder(image)
        error = (model.decoder(mu + logvar.exp() * noise[rows]) - image).square().flatten(1).mean(1)
        return error.detach(), torch.autograd.grad(error.sum(), image)[0]

    with reproducible(model), pytest.MonkeyPatch.context() as patch:
        # Statistics of nothing, as those of a part of the batch would differ from those of the whole.
        patch.setattr(module, "exact_sum", lambda values: torch.full_like(values[0], 0.5))
        patch.setattr(module, "images_of_all", lambda values: values.new_tensor(1 / values[0, 0].numel()))
        whole = step(slice(None))
        for rows in (slice(0, 1), slice(1, 3), slice(0, None, 2), slice(2, 7)):
            for part, all_images in zip(step(rows), whole, strict=True):
                assert part.isfinite().all()
                assert torch.equal(part, all_images[rows])


# trainings


def end_of(folder):
    """All tensors of the last checkpoint, the optimizer's too, and the curves."""
    checkpoint = read_checkpoint(folder / "last.ckpt")
    tensors = dict(checkpoint["state_dict"])
    for state in checkpoint["optimizer_states"][0]["state"].items():
        tensors |= {f"{state[0]}/{name}": value for name, value in state[1].items()}
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return tensors, list(csv.reader(file))


def assert_same(first, second):
    assert first[0].keys() == second[0].keys()
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name
    assert first[1] == second[1]


@pytest.mark.unmeasured
@pytest.mark.slow
def test_fifty_steps_end_in_the_same_bits(tmp_path):
    """In one process with one thread and with two, and in two processes; the last batches are shared unequally."""
    options = {"precision": REPRODUCIBLE, "alpha": 0.03}
    ends = []
    for name, how, threads in (("one", fit, 1), ("threads", fit, 2), ("processes", fit_on_ranks, 2)):
        torch.set_num_threads(threads)
        ends.append(end_of(trained(how, tmp_path / name, RecordingVAE, **options)))
    assert read_checkpoint(tmp_path / "one/last.ckpt")["global_step"] == 50
    for end in ends[1:]:
        assert_same(ends[0], end)


@pytest.mark.unmeasured
@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(REPRODUCIBLE, "32-true"), ("32-true", REPRODUCIBLE)])
def test_a_resumed_training_may_change_to_and_from_it(first, then, tmp_path):
    """And is what it is called then: processes agree, and only reproducible ones do with a single process."""
    begun = trained(fit, tmp_path / "begun", RecordingVAE, epochs=1, precision=first, alpha=0.03)
    rest = {"epochs": 3, "precision": then, "alpha": 0.03, "resume": begun / "last.ckpt"}
    two = trained(fit_on_ranks, tmp_path / "two", RecordingVAE, **rest)
    ranks = [torch.load(two / f"rank{rank}.pt", weights_only=True)["state"] for rank in range(2)]
    assert all(torch.equal(value, ranks[1][name]) for name, value in ranks[0].items())
    assert read_checkpoint(two / "last.ckpt")["precision"] == then
    if then == REPRODUCIBLE:
        assert_same(end_of(two), end_of(trained(fit, tmp_path / "one", RecordingVAE, **rest)))


@pytest.mark.unmeasured
@pytest.mark.slow
def test_commands_write_the_same_files(tmp_path):
    """One process, and three, whose last batches are shared unequally; a third is no number of the binary system."""
    for devices, threads in ((1, "1"), (3, "2")):
        result = train(
            "trainer=ddp", "trainer.accelerator=cpu", f"trainer.precision={REPRODUCIBLE}", "logger.mode=disabled",
            f"trainer.devices={devices}", "data.batch_size=9", "data.train=31", "model=beta_vae", "beta=0.1",
            "score=gradcon", f"hydra.run.dir={devices}", cwd=tmp_path, OMP_NUM_THREADS=threads,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "Warning" not in result.stderr
    for name in ("metrics.csv", "metrics.json", "predictions.csv", "kl_per_unit.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes(), name
    assert f'"{REPRODUCIBLE}"' in (tmp_path / "1/metrics.json").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.accelerator=gpu"], "is for CPUs: add trainer.accelerator=cpu"),
        (["data.batch_size=4097"], "sums up to 4096 images: lower data.batch_size"),
    ],
)
def test_what_cannot_be_reproducible_is_refused(overrides, message):
    (config,) = compose_command("solder_vae.train", [f"trainer.precision={REPRODUCIBLE}", *overrides])
    with pytest.raises(UserError, match=message):
        training_precision(config, None)
    config.trainer.precision = "auto"
    with pytest.raises(UserError, match=message):
        training_precision(config, {"precision": REPRODUCIBLE})


def test_processes_too_many_for_the_last_batch_are_refused():
    with pytest.raises(UserError, match=r"35 images leave a last batch of 3, too few for trainer.devices=4 .* use 3"):
        check_shares(35, 8, 4)
    for images, batch_size, processes in ((35, 8, 3), (33, 8, 4), (32, 8, 8), (3, 8, 4)):
        check_shares(images, batch_size, processes)
