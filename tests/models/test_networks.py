"""The network against the paper's layer table and against the layers as published."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from solder_vae.models.autoencoder import CAE
from solder_vae.models.checkpoint import load_model
from solder_vae.models.layers.blocks import BicubicUpsample2x
from solder_vae.models.networks import Decoder, Encoder, Network
from solder_vae.models.vae import BetaVAE
from solder_vae.utils.errors import UserError

# Paper Fig. 3: output shape after each block, for a 64x64 input.
ENCODER_SHAPES = [
    (16, 64, 64),
    (16, 32, 32),
    (32, 32, 32),
    (32, 16, 16),
    (64, 16, 16),
    (64, 8, 8),
    (128, 8, 8),
    (256, 8, 8),
]
DECODER_SHAPES = [
    (256, 8, 8),
    (128, 8, 8),
    (64, 8, 8),
    (64, 16, 16),
    (32, 16, 16),
    (32, 32, 32),
    (16, 32, 32),
    (16, 64, 64),
    (3, 64, 64),
]


def shapes_through(layers: nn.Sequential, x: torch.Tensor) -> list[tuple[int, ...]]:
    shapes = []
    for layer in layers:
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    return shapes


def test_every_layer_has_the_papers_shape():
    encoder, decoder = Encoder(heads=2), Decoder()
    assert shapes_through(encoder.features, torch.zeros(2, 3, 64, 64)) == ENCODER_SHAPES
    assert shapes_through(decoder.layers, torch.zeros(2, 10, 8, 8)) == DECODER_SHAPES
    assert [tuple(head.shape) for head in encoder(torch.zeros(2, 3, 64, 64))] == [(2, 10, 8, 8)] * 2


def test_blocks_are_convolution_norm_activation():
    for block in [*Encoder(1).features, *Encoder(1).heads, *Decoder().layers]:
        if isinstance(block, nn.Sequential):
            conv, norm, activation = block
            assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
            assert norm.num_features == conv.out_channels
            last = isinstance(activation, nn.Tanh)
            assert last == (conv.out_channels == 3)
            assert last or activation.negative_slope == 0.01


def test_six_decoder_convolutions_in_order():
    channels = [(conv.in_channels, conv.out_channels) for conv in Decoder().convolutions]
    assert channels == [(10, 256), (256, 128), (128, 64), (64, 32), (32, 16), (16, 3)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (8, 8), (17, 4), (32, 32), (130, 3)])
def test_upsampling_is_bicubic(height, width):
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    ours, published = BicubicUpsample2x()(x), F.interpolate(x, scale_factor=2, mode="bicubic")
    torch.testing.assert_close(ours, published, rtol=0, atol=1e-6)  # the matrix comes from a float32 kernel
    weight = torch.randn_like(ours)
    (ours_gradient,) = torch.autograd.grad((ours * weight).sum(), x)
    (published_gradient,) = torch.autograd.grad((published * weight).sum(), x)
    torch.testing.assert_close(ours_gradient, published_gradient, rtol=0, atol=1e-5)


def test_upsampling_keeps_the_memory_format():
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    assert BicubicUpsample2x()(x).is_contiguous(memory_format=torch.channels_last)


def test_decoder_starts_as_transposed_convolutions_would():
    for conv in Decoder().convolutions:
        published = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 3, padding=1)
        bound = published.weight.abs().max().item()
        assert conv.weight.abs().max().item() == pytest.approx(bound, rel=0.05)


@pytest.mark.parametrize("size", [8, 64, 128])
def test_other_sizes(size):
    (z,) = Encoder(1)(torch.zeros(2, 3, size, 2 * size))
    assert z.shape == (2, 10, size // 8, size // 4)
    assert Decoder()(z).shape == (2, 3, size, 2 * size)


def test_size_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        Encoder(1)(torch.zeros(1, 3, 60, 64))


def test_output_range():
    recon = Decoder()(10 * torch.randn(2, 10, 8, 8))
    assert recon.min() >= -1
    assert recon.max() <= 1


@pytest.mark.parametrize("head", ["block", "conv"])
@pytest.mark.parametrize(("channels", "width"), [(10, 16), (4, 8)])
def test_sizes_and_heads_are_options_and_travel_with_the_checkpoint(head, channels, width, tmp_path):
    torch.manual_seed(0)
    options = {"latent_channels": channels, "width": width, "head": head}
    model = BetaVAE(**options)
    assert model.encode(torch.rand(2, 3, 16, 16))[0].shape == (2, channels, 2, 2)
    assert model.encoder.features[0][0].out_channels == width
    assert model.decoder.convolutions[0].out_channels == 16 * width
    assert model.noise(torch.rand(2, 3, 16, 16), 0, 0).shape == (2, channels, 2, 2)
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(content)
    torch.save(content, tmp_path / "a.ckpt")
    assert load_model(tmp_path / "a.ckpt").state_dict().keys() == model.state_dict().keys()


def test_block_heads_bound_the_posterior_and_plain_ones_do_not():
    """LeakyReLU(0.01) leaves a hundredth of what is negative."""
    torch.manual_seed(0)
    x = torch.rand(16, 3, 32, 32) * 2 - 1
    block, conv = (BetaVAE(head=head).train() for head in ("block", "conv"))
    mu, logvar = block.encode(x)
    assert mu.min() > -0.1
    assert (0.5 * logvar).exp().min() > 0.95
    with torch.no_grad():
        for head in conv.encoder.heads:
            head.bias -= 3
    mu, logvar = conv.encode(x)
    assert mu.max() < -1
    assert (0.5 * logvar).exp().max() < 0.6


def test_the_plain_layers_give_the_same_but_for_rounding():
    torch.manual_seed(0)
    fast = BetaVAE().double()
    plain = BetaVAE(fast=False).double()
    plain.load_state_dict(fast.state_dict())
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64) * 2 - 1
    for mode in (True, False):
        fast.train(mode), plain.train(mode)
        torch.testing.assert_close(fast(x), plain(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("options", [{"head": "linear"}, {"width": 0}, {"latent_channels": -1}, {"width": 1.5}])
def test_sizes_that_do_not_fit_are_refused(options):
    with pytest.raises(UserError, match=rf"model\.{next(iter(options))}"):
        BetaVAE(**options)


def test_a_network_that_is_not_known_is_not_imported():
    with pytest.raises(UserError, match=r"model\.encoder names os\.system, which is not a known network"):
        BetaVAE(encoder={"_target_": "os.system", "command": "true"})


class Shallow(Network):
    """Two poolings, or three: maps of 6 channels, or as many as are asked for."""

    def __init__(self, stride: int = 4, channels: int = 6) -> None:
        super().__init__()
        self.stride, self.latent_channels = stride, channels
        self.layer = torch.nn.Conv2d(3, channels, stride, stride)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layer(x),)


SHALLOW = f"{Shallow.__module__}.{Shallow.__qualname__}"


def test_the_papers_decoder_takes_the_channels_of_another_encoder():
    model = CAE(encoder={"_target_": SHALLOW, "stride": 8})
    x = torch.rand(2, 3, 16, 16)
    assert model(x).shape == x.shape


def test_a_stride_that_the_papers_decoder_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"are 4 times smaller than an image, and the paper's decoder enlarges 8 times"):
        CAE(encoder={"_target_": SHALLOW})
