"""Likelihoods: the exact one against closed forms, the estimates against the exact one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy.noise import GaussianNoise, UniformNoise
from ssl_ebm.energy.objectives import (
    GridLikelihood,
    Margin,
    MonteCarloLikelihood,
    NoiseContrastive,
    SampledLikelihood,
    contrast,
)
from ssl_ebm.energy.sampling import Hmc, Langevin, Mala, Metropolis, Sampler
from ssl_ebm.errors import UserError

from .conftest import Bowl, cosine, gradient


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("dim", "beta"), [(1, 1.0), (2, 1.0), (2, 3.0)])
def test_grid_partition_of_a_gaussian(dim: int, beta: float) -> None:
    found = GridLikelihood(-8, 8, 200, dim, beta).double().log_partition(Bowl(2.0, offset=0.7))
    expected = dim / 2 * math.log(2 * math.pi / (2.0 * beta)) - 0.7 * beta
    assert float(found.detach()) == pytest.approx(expected, abs=1e-6)


def test_grid_loss_is_the_negative_log_likelihood() -> None:
    y = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 2.0**-0.5)
    loss = GridLikelihood(-8, 8, 200).double()(Bowl(2.0), y)
    assert float(loss.detach()) == pytest.approx(-float(normal.log_prob(y).sum(1).mean()), abs=1e-6)


def test_grid_gradient_has_its_two_terms(network: nn.Module, exact: GridLikelihood, data: Tensor) -> None:
    """dF(y)/dW - E_{y' ~ p}[dF(y')/dW], with p enumerated on the grid."""
    found = gradient(exact(network, data), network)
    p = torch.softmax(-network(exact.grid).detach(), 0)
    down = gradient(network(data).mean(), network)
    up = gradient((p * network(exact.grid)).sum(), network)
    torch.testing.assert_close(found, down - up)


def test_a_grid_twice_as_fine_has_the_same_gradient(network: nn.Module, data: Tensor) -> None:
    coarse, fine = (gradient(GridLikelihood(-6, 6, n).double()(network, data), network) for n in (120, 240))
    assert float((coarse - fine).norm() / fine.norm()) < 1e-3


@pytest.mark.parametrize(
    "proposal",
    [UniformNoise((2,), -6.0, 6.0).double(), GaussianNoise((2,), 0.0, 2.0).double()],
    ids=["uniform", "gaussian"],
)
def test_monte_carlo_estimates_partition_and_gradient(
    proposal: UniformNoise, network: nn.Module, exact: GridLikelihood, data: Tensor
) -> None:
    estimate = MonteCarloLikelihood(proposal, samples=100_000)
    generator = torch.Generator().manual_seed(2)
    loss = estimate(network, data, generator)
    assert float(loss.detach()) == pytest.approx(float(exact(network, data).detach()), abs=0.03)
    assert cosine(gradient(loss, network), gradient(exact(network, data), network)) > 0.998


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [
        (Metropolis(0.5, warmup=50), 300),
        (Langevin(0.01), 600),
        (Mala(0.02, warmup=50), 300),
        (Hmc(0.1, warmup=20), 40),
    ],
    ids=lambda value: type(value).__name__,
)
def test_chains_from_noise_give_the_gradient_of_the_likelihood(
    sampler: Sampler, steps: int, network: nn.Module, exact: GridLikelihood, data: Tensor
) -> None:
    objective = SampledLikelihood(sampler, steps, UniformNoise((2,), -3.0, 3.0).double(), chains=6000)
    loss = objective(network, data, torch.Generator().manual_seed(3))
    assert cosine(gradient(loss, network), gradient(exact(network, data), network)) > 0.99


def test_the_restraint_is_on_both_energies() -> None:
    model = Bowl(2.0, offset=1.0)
    y, negative = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0]])
    # F: 2 and 1 on the data, 5 on the negative
    assert float(contrast(model, y, negative).detach()) == pytest.approx(1.5 - 5)
    assert float(contrast(model, y, negative, 0.1).detach()) == pytest.approx(1.5 - 5 + 0.1 * (2.5 + 25))


@pytest.mark.parametrize("offset", [0.0, 200.0])
def test_a_half_precision_energy_has_the_likelihood_of_its_values_in_float32(
    offset: float, network: nn.Module, data: Tensor
) -> None:
    def half(y: Tensor) -> Tensor:
        made: Tensor = (network(y.double()) + offset).bfloat16()
        return made

    objectives = [GridLikelihood(-6, 6, 60), MonteCarloLikelihood(UniformNoise((2,), -6.0, 6.0), 2000)]
    for objective in objectives:
        y = data.float()
        losses = [objective(one, y, seeded()) for one in (half, lambda y: half(y).float())]
        assert losses[0].dtype == torch.float32
        assert torch.equal(losses[0], losses[1])
    grid = GridLikelihood(-6, 6, 60)
    wanted = torch.logsumexp(-half(grid.grid).double(), 0) + grid.log_cell
    torch.testing.assert_close(grid.log_partition(half).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        MonteCarloLikelihood(UniformNoise((2,), 0, 1), 8),
        GridLikelihood(0, 1, 4),
        NoiseContrastive(UniformNoise((2,), 0, 1)),
        Margin(0.1),
        lambda model, y: contrast(model, y, y),
    ],
)
def test_an_energy_with_a_dimension_too_many_is_refused(objective: Any) -> None:
    with pytest.raises(UserError, match=r"one number per item, \(\d+,\), got \(\d+, 1\)"):
        objective(nn.Linear(2, 1), torch.rand(5, 2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GridLikelihood(1, -1), "use low < high"),
        (lambda: GridLikelihood(-1, 1, dim=3), "1 or 2 dimensions"),
        (lambda: GridLikelihood(-1, 1, beta=math.inf), "needs a finite beta"),
        (lambda: MonteCarloLikelihood(UniformNoise((2,), 0, 1), samples=1), "samples is 1"),
        (lambda: MonteCarloLikelihood(UniformNoise((2,), 0, 1), beta=0), "beta must be above 0"),
        (lambda: SampledLikelihood(Langevin(0.1), 0, UniformNoise((2,), 0, 1)), "steps is 0"),
    ],
)
def test_mistakes(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]
