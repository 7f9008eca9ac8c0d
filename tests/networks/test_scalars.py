"""Scalar networks: shapes they must hold, and that they are what they say."""

from __future__ import annotations

import pytest
import torch

from ssl_ebm.errors import UserError
from ssl_ebm.networks import ImageDecoder, ImageEncoder, ImageEnergy, Mlp, PointEnergy


def test_mlp_by_hand() -> None:
    net = Mlp(2, 1, width=3, depth=1)
    x = torch.randn(4, 5, 2)
    hidden = x @ net.layers[0].weight.T + net.layers[0].bias
    expected = (hidden * hidden.sigmoid()) @ net.layers[2].weight.T + net.layers[2].bias
    torch.testing.assert_close(net(x), expected)


def test_point_energy_is_its_features_and_a_bowl() -> None:
    net = PointEnergy(2, 8, confine=3.0)
    y = torch.randn(6, 2)
    last = net.network.layers[-1]
    expected = (net.features(y) @ last.weight.T + last.bias)[:, 0] + 1.5 * y.square().sum(1)
    torch.testing.assert_close(net(y), expected)


@pytest.mark.parametrize("size", [(28, 28), (32, 40), (9, 17)])
def test_image_networks_take_any_size(size: tuple[int, int]) -> None:
    y = torch.rand(3, 1, *size)
    net = ImageEnergy(1, 8, 3)
    assert net(y).shape == (3,)
    torch.testing.assert_close(net(y), net.head(net.features(y))[:, 0])
    assert ImageEncoder(5, 1, 8, 3)(y).shape == (3, 5)


def test_image_energy_is_smooth_and_each_image_is_rated_alone() -> None:
    net = ImageEnergy(1, 4, 2).double()
    y = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, y)
    assert torch.autograd.gradgradcheck(net, y)
    torch.testing.assert_close(net(y)[:1], net(y[:1]))


def test_places_tell_a_shifted_picture() -> None:
    y = torch.zeros(2, 1, 32, 32)
    y[0, :, 8:12, 8:12] = y[1, :, 16:20, 16:20] = 1
    torch.manual_seed(0)
    blind, seeing = ImageEnergy(1, 8, 2, places=False)(y), ImageEnergy(1, 8, 2)(y)
    assert float((blind[0] - blind[1]).detach().abs()) < 1e-5
    assert float((seeing[0] - seeing[1]).detach().abs()) > 2e-5


def test_decoder_folds_candidates_into_the_batch() -> None:
    net = ImageDecoder(6, (28, 32), 3, 8, 2)
    z = torch.randn(2, 4, 6)
    found = net(z)
    assert found.shape == (2, 4, 3, 28, 32)
    torch.testing.assert_close(found[1, 2], net(z[1, 2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mlp(0, 1), "inputs 0"),
        (lambda: PointEnergy(confine=-1), "confine is -1"),
        (lambda: PointEnergy(2)(torch.zeros(3, 1)), r"y must be \(batch, 2\), got \(3, 1\)"),
        (lambda: ImageEnergy(levels=0), "levels 0"),
        (lambda: ImageEnergy(1)(torch.zeros(2, 3, 28, 28)), r"\(batch, 1, height, width\)"),
        (lambda: ImageEnergy(1, levels=3)(torch.zeros(2, 1, 7, 28)), "8 pixels or more"),
        (lambda: ImageDecoder(3, (30, 28)), "multiples of 4"),
    ],
)
def test_mistakes(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]
