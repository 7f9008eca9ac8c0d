"""Networks of images: shapes, smoothness, what they see."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssl_ebm.errors import UserError
from ssl_ebm.networks import ImageDecoder, ImageEncoder, ImageEnergy


@pytest.mark.parametrize("size", [(28, 28), (32, 40), (9, 17)])
def test_image_networks_take_the_size_they_are_made_for(size: tuple[int, int]) -> None:
    y = torch.rand(3, 1, *size)
    net = ImageEnergy(size, 1, 8, 3)
    assert net(y).shape == (3,)
    assert net.features(y).shape == (3, 32)
    torch.testing.assert_close(net(y), net.network.head(net.features(y))[:, 0])
    assert ImageEncoder(5, size, 1, 8, 3)(y).shape == (3, 5)


def test_an_encoder_by_hand() -> None:
    """One level: a 5x5 convolution of stride 2 on pixels from -1 to 1, then the hidden layer."""
    net = ImageEncoder(2, (6, 5), 3, 4, 1)
    y = torch.rand(2, 3, 6, 5)
    convolution, hidden = net.convolutions[0], net.hidden[0]
    assert isinstance(convolution, nn.Conv2d)
    windows = nn.functional.unfold(2 * y - 1, 5, padding=2, stride=2)  # (B, 75, 3 * 3)
    first = (convolution.weight.flatten(1) @ windows + convolution.bias[:, None]).mT.flatten(1)
    first = first * first.sigmoid()
    second = first @ hidden.weight.T + hidden.bias
    expected = (second * second.sigmoid()) @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(y), expected)


def test_image_energy_is_smooth_and_each_image_is_rated_alone() -> None:
    net = ImageEnergy((8, 8), 1, 4, 2).double()
    y = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, y)
    assert torch.autograd.gradgradcheck(net, y)
    torch.testing.assert_close(net(y)[:1], net(y[:1]))


def test_decoder_folds_candidates_into_the_batch() -> None:
    net = ImageDecoder(6, (28, 32), 3, 8, 2)
    z = torch.randn(2, 4, 6)
    found = net(z)
    assert found.shape == (2, 4, 3, 28, 32)
    torch.testing.assert_close(found[1, 2], net(z[1, 2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ImageEnergy(levels=0), "levels 0"),
        (lambda: ImageEnergy()(torch.zeros(2, 3, 28, 28)), r"\(batch, 1, 28, 28\), got \(2, 3, 28, 28\)"),
        (lambda: ImageEnergy((7, 28), levels=3), "at least 8 pixels"),
        (lambda: ImageDecoder(3, (30, 28)), "multiples of 4"),
    ],
)
def test_mistakes(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]
