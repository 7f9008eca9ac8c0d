import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy import (
    Enumeration,
    Gaussian,
    OneHot,
    PredictiveEnergy,
    Quantised,
    check_finite,
    squared_error,
)
from ssl_ebm.errors import UserError


class Counting(nn.Module):
    """Counts its calls and the rows that went through it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.calls = 0
        self.rows = 0

    def forward(self, *inputs: Tensor) -> Tensor:
        self.calls += 1
        self.rows += inputs[-1].shape[:-1].numel()
        return self.body(*inputs)


class Shift(nn.Module):
    """y_hat = h + W z."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, outputs, bias=False)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        return h[:, None] + self.linear(z)


def test_energy_equals_numpy_loops(seed: int) -> None:
    decoder, predictor = Shift(2, 5), nn.Linear(3, 5)
    model = PredictiveEnergy(decoder, Gaussian(2, 0.0), predictor, regularisation=0.4)
    x, y, z = torch.randn(4, 3), torch.randn(4, 5), torch.randn(4, 6, 2)
    found = model(x, y, z).detach()
    P, b = predictor.weight.detach().numpy(), predictor.bias.detach().numpy()
    W = decoder.linear.weight.detach().numpy()
    for i in range(4):
        for s in range(6):
            y_hat = P @ x[i].numpy() + b + W @ z[i, s].numpy()
            expected = ((y[i].numpy() - y_hat) ** 2).sum() + 0.4 * 0.5 * (z[i, s].numpy() ** 2).sum()
            assert math.isclose(float(found[i, s]), expected, rel_tol=1e-4)


def test_context_is_computed_once_for_all_codes(seed: int) -> None:
    predictor, decoder = Counting(nn.Linear(3, 5)), Counting(Shift(16, 5))
    model = PredictiveEnergy(decoder, OneHot(16), predictor)
    x, y = torch.randn(4, 3), torch.randn(4, 5)
    h = model.context(x)
    found = model.infer(Enumeration(), y, h)
    model.decode(h, found.z[:, None])
    assert (predictor.calls, predictor.rows) == (1, 4)
    assert decoder.rows == 4 * 16 + 4


def test_unconditional_k_means_energy_and_its_gradient(seed: int) -> None:
    # E(y, z) = |y - W z|^2, z one-hot: dF/dw_k = -2 sum over the points nearest to w_k of (y - w_k).
    y = torch.randn(40, 2)
    decoder = nn.Linear(5, 2, bias=False)
    model = PredictiveEnergy(decoder, OneHot(5))
    found = model.infer(Enumeration(), y, h=None)
    found.energy.sum().backward()
    W, points = decoder.weight.detach().numpy().T, y.numpy()  # (5, 2)
    distance = ((points[:, None] - W[None]) ** 2).sum(-1)
    np.testing.assert_allclose(found.energies.detach().numpy(), distance, rtol=1e-4, atol=1e-6)
    nearest = distance.argmin(1)
    assert found.index.tolist() == nearest.tolist()
    assert decoder.weight.grad is not None
    weight_gradient = decoder.weight.grad.numpy()
    expected = np.stack([-2 * (points[nearest == k] - W[k]).sum(0) for k in range(5)])
    np.testing.assert_allclose(weight_gradient.T, expected, rtol=1e-4, atol=1e-5)


def test_without_a_predictor_the_context_is_x(seed: int) -> None:
    x = torch.randn(3, 4)
    model = PredictiveEnergy(Shift(2, 4), Gaussian(2, 0.0))
    torch.testing.assert_close(model.decode(model.context(x), torch.zeros(3, 1, 2))[:, 0], x)


def test_a_learnt_codebook_is_moved_by_the_energy(seed: int) -> None:
    # Identity decoder: F = min_k |y - e_k|^2, so only the nearest code gets a gradient, 2 (e_k - y).
    latent = Quantised(6, 3)
    model = PredictiveEnergy(nn.Identity(), latent)
    y = torch.randn(1, 3)
    found = model.infer(Enumeration(), y, h=None)
    assert not found.z.requires_grad
    found.energy.sum().backward()
    expected = torch.zeros(6, 3)
    expected[found.index] = 2 * (latent.codebook.detach()[found.index] - y)
    torch.testing.assert_close(latent.codebook.grad, expected)


def test_cost_is_a_setting(seed: int) -> None:
    def absolute_error(y: Tensor, y_hat: Tensor) -> Tensor:
        return (y[:, None] - y_hat).abs().sum(-1)

    decoder, latent = nn.Linear(2, 3, bias=False), OneHot(2)
    model = PredictiveEnergy(decoder, latent, cost=absolute_error)
    y = torch.randn(4, 3)
    z = latent.enumerate().expand(4, -1, -1)
    expected = np.abs(y.numpy()[:, None] - decoder.weight.detach().numpy().T[None]).sum(-1)
    np.testing.assert_allclose(model.energy(y, None, z).detach().numpy(), expected, rtol=1e-5)


def test_squared_error_of_bfloat16_frames_is_summed_in_float32(seed: int) -> None:
    y, y_hat = torch.rand(2, 1, 64, 64).bfloat16(), torch.rand(2, 3, 1, 64, 64).bfloat16()
    expected = (y.double()[:, None] - y_hat.double()).square().sum((2, 3, 4))
    found = squared_error(y, y_hat)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_squared_error_of_scalars_per_item() -> None:
    found = squared_error(torch.tensor([1.0, 2.0]), torch.tensor([[0.0, 3.0], [2.0, 5.0]]))
    assert found.tolist() == [[1.0, 4.0], [0.0, 9.0]]


def test_wrong_shapes_are_named(seed: int) -> None:
    model = PredictiveEnergy(nn.Linear(2, 3), Gaussian(2, 0.0))
    y = torch.randn(4, 3)
    with pytest.raises(UserError, match=r"dim 2.*dimension is 5"):
        model.energy(y, None, torch.zeros(4, 1, 5))
    with pytest.raises(UserError, match=r"batch, candidates, 2"):
        model.energy(y, None, torch.zeros(4, 2))
    with pytest.raises(UserError, match=r"y is \(4, 1\)"):  # would broadcast silently
        model.energy(y[:, :1], None, torch.zeros(4, 1, 2))
    with pytest.raises(UserError, match=r"decoder must return"):
        PredictiveEnergy(nn.Flatten(), Gaussian(2, 0.0)).energy(y, None, torch.zeros(4, 3, 2))
    with pytest.raises(UserError, match=r"cost must return"):
        PredictiveEnergy(nn.Linear(2, 3), Gaussian(2, 0.0), cost=lambda y, y_hat: y_hat.sum()).energy(
            y, None, torch.zeros(4, 1, 2)
        )
    with pytest.raises(UserError, match="regularisation"):
        PredictiveEnergy(nn.Identity(), Gaussian(2, 0.0), regularisation=-1.0)


def test_check_finite_says_where() -> None:
    energies = torch.ones(4, 3)
    assert check_finite(energies, "step 7") is energies
    energies[2, 1] = math.nan
    energies[3, 0] = math.inf
    with pytest.raises(UserError, match=r"step 7: 2 of 12 .* item 2, candidate 1 \(nan\)"):
        check_finite(energies, "step 7")
    with pytest.raises(UserError, match=r"item 1 \(inf\)"):
        check_finite(torch.tensor([0.0, math.inf]), "free energy")
