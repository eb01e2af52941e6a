"""GradCon against explicit loops: over layers, over steps, over images."""

import math
import operator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solder_vae.models.gradcon import (
    ReferenceGradients,
    decode_with_gradient_loss,
    dot_and_norm_from_gradients,
    dot_and_norm_from_gram,
    gradient_loss,
    weight_gradient_cosine,
    weight_gradients_unfold,
)
from solder_vae.models.layers.convolution import weight_gradients_loop
from solder_vae.models.losses import squared_error
from solder_vae.models.networks import Decoder


def lively_decoder(dtype=torch.float64) -> Decoder:
    """A decoder in evaluation mode whose batch norms have seen data and learnt something."""
    decoder = Decoder().to(dtype)
    for _ in range(3):
        decoder(torch.randn(8, 10, 8, 8, dtype=dtype))
    for module in decoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return decoder.eval()


def random_reference(decoder: Decoder) -> list[Tensor]:
    return [torch.randn_like(conv.weight) for conv in decoder.convolutions]


def one_at_a_time(decoder: Decoder, z: Tensor, x: Tensor, reference: list[Tensor]) -> list[float]:
    """Eq. 4 as the authors compute it: a full backward pass for each image, cosines layer by layer in plain Python."""
    losses = []
    for image, latent in zip(x, z, strict=True):
        decoder.zero_grad()
        squared_error(image[None], decoder(latent[None])).sum().backward()
        cosines = []
        for conv, mean in zip(decoder.convolutions, reference, strict=True):
            a, b = conv.weight.grad.flatten().tolist(), mean.flatten().tolist()
            (aa, ab, bb) = (math.fsum(map(operator.mul, u, v)) for u, v in ((a, a), (a, b), (b, b)))
            cosines.append(ab / math.sqrt(aa) / math.sqrt(bb))
        losses.append(-sum(cosines) / len(cosines))
    return losses


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_per_image_loss_equals_one_image_at_a_time(dtype, channels_last):
    decoder = lively_decoder(dtype)
    if channels_last:
        decoder.to(memory_format=torch.channels_last)
    z, x = torch.randn(5, 10, 8, 8, dtype=dtype), torch.rand(5, 3, 64, 64, dtype=dtype) * 2 - 1
    reference = random_reference(decoder)
    recon, batched = decode_with_gradient_loss(decoder, z, x, reference)
    expected = one_at_a_time(decoder, z, x, reference)
    assert batched.tolist() == pytest.approx(expected, abs=1e-12 if dtype == torch.float64 else 1e-6)
    torch.testing.assert_close(recon, decoder(z).detach())


def test_per_image_loss_is_the_batchs_alone():
    """An image's value does not depend on the others in its batch, nor are the parameters' gradients touched."""
    decoder = lively_decoder()
    z, x = torch.randn(4, 10, 8, 8).double(), torch.rand(4, 3, 64, 64).double()
    reference = random_reference(decoder)
    _, together = decode_with_gradient_loss(decoder, z, x, reference)
    alone = torch.cat([decode_with_gradient_loss(decoder, z[i : i + 1], x[i : i + 1], reference)[1] for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert all(parameter.grad is None for parameter in decoder.parameters())


def test_works_on_frozen_weights_and_under_no_grad():
    decoder = lively_decoder()
    z, x, reference = (
        torch.randn(2, 10, 8, 8).double(),
        torch.rand(2, 3, 64, 64).double(),
        random_reference(decoder),
    )
    _, expected = decode_with_gradient_loss(decoder, z, x, reference)
    decoder.requires_grad_(False)
    with torch.no_grad():
        _, frozen = decode_with_gradient_loss(decoder, z, x, reference)
    assert torch.equal(frozen, expected)


def test_refuses_training_mode_and_inference_mode():
    decoder = lively_decoder()
    z, x, reference = (
        torch.randn(2, 10, 8, 8).double(),
        torch.rand(2, 3, 64, 64).double(),
        random_reference(decoder),
    )
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode=False"):
        decode_with_gradient_loss(decoder, z, x, reference)
    with pytest.raises(RuntimeError, match="batch norm"):
        decode_with_gradient_loss(decoder.train(), z, x, reference)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    channels_in=st.integers(1, 5),
    channels_out=st.integers(1, 5),
    size=st.integers(1, 6),
)
def test_weight_gradient_cosine_of_any_layer(seed, channels_in, channels_out, size):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(3, channels_in, size, size + 1, generator=generator, dtype=torch.float64)
    output_gradients = torch.randn(3, channels_out, size, size + 1, generator=generator, dtype=torch.float64)
    reference = torch.randn(channels_out, channels_in, 3, 3, generator=generator, dtype=torch.float64)
    expected = []
    weight = torch.zeros_like(reference, requires_grad=True)
    gradients = []
    for image, gradient in zip(inputs, output_gradients, strict=True):
        (one,) = torch.autograd.grad((F.conv2d(image[None], weight, padding=1) * gradient).sum(), weight)
        gradients.append(one)
        expected.append(torch.cosine_similarity(one.flatten(), reference.flatten(), dim=0).item())
    assert weight_gradient_cosine(inputs, output_gradients, reference).tolist() == pytest.approx(expected, abs=1e-10)
    for way in (weight_gradients_loop, weight_gradients_unfold):
        torch.testing.assert_close(way(inputs, output_gradients, reference), torch.stack(gradients))
    products = [(one * reference).sum() for one in gradients], [one.square().sum() for one in gradients]
    for way in (dot_and_norm_from_gradients, dot_and_norm_from_gram):
        for ours, theirs in zip(way(inputs, output_gradients, reference), products, strict=True):
            torch.testing.assert_close(ours, torch.stack(theirs))


def test_gradient_loss_against_a_loop_over_layers():
    gradients = [torch.randn(4, 3, 3, 3).double(), torch.randn(7).double()]
    reference = [torch.randn(4, 3, 3, 3).double(), torch.randn(7).double()]
    expected = 0.0
    for a, b in zip(gradients, reference, strict=True):
        expected -= (a * b).sum().item() / math.sqrt((a * a).sum().item() * (b * b).sum().item()) / 2
    assert gradient_loss(gradients, reference).item() == pytest.approx(expected)
    assert gradient_loss(reference, reference).item() == pytest.approx(-1)
    assert gradient_loss([-g for g in reference], reference).item() == pytest.approx(1)


def test_small_gradients_keep_their_direction():
    """Late in training gradients are tiny; the cosine's guard against division by zero must not flatten them."""
    gradient = torch.randn(50) * 1e-6
    assert gradient_loss([gradient], [gradient * 1e-1]).item() == pytest.approx(-1, abs=1e-5)


def test_reference_is_the_running_mean():
    decoder = Decoder()
    reference = ReferenceGradients(decoder.convolutions)
    history = []
    for _ in range(5):
        gradients = [torch.randn_like(conv.weight) for conv in decoder.convolutions]
        history.append(gradients)
        reference.update(gradients)
    assert reference.steps == 5
    for layer, mean in enumerate(reference.means):
        torch.testing.assert_close(mean, torch.stack([step[layer] for step in history]).mean(0))
    restored = ReferenceGradients(decoder.convolutions)
    restored.load_state_dict(reference.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(restored.means, reference.means, strict=True))
    assert restored.steps == 5
