"""What makes training and scoring fast leaves every number as it is: against the network as published, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks import reference as published
from solder_vae.data.transforms import to_tensor
from solder_vae.models.autoencoder import CAE
from solder_vae.models.layers import batch_norm, forward
from solder_vae.models.layers import convolution as kernels
from solder_vae.models.layers.blocks import BicubicUpsample2x, bicubic_matrix, conv_block
from solder_vae.models.layers.forward import fast_forward, fast_heads
from solder_vae.models.vae import BetaVAE

CPU = torch.device("cpu")


def lively_model(size=32, **options) -> BetaVAE:
    """A model in float64 whose batch norms have seen data and learnt something, a negative scale among it."""
    model = BetaVAE(**options).double()
    for _ in range(3):
        model(torch.rand(8, 3, size, size).double() * 2 - 1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    model.reference.update([torch.randn_like(conv.weight) for conv in model.decoder.convolutions])
    return model


def images(n=4, height=32, width=32):
    return torch.rand(n, 3, height, width).double() * 2 - 1


# the whole network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 48), (8, 264)])
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_objective_and_all_gradients_equal_the_published_networks(alpha, height, width):
    model = lively_model(alpha=alpha, beta=3)
    network = published.published_twin(model)
    x = images(4, height, width)
    noise = model.noise(x, 0, 0)
    reference = [published.flipped(mean) for mean in model.reference.means]
    expected = published.objective(network, x, noise, 3, alpha, reference)
    expected.backward()

    terms, _ = model.loss_terms(x, noise)
    ours = terms["loss"]
    if alpha:
        ours = ours + alpha * model.gradient_constraint(terms["recon"])
    ours.backward()

    assert ours.item() == pytest.approx(expected.item(), rel=1e-12)
    theirs_and_ours = zip(
        published.blocks_of(network.features, network.heads, network.decoder),
        published.blocks_of(model.encoder.features, model.encoder.heads, model.decoder),
        strict=True,
    )
    for (their_conv, their_norm), (our_conv, our_norm) in theirs_and_ours:
        gradient = their_conv.weight.grad
        if isinstance(their_conv, nn.ConvTranspose2d):
            gradient = published.flipped(gradient)
        scale = gradient.abs().max().item()
        torch.testing.assert_close(our_conv.weight.grad, gradient, rtol=0, atol=1e-10 * scale)
        torch.testing.assert_close(our_norm.weight.grad, their_norm.weight.grad, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(our_norm.bias.grad, their_norm.bias.grad, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(our_norm.running_mean, their_norm.running_mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(our_norm.running_var, their_norm.running_var, rtol=1e-10, atol=1e-12)
        assert our_norm.num_batches_tracked == their_norm.num_batches_tracked


@pytest.mark.slow
def test_ten_steps_of_training_stay_together():
    model = BetaVAE(alpha=0.03).double()
    network = published.published_twin(model)
    x = images(8)
    ours = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    theirs = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(10):
        noise = model.noise(x, 0, step)
        reference = [published.flipped(mean) for mean in model.reference.means] if step else []
        expected = published.objective(network, x, noise, 3, 0.03, reference)
        terms, _ = model.loss_terms(x, noise)
        objective = terms["loss"] + 0.03 * model.gradient_constraint(terms["recon"])
        assert objective.item() == pytest.approx(expected.item(), rel=1e-6)
        for optimizer, value in ((ours, objective), (theirs, expected)):
            optimizer.zero_grad()
            value.backward()
        model.update_reference()
        ours.step()
        theirs.step()


def test_scores_equal_the_published_networks():
    model = lively_model(gamma=0.12).eval()
    network = published.published_twin(model)
    x = images(3, 64, 64)
    scores = model.score(x).scores
    reference = [published.flipped(mean) for mean in model.reference.means]
    expected = [published.gradcon_score(network, image, 0.12, reference) for image in x]
    assert scores["gradcon"].tolist() == pytest.approx(expected, abs=1e-12)
    single = copy.deepcopy(model).float().score(x.float()).scores["gradcon"]
    assert single.tolist() == pytest.approx(expected, abs=1e-5)


def test_recon_scores_from_decoded_images():
    model = CAE().eval()
    network = published.published_twin(model)
    decoded = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8).numpy()
    ours = model.score(to_tensor(decoded)).scores["recon"]
    torch.testing.assert_close(ours, published.recon_scores(network, decoded, batch_size=2), rtol=1e-5, atol=1e-6)


def test_weights_convert_both_ways():
    network = published.PublishedNetwork().double()
    for conv, _ in published.blocks_of(network):
        nn.init.normal_(conv.bias)
    network.decoder(network.encode(images())[0])  # running statistics
    model = BetaVAE().double().eval()
    published.from_published(network, model.encoder, model.decoder)
    network.eval()
    x = images()
    torch.testing.assert_close(model(x), network.decoder(network.encode(x)[0]), rtol=0, atol=1e-12)
    back = BetaVAE().double().eval()
    published.from_published(published.published_twin(model), back.encoder, back.decoder)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, back.encoder.state_dict()[name])
    for name, value in model.decoder.state_dict().items():
        assert torch.equal(value, back.decoder.state_dict()[name])


# which way is taken ---------------------------------------------------------------------------------------------------


def calls_of(monkeypatch, name):
    calls = []
    original = getattr(forward, name)
    monkeypatch.setattr(forward, name, lambda *args: calls.append(name) or original(*args))
    return calls


@pytest.mark.slow
def test_which_kernels_are_used_when(monkeypatch):
    model = BetaVAE()
    x = images(40, 64, 64).float()
    names = ("batch_norm", "pooled_batch_norm", "winograd_conv3x3", "interpolated_conv3x3", "fold_batch_norm")
    calls = {name: calls_of(monkeypatch, name) for name in names}

    def counts():
        return [len(calls[name]) for name in names]

    model(x)  # encoder with two heads, and decoder
    assert counts() == [10, 3, 5, 3, 0]
    with torch.no_grad():
        model(x)  # statistics of the batch, but no gradients: not a case of any importance
    with torch.autocast("cpu", torch.bfloat16):
        model(x)  # no tiles: their differences need digits
    assert counts() == [20, 6, 5, 6, 0]
    model.eval()(x)
    assert counts() == [20, 6, 5, 6, 0]
    with torch.no_grad():
        model(x)
        assert counts() == [20, 6, 5, 9, 13]
        model(x[:1])  # the wide layers are not worth folding for one image
    assert 13 < len(calls["fold_batch_norm"]) < 26


def test_folding_leaves_the_output_as_it_is():
    model = lively_model(64).eval()
    x = images(16, 64, 64)
    expected = model(x).detach()  # with gradients nothing is folded
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(model(x[:1]), expected[:1], rtol=0, atol=1e-12)
        single = model.float()(x.float())
    torch.testing.assert_close(single, expected.float(), rtol=0, atol=1e-4)


def odd_blocks():
    yield nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU())  # a bias
    yield nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.InstanceNorm2d(4), nn.LeakyReLU())
    yield nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ELU())
    yield nn.Sequential(nn.Conv2d(4, 4, 5, padding=2, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU())
    yield nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU())
    yield nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, momentum=None), nn.LeakyReLU())
    yield nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4).eval(), nn.LeakyReLU())
    yield nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
    yield nn.Identity()


@pytest.mark.parametrize("layer", list(odd_blocks()))
def test_what_the_kernels_are_not_made_for_is_called_as_it_is(layer, monkeypatch):
    calls = [calls_of(monkeypatch, name) for name in ("batch_norm", "winograd_conv3x3", "interpolated_conv3x3")]
    layers = [BicubicUpsample2x(), layer, nn.MaxPool2d(2), BicubicUpsample2x()]
    x = torch.randn(2, 4, 8, 8)
    expected = nn.Sequential(*copy.deepcopy(layers))(x)
    assert torch.equal(fast_forward(layers, x), expected)
    assert not any(calls)


def test_heads_that_are_no_blocks_are_called_as_they_are(monkeypatch):
    calls = calls_of(monkeypatch, "batch_norm")
    heads = [conv_block(4, 2), nn.Conv2d(4, 3, 1), conv_block(4, 1)]
    x = torch.randn(2, 4, 8, 8)
    expected = [head(x) for head in copy.deepcopy(heads)]
    for ours, theirs in zip(fast_heads(heads, x), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert len(calls) == 2


# the kernels alone ----------------------------------------------------------------------------------------------------


def same_to_second_order(ours, theirs, *inputs):
    """Values, gradients, and gradients of gradients."""
    results = []
    for function in (ours, theirs):
        value = function(*inputs)
        weight = torch.sin(torch.arange(value.numel(), dtype=value.dtype)).reshape(value.shape)
        first = torch.autograd.grad((value * weight).sum() + value.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum((g * g.detach().cos()).sum() for g in first), inputs)
        results.append([value, *first, *second])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([(4, 4), (8, 8), (4, 12)]))
def test_winograd_is_a_convolution(batch, channels_in, channels_out, size):
    x = torch.randn(batch, channels_in, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(channels_out, channels_in, 3, 3, dtype=torch.float64, requires_grad=True)
    same_to_second_order(kernels.winograd_conv3x3, lambda x, w: F.conv2d(x, w, padding=1), x, weight)


def test_winograd_rounds_hardly_more_than_a_direct_convolution():
    x, weight = torch.randn(4, 256, 8, 8), torch.randn(128, 256, 3, 3) / 48
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (kernels.winograd_conv3x3(x, weight) - exact).square().mean().sqrt()
    assert error < 5e-6 * exact.std()


SIZES = st.one_of(st.integers(1, 5), st.sampled_from([128, 129, 192, 193]))  # whole, and in bands


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 3, 8, 9]), SIZES, st.integers(1, 5), st.booleans())
def test_interpolated_convolution_is_interpolation_then_convolution(
    batch, channels_in, channels_out, height, width, turned
):
    if turned:
        height, width = width, height
    x = torch.randn(batch, channels_in, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(channels_out, channels_in, 3, 3, dtype=torch.float64, requires_grad=True)
    rows, columns = (bicubic_matrix(size, CPU, torch.float64) for size in (height, width))
    same_to_second_order(
        lambda x, w: kernels.interpolated_conv3x3(x, w, rows, columns),
        lambda x, w: F.conv2d(F.interpolate(x, scale_factor=2, mode="bicubic"), w, padding=1),
        x,
        weight,
    )


def normed(norm, function):
    """The function of a map and a batch norm as one of the map, the scales and the shifts."""

    def call(x, weight, bias):
        del norm.weight, norm.bias
        norm.weight, norm.bias = weight, bias
        return function(x, norm)

    return call


def plain_norm(x, norm):
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, True, 0.1, norm.eps)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (2, 3, 0, 1), (0, 2, 1, 3)])
def test_batch_norm_in_any_memory_order(order):
    shape = (3, 4, 2, 5)
    x = torch.randn([shape[axis] for axis in order], dtype=torch.float64)
    x = x.permute(*(order.index(axis) for axis in range(4))).requires_grad_()
    norms = [nn.BatchNorm2d(4).double() for _ in range(2)]
    weight, bias = (torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(2))

    same_to_second_order(normed(norms[0], batch_norm.batch_norm), normed(norms[1], plain_norm), x, weight, bias)
    torch.testing.assert_close(norms[0].running_mean, norms[1].running_mean)
    torch.testing.assert_close(norms[0].running_var, norms[1].running_var)
    assert batch_norm.batch_norm(x, norms[0]).stride() == x.stride()


@pytest.mark.parametrize(("channels", "size"), [(3, (4, 6)), (40, (5, 7))])  # few channels are seen as many
def test_batch_norm_before_a_pooling(channels, size):
    ours, theirs = (nn.BatchNorm2d(channels).double() for _ in range(2))
    x = torch.randn(3, channels, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    x[:, :, :2, :2] = 0.25  # equal values: the first is the maximum
    weight, bias = (torch.randn(channels, dtype=torch.float64, requires_grad=True) for _ in range(2))
    sign = torch.where(weight < 0, -1, 1)
    pooled = normed(ours, lambda x, norm: batch_norm.pooled_batch_norm(x * sign[:, None, None], norm, sign))
    plain = normed(theirs, lambda x, norm: F.max_pool2d(plain_norm(x, norm), 2))
    same_to_second_order(pooled, plain, x.requires_grad_(), weight, bias)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == 1
    fixed = weight.detach()
    same_to_second_order(lambda x: pooled(x, fixed, fixed), lambda x: plain(x, fixed, fixed), x)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 2), (torch.float32, 5)])
def test_batch_norm_before_a_pooling_in_less_than_double_precision(dtype, digits):
    norms = [nn.BatchNorm2d(16) for _ in range(2)]
    x = torch.randn(4, 16, 8, 8).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    sign = torch.ones(16, dtype=torch.int)
    results = []
    for y, norm in (
        (batch_norm.pooled_batch_norm(x, norms[0], sign), norms[0]),
        (F.max_pool2d(norms[1](x), 2), norms[1]),
    ):
        gradients = torch.autograd.grad(y.float().sin().sum(), (x, norm.weight, norm.bias))
        results.append([y, *gradients, norm.running_mean, norm.running_var])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=10**-digits * b.abs().max().item())


def test_batch_norm_twice_by_finite_differences():
    x = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.3, 0.0], dtype=torch.float64, requires_grad=True)  # a scale of 0 divides nothing
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def norm(x, weight, bias):
        return batch_norm.BatchNorm.apply(x, weight, bias, 1e-3)[0]

    assert torch.autograd.gradcheck(norm, (x, weight, bias))
    assert torch.autograd.gradgradcheck(norm, (x, weight, bias))


def test_one_value_has_no_variance():
    with pytest.raises(ValueError, match="more than 1 value"):
        batch_norm.batch_norm(torch.randn(1, 2, 1, 1), nn.BatchNorm2d(2))


def test_the_cheaper_way_is_chosen():
    assert kernels.winograd_pays(256, 128, 8, 8)
    assert kernels.winograd_pays(256, 20, 8, 8)
    assert not kernels.winograd_pays(256, 10, 8, 8)  # the transforms would outweigh the products
    assert not kernels.winograd_pays(256, 128, 10, 8)  # no whole tiles
    assert not kernels.winograd_pays(256, 128, 64, 64)
    assert kernels.interpolation_pays(64, 32, 8, 8)
    assert not kernels.interpolation_pays(64, 32, 128, 128)
