"""Muon beside Newton-Schulz written out, the singular value decomposition, and torch's own Muon and Adam."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solder_vae.models.muon import RMS, Muon, orthogonalized


def newton_schulz(matrix):
    """Five times X <- a X + b (X X^T) X + c (X X^T)^2 X in double precision, by the matrices as they are."""
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x


@given(st.integers(1, 24), st.integers(1, 60), st.integers(0, 1_000_000))
def test_the_product_of_polynomials_is_newton_schulz(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(orthogonalized(matrix).double(), newton_schulz(matrix), rtol=0, atol=2e-3)
    torch.testing.assert_close(orthogonalized(matrix.double()), newton_schulz(matrix), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(16, 27), (32, 144), (256, 90), (128, 2304), (3, 144)])
def test_singular_vectors_stay_and_singular_values_are_about_1(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalized(matrix) @ v.T
    assert inside.diag().min() > 0.65
    assert inside.diag().max() < 1.2
    assert (inside - inside.diag().diag()).abs().max() < 1e-4


def test_what_has_few_directions_or_none_stays_finite():
    """A gradient of one image has few; that of a dead layer none."""
    row = torch.linspace(-1, 1, 50)
    once = orthogonalized(torch.outer(torch.arange(1.0, 9.0), row))
    assert once.norm() == pytest.approx(1, abs=0.35)  # its one singular value
    assert torch.equal(orthogonalized(torch.zeros(4, 9)), torch.zeros(4, 9))


def trained(make, steps=6, dtype=torch.float64):
    """A small network after a few steps on the same data."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 5)).to(dtype)
    optimizers = make(network)
    for step in range(steps):
        x = torch.randn(16, 20, generator=torch.Generator().manual_seed(step)).to(dtype)
        network.zero_grad()
        (network(x) - x[:, :5]).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return network


def test_steps_are_those_of_torchs_muon_for_matrices_and_adam_for_the_rest():
    """torch's own multiplies in bfloat16, so its steps are as exact as that; Adam's are the same."""

    def of_torch(network):
        matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in network.parameters() if parameter.ndim < 2]
        options = {"momentum": 0.8, "weight_decay": 0.3, "adjust_lr_fn": "match_rms_adamw"}
        return torch.optim.Muon(matrices, 1e-2, **options), torch.optim.Adam(others, 1e-2, (0.9, 0.95))

    ours = trained(lambda network: [Muon(network.parameters(), 1e-2, momentum=0.8, weight_decay=0.3)])
    theirs = trained(of_torch)
    start = trained(of_torch, steps=0)
    for mine, other, before in zip(ours.parameters(), theirs.parameters(), start.parameters(), strict=True):
        assert (mine - other).norm() < 0.05 * (mine - before).norm()


def test_a_kernel_is_a_matrix_with_a_row_for_each_output_in_any_memory_order():
    gradient = torch.randn(8, 5, 3, 3)
    steps = []
    for layout in (torch.contiguous_format, torch.channels_last):
        kernel = torch.nn.Parameter(torch.zeros(8, 5, 3, 3).contiguous(memory_format=layout))
        kernel.grad = gradient.contiguous(memory_format=layout)
        Muon([kernel], lr=1.0, momentum=0.0).step()
        steps.append(kernel.detach())
    expected = -RMS * 45**0.5 * newton_schulz(gradient.flatten(1)).float().view(8, 5, 3, 3)
    for step in steps:
        torch.testing.assert_close(step, expected, rtol=0, atol=1e-4)


def test_momentum_is_nesterovs_and_decay_is_decoupled():
    """Two steps by hand: m <- 0.6 m + 0.4 g, and 0.4 g + 0.6 m is made orthogonal."""
    first, second = torch.randn(2, 4, 6, dtype=torch.float64)
    kernel = torch.nn.Parameter(torch.ones(4, 6, dtype=torch.float64))
    optimizer = Muon([kernel], lr=0.1, momentum=0.6, weight_decay=0.5)
    expected, mean = torch.ones(4, 6, dtype=torch.float64), torch.zeros(4, 6, dtype=torch.float64)
    for gradient in (first, second):
        kernel.grad = gradient.clone()
        optimizer.step()
        mean = 0.6 * mean + 0.4 * gradient
        expected = 0.95 * expected - 0.1 * RMS * 6**0.5 * newton_schulz(0.4 * gradient + 0.6 * mean)
    torch.testing.assert_close(kernel.detach(), expected)


def test_a_state_that_was_saved_goes_on_to_the_bit():
    def half_way(network):
        optimizer = Muon(network.parameters(), 1e-2)

        class Saved:
            def step(self):
                nonlocal optimizer
                state = {**optimizer.state_dict()}
                optimizer = Muon(network.parameters(), 1.0, momentum=0.1)
                optimizer.load_state_dict(state)
                optimizer.step()

        return [Saved()]

    whole, resumed = trained(lambda network: [Muon(network.parameters(), 1e-2)]), trained(half_way)
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


def test_a_state_loaded_from_the_cpu_is_on_the_device_of_its_parameters():
    """Adam's step too, which torch moves for those that are fused alone; "meta" stands for a GPU."""
    gain = torch.nn.Parameter(torch.ones(3))
    gain.grad = torch.ones(3)
    optimizer = Muon([gain])
    optimizer.step()
    elsewhere = torch.nn.Parameter(torch.ones(3, device="meta"))
    resumed = Muon([elsewhere])
    resumed.load_state_dict(optimizer.state_dict())
    devices = {name: value.device.type for name, value in resumed.state[elsewhere].items()}
    assert devices == dict.fromkeys(("exp_avg", "exp_avg_sq", "step"), "meta")


def test_a_parameter_without_a_gradient_stays_and_a_closure_is_called():
    moved, still = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    optimizer = Muon([moved, still])

    def closure():
        loss = moved.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 6
    assert torch.equal(still, torch.ones(2, 3))
    assert not torch.equal(moved, torch.ones(2, 3))


@pytest.mark.parametrize(
    "wrong",
    [{"lr": -1.0}, {"lr": float("nan")}, {"momentum": 1.0}, {"betas": (0.9, 1.0)}, {"weight_decay": -1.0}],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Muon([torch.nn.Parameter(torch.ones(1))], **wrong)
