"""Scalar networks: shapes they must hold, and that they are what they say."""

from __future__ import annotations

import pytest
import torch

from ssl_ebm.errors import UserError
from ssl_ebm.networks import Mlp, PointEnergy


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


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mlp(0, 1), "inputs 0"),
        (lambda: PointEnergy(confine=-1), "confine is -1"),
        (lambda: PointEnergy(2)(torch.zeros(3, 1)), r"y must be \(batch, 2\), got \(3, 1\)"),
    ],
)
def test_mistakes(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]
