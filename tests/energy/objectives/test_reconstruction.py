"""Reconstruction objectives on linear maps, where everything is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy.objectives import Contractive, Denoising
from ssl_ebm.energy.unconditional import ReconstructionEnergy
from ssl_ebm.errors import UserError


def linear(encode: Tensor, decode: Tensor) -> ReconstructionEnergy:
    """Enc(y) = A y, Dec(c) = B c."""
    layers = [nn.Linear(m.shape[1], m.shape[0], bias=False).double() for m in (encode, decode)]
    with torch.no_grad():
        for layer, matrix in zip(layers, (encode, decode), strict=True):
            layer.weight.copy_(matrix)
    return ReconstructionEnergy(*layers)


@pytest.fixture
def y() -> Tensor:
    scale = torch.tensor([1.0, 0.5], dtype=torch.float64)
    return scale * torch.randn(50_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_denoising_is_at_rest_where_each_direction_shrinks_as_wiener_says(y: Tensor) -> None:
    """The best linear G has eigenvalues s^2 / (s^2 + noise^2)."""
    noise = 0.4
    variance = y.square().mean(0)
    best = torch.diag(variance / (variance + noise**2))
    model = linear(torch.eye(2, dtype=torch.float64), best)
    loss = Denoising(noise)(model, y, torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad(loss, model.decoder.weight)
    assert float(slope.abs().max()) < 0.02
    expected = float((variance * noise**2 / (variance + noise**2)).sum())
    assert float(loss.detach()) == pytest.approx(expected, rel=0.02)
    other = linear(torch.eye(2, dtype=torch.float64), best + 0.1)
    worse = Denoising(noise)(other, y, torch.Generator().manual_seed(1))
    assert float(worse.detach()) > expected * 1.05


def test_contraction_is_the_norm_of_the_jacobian(y: Tensor) -> None:
    encode = torch.tensor([[1.0, 2.0], [0.0, -1.0], [0.5, 0.0]], dtype=torch.float64)
    decode = torch.tensor([[0.2, 0.0, 1.0], [0.0, -0.5, 0.3]], dtype=torch.float64)
    both = decode @ encode
    error = (y - y @ both.T).square().sum(1).mean()
    for of, jacobian in (("encoder", encode), ("reconstruction", both)):
        objective = Contractive(0.3, of, directions=2)  # type: ignore[arg-type]
        loss = objective(linear(encode, decode), y, torch.Generator().manual_seed(0))
        assert float(loss.detach()) == pytest.approx(float(error + 0.3 * jacobian.square().sum()), rel=0.01)


def test_contraction_of_a_reconstruction_is_at_rest_where_denoising_is(y: Tensor) -> None:
    """Linear G on Gaussian data: weight w and noise of variance w give the same best G, s^2 / (s^2 + w)."""
    variance = y.square().mean(0)
    model = linear(torch.eye(2, dtype=torch.float64), torch.diag(variance / (variance + 0.16)))
    (slope,) = torch.autograd.grad(
        Contractive(0.16, directions=4)(model, y, torch.Generator().manual_seed(0)), model.decoder.weight
    )
    assert float(slope.abs().max()) < 0.02


def test_contraction_of_a_saturated_encoder_is_nothing() -> None:
    """The derivative of tanh(y) is 1 - tanh(y)^2, at each y its own."""
    y = torch.tensor([[0.3], [-2.0]], dtype=torch.float64).repeat(20_000, 1)
    model = ReconstructionEnergy(nn.Tanh(), nn.Identity())
    loss = Contractive(2.0, "encoder")(model, y, torch.Generator().manual_seed(0))
    slope = 1 - y[:2].tanh().square()
    expected = (y[:2] - y[:2].tanh()).square().mean() + 2 * slope.square().mean()
    assert float(loss) == pytest.approx(float(expected), rel=0.03)


def test_the_gradient_of_the_contraction_reaches_the_encoder(y: Tensor) -> None:
    encode = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    model = linear(encode, torch.zeros(2, 1, dtype=torch.float64))
    loss = Contractive(0.5, "encoder", directions=4)(model, y, torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(loss, model.encoder.weight)
    torch.testing.assert_close(slope, 0.5 * 2 * encode, rtol=0.03, atol=0.03)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="denoising: noise is 0"):
        Denoising(0.0)
    with pytest.raises(UserError, match=r"weight is 0\.0 and directions 1"):
        Contractive(0.0)
    with pytest.raises(UserError, match="got 'decoder'"):
        Contractive(1.0, "decoder")  # type: ignore[arg-type]
