"""Score matching against the closed form of a Gaussian: 1/2 lambda^2 E|y|^2 - lambda D."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy import Enumeration, Gaussian, Lbfgs, OneHot, PredictiveEnergy
from ssl_ebm.energy.objectives import (
    DenoisingScoreMatching,
    GridLikelihood,
    ScoreMatching,
    SlicedScoreMatching,
)
from ssl_ebm.energy.unconditional import LatentEnergy
from ssl_ebm.errors import UserError

from .conftest import Bowl, gradient

PRECISION = 1.7


@pytest.fixture
def y() -> Tensor:
    return 0.8 * torch.randn(20_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def closed_form(y: Tensor, precision: float) -> float:
    return 0.5 * precision**2 * float(y.square().sum(1).mean()) - 3 * precision


def test_exact_is_the_closed_form(y: Tensor) -> None:
    assert float(ScoreMatching()(Bowl(PRECISION), y).detach()) == pytest.approx(closed_form(y, PRECISION))


@pytest.mark.parametrize("directions", [1, 4])
def test_sliced_is_the_closed_form_on_average(directions: int, y: Tensor) -> None:
    found = SlicedScoreMatching(directions)(Bowl(PRECISION), y, torch.Generator().manual_seed(1))
    # v'v has mean 3 and variance 6
    error = PRECISION * (6 / (20_000 * directions)) ** 0.5
    assert float(found.detach()) == pytest.approx(closed_form(y, PRECISION), abs=4 * error)


def test_all_agree_on_the_gradient_of_a_network(network: nn.Module, data: Tensor) -> None:
    many = data.repeat(40, 1)
    exact = gradient(ScoreMatching()(network, data), network)
    sliced = gradient(SlicedScoreMatching(4)(network, many, torch.Generator().manual_seed(0)), network)
    assert float((sliced - exact).norm() / exact.norm()) < 0.05


def test_exact_equals_the_distance_of_scores_up_to_a_constant(
    network: nn.Module, exact: GridLikelihood
) -> None:
    """Hyvarinen's theorem 1 by enumeration: for data from a Gaussian, and any two energies."""
    grid = exact.grid
    p = torch.softmax(-0.5 * grid.square().sum(1) * 2, 0)  # N(0, 1/2)

    drawn = grid[torch.multinomial(p, 40_000, True, generator=torch.Generator().manual_seed(0))]

    def objective(model: nn.Module) -> float:
        return float(ScoreMatching()(model, drawn).detach())

    def distance(model: nn.Module) -> float:
        y = grid.detach().requires_grad_()
        (slope,) = torch.autograd.grad(model(y).sum(), y)
        return float((p * 0.5 * (slope - 2 * grid).square().sum(1)).sum())

    bowl = Bowl(1.3)
    assert objective(network) - objective(bowl) == pytest.approx(distance(network) - distance(bowl), rel=0.03)


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_denoising_is_at_rest_at_the_blurred_density(noise: float, y: Tensor) -> None:
    def slope(precision: float) -> float:
        model = Bowl(precision)
        loss = DenoisingScoreMatching(noise)(model, y, torch.Generator().manual_seed(2))
        return float(torch.autograd.grad(loss, model.log_precision)[0])

    best = 1 / (0.8**2 + noise**2)
    assert slope(best) == pytest.approx(0, abs=0.02)
    assert slope(best * 1.3) > 0.02
    assert slope(best / 1.3) < -0.02


def test_exact_is_at_rest_at_the_density_of_the_data(y: Tensor) -> None:
    model = Bowl(3 / float(y.square().sum(1).mean()))
    (found,) = torch.autograd.grad(ScoreMatching()(model, y), model.log_precision)
    assert float(found) == pytest.approx(0, abs=1e-9)


def test_images_are_taken_as_they_are() -> None:
    y = torch.randn(5, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = 0.5 * PRECISION**2 * float(y.square().flatten(1).sum(1).mean()) - 6 * PRECISION
    assert float(ScoreMatching()(Bowl(PRECISION), y).detach()) == pytest.approx(expected)


@pytest.mark.parametrize("objective", [ScoreMatching(), SlicedScoreMatching(2), DenoisingScoreMatching(0.5)])
def test_validation_without_gradients_has_the_same_figure(
    objective: nn.Module, network: nn.Module, data: Tensor
) -> None:
    with torch.no_grad():
        found = objective(network, data, torch.Generator().manual_seed(0))
    assert not found.requires_grad
    assert torch.equal(found, objective(network, data, torch.Generator().manual_seed(0)).detach())


OBJECTIVES = [ScoreMatching(), SlicedScoreMatching(2), DenoisingScoreMatching(0.5)]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("beta", [2.0, math.inf])
def test_codes_have_the_scores_of_their_closed_form(objective: nn.Module, beta: float, y: Tensor) -> None:
    torch.manual_seed(0)
    decoder = nn.Linear(4, 3, bias=False).double()
    model = LatentEnergy(PredictiveEnergy(decoder, OneHot(4).double()), Enumeration(), beta)

    def by_hand(y: Tensor) -> Tensor:
        squared = (y[:, None] - decoder.weight.T).square().sum(2)
        return squared.amin(1) if math.isinf(beta) else -(-beta * squared).logsumexp(1) / beta

    losses = [objective(one, y[:200], torch.Generator().manual_seed(0)) for one in (model, by_hand)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, decoder.weight)[0] for loss in losses))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_continuous_latent_is_refused(objective: nn.Module, y: Tensor) -> None:
    """F = min_z |y - W z|^2 + 1/2 |z|^2 is y' (I - W (W'W + I / 2)^-1 W') y: its first derivative is exact at
    a fixed z*, its second, E_yy - E_yz E_zz^-1 E_zy, is not E_yy."""
    torch.manual_seed(0)
    decoder, y = nn.Linear(2, 3, bias=False).double(), y[:5].requires_grad_()
    model = LatentEnergy(PredictiveEnergy(decoder, Gaussian(2, 0.0).double()), Lbfgs(50))
    w, eye = decoder.weight.detach(), torch.eye(3, dtype=torch.float64)
    hessian = 2 * (eye - w @ torch.linalg.inv(w.T @ w + eye[:2, :2] / 2) @ w.T)
    (slope,) = torch.autograd.grad(model(y).sum(), y, create_graph=True)
    torch.testing.assert_close(slope, y @ hessian)
    (row,) = torch.autograd.grad(slope[:, 0].sum(), y)
    torch.testing.assert_close(row, 2 * eye[0].expand(5, -1))
    with pytest.raises(UserError, match=r"twice.*Gaussian.*use OneHot or Quantised"):
        objective(model, y)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="directions is 0"):
        SlicedScoreMatching(0)
    with pytest.raises(UserError, match="noise is -1"):
        DenoisingScoreMatching(-1)
