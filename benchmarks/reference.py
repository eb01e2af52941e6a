"""The network and its use written as published: the baseline of the benchmark and the oracle of its tests.

ConvTranspose2d with biases, ``nn.Upsample(bicubic)``, contiguous tensors, the constraint by a general double backward
pass, GradCon's score one image at a time with a full backward pass, images decoded one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from solder_vae.models.autoencoder import CAE
from solder_vae.models.networks import Decoder, Encoder

Blocks = list[tuple[nn.Module, nn.BatchNorm2d]]


def block(channels_in: int, channels_out: int, transposed: bool = False, last: bool = False) -> nn.Sequential:
    """3x3 convolution or transposed convolution with bias, batch norm, activation."""
    layer = nn.ConvTranspose2d if transposed else nn.Conv2d
    return nn.Sequential(
        layer(channels_in, channels_out, kernel_size=3, stride=1, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.Tanh() if last else nn.LeakyReLU(),
    )


class PublishedNetwork(nn.Module):
    """Encoder with one or two heads, and decoder."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(3, 16), nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d(2), block(32, 64), nn.MaxPool2d(2),
            block(64, 128), block(128, 256),
        )  # fmt: skip
        self.heads = nn.ModuleList(block(256, 10) for _ in range(heads))
        self.decoder = nn.Sequential(
            block(10, 256, True), block(256, 128, True), block(128, 64, True),
            nn.Upsample(scale_factor=2, mode="bicubic"), block(64, 32, True),
            nn.Upsample(scale_factor=2, mode="bicubic"), block(32, 16, True),
            nn.Upsample(scale_factor=2, mode="bicubic"), block(16, 3, True, last=True),
        )  # fmt: skip

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.features(x)
        return tuple(head(features) for head in self.heads)

    def decoder_weights(self) -> list[Tensor]:
        return [module.weight for module in self.decoder.modules() if isinstance(module, nn.ConvTranspose2d)]


# weights -------------------------------------------------------------------------------------------------------------


def blocks_of(*parts: nn.Module) -> Blocks:
    """The (convolution, batch norm) pairs in order."""
    modules = [module for part in parts for module in part.modules()]
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    return list(zip(convolutions, norms, strict=True))


def flipped(weight: Tensor) -> Tensor:
    """A transposed convolution's weight as a convolution's, and back: channel axes swapped, kernel turned by 180."""
    return weight.transpose(0, 1).flip(2, 3)


@torch.no_grad()
def from_published(network: PublishedNetwork, encoder: Encoder, decoder: Decoder) -> None:
    """Copy the published network's weights. A bias only moves the batch norm's mean, so it is taken off there."""
    for (theirs, their_norm), (ours, our_norm) in zip(
        blocks_of(network.features, network.heads, network.decoder),
        blocks_of(encoder.features, encoder.heads, decoder),
        strict=True,
    ):
        weight = theirs.weight
        ours.weight.copy_(flipped(weight) if isinstance(theirs, nn.ConvTranspose2d) else weight)
        our_norm.load_state_dict(their_norm.state_dict())
        our_norm.running_mean -= theirs.bias


@torch.no_grad()
def to_published(encoder: Encoder, decoder: Decoder, network: PublishedNetwork) -> None:
    """Copy our weights into the published network, whose biases become 0."""
    for (theirs, their_norm), (ours, our_norm) in zip(
        blocks_of(network.features, network.heads, network.decoder),
        blocks_of(encoder.features, encoder.heads, decoder),
        strict=True,
    ):
        weight = ours.weight
        theirs.weight.copy_(flipped(weight) if isinstance(theirs, nn.ConvTranspose2d) else weight)
        theirs.bias.zero_()
        their_norm.load_state_dict(our_norm.state_dict())


def published_twin(model: CAE) -> PublishedNetwork:
    """The model's weights in the published network, in contiguous memory."""
    parameter = next(model.parameters())
    network = PublishedNetwork(model.heads).to(parameter.device, parameter.dtype)
    to_published(model.encoder, model.decoder, network)
    return network.train(model.training)


# training and scoring -------------------------------------------------------------------------------------------------


def objective(
    network: PublishedNetwork, x: Tensor, noise: Tensor, beta: float, alpha: float, reference: Sequence[Tensor]
) -> Tensor:
    """J of the beta-VAE, written out; ``reference`` in the published layout, empty in the first step."""
    mu, logvar = network.encode(x)
    recon = network.decoder(mu + torch.exp(0.5 * logvar) * noise)
    error = F.mse_loss(recon, x)
    loss = error + beta * 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum() / x.numel()
    if alpha == 0 or not reference:
        return loss
    gradients = torch.autograd.grad(error, network.decoder_weights(), create_graph=True)
    cosines = [
        F.cosine_similarity(g.reshape(1, -1), r.reshape(1, -1)) for g, r in zip(gradients, reference, strict=True)
    ]
    return loss - alpha * torch.stack(cosines).mean()


def gradcon_score(network: PublishedNetwork, image: Tensor, gamma: float, reference: Sequence[Tensor]) -> float:
    """GradCon's score of one image ``(3, H, W)``, in evaluation mode: a full backward pass, then the cosines."""
    network.zero_grad()
    error = F.mse_loss(network.decoder(network.encode(image[None])[0]), image[None])
    error.backward()
    cosines = [
        F.cosine_similarity(weight.grad.reshape(1, -1), mean.reshape(1, -1)).item()
        for weight, mean in zip(network.decoder_weights(), reference, strict=True)
    ]
    return error.item() - gamma * sum(cosines) / len(cosines)


@torch.no_grad()
def recon_scores(network: PublishedNetwork, images: np.ndarray, batch_size: int = 64) -> Tensor:
    """Squared error of each decoded image ``(N, S, S, 3)`` uint8; each made a tensor by itself, as a Dataset does."""
    scores = []
    for batch in DataLoader(ImageList(list(images)), batch_size):
        recon = network.decoder(network.encode(batch)[0])
        scores.append((recon - batch).square().mean((1, 2, 3)))
    return torch.cat(scores)


class ImageList(Dataset[Tensor]):
    """Images one by one: each is decoded, if a path, and made a tensor in [-1, 1] when asked for."""

    def __init__(self, images: Sequence[np.ndarray | Path]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images[index]
        if isinstance(image, Path):
            image = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
        return torch.from_numpy(image).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
