import math

import pytest
import torch
from torch import Tensor

from ssl_ebm.energy import Ball, Gaussian, Quadrature, free_energy
from ssl_ebm.errors import UserError

from .linear_gaussian import LinearGaussian, example, gaussian


def average(rule: Quadrature, values: Tensor) -> Tensor:
    return (rule.log_weights.exp() * values).sum()


def fine_enough(truth: LinearGaussian, y: Tensor, beta: float) -> int:
    """Order that resolves the narrowest direction of p(z | y), by the rule in Gaussian.quadrature."""
    _, covariance = truth.posterior(y, beta)
    return max(64, math.ceil(30 / float(torch.linalg.eigvalsh(covariance).amin().sqrt())))


@pytest.mark.parametrize("dim", [1, 2])
def test_gaussian_moments(dim: int) -> None:
    rule = Gaussian(dim, 0.0).double().quadrature(64)
    z = rule.nodes
    assert len(z) == 64**dim
    torch.testing.assert_close(average(rule, torch.ones_like(z[:, 0])), torch.tensor(1.0).double())
    torch.testing.assert_close(average(rule, z[:, 0] ** 4), torch.tensor(3.0).double())
    # E exp(a.z) = exp(|a|^2 / 2)
    a = torch.tensor([0.7, -1.1], dtype=torch.float64)[:dim]
    torch.testing.assert_close(average(rule, (z @ a).exp()), (a @ a / 2).exp())


@pytest.mark.parametrize("dim", [1, 2])
def test_ball_moments(dim: int) -> None:
    rule = Ball(dim, 1.5).double().quadrature(16)
    z = rule.nodes
    assert (z.norm(dim=-1) < 1.5).all()
    # E |z|^2 = r^2 D / (D + 2); E exp(a z_1) = sinh(ar)/(ar) on a segment, 2 I_1(ar)/(ar) on a disc.
    expected = torch.tensor(1.5**2 * dim / (dim + 2)).double()
    torch.testing.assert_close(average(rule, z.square().sum(-1)), expected)
    ar = torch.tensor(0.9 * 1.5, dtype=torch.float64)
    closed = torch.sinh(ar) / ar if dim == 1 else 2 * torch.special.i1(ar) / ar
    torch.testing.assert_close(average(rule, (0.9 * z[:, 0]).exp()), closed)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("beta", [1e-3, 1.0, 20.0])
def test_free_energy_of_a_linear_decoder_equals_its_closed_form(
    dim: int, beta: float, generator: torch.Generator
) -> None:
    truth = example(dim)
    model = truth.model()
    y = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    rule = gaussian(model).quadrature(fine_enough(truth, y, beta))
    energies = model.energy(y, None, rule.nodes.expand(5, -1, -1))
    found = free_energy(energies, beta, rule.log_weights)
    torch.testing.assert_close(found, truth.free_energy(y, beta), rtol=1e-8, atol=1e-8)


def test_a_finer_rule_resolves_a_colder_posterior(generator: torch.Generator) -> None:
    truth, beta = example(1), 200.0
    model = truth.model()
    y = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    errors = []
    for order in (16, 64, fine_enough(truth, y, beta)):
        rule = gaussian(model).quadrature(order)
        energies = model.energy(y, None, rule.nodes.expand(5, -1, -1))
        found = free_energy(energies, beta, rule.log_weights)
        errors.append(float((found - truth.free_energy(y, beta)).abs().max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-8


def test_refuses_what_it_cannot_do() -> None:
    for latent in (Gaussian(3, 0.0), Ball(3, 1.0)):
        with pytest.raises(UserError, match="3 dimensions"):
            latent.quadrature()
    with pytest.raises(UserError, match="order"):
        Ball(2, 1.0).quadrature(1)
    assert math.isclose(float(Ball(1, 2.0).quadrature(4).log_weights.logsumexp(0)), 0, abs_tol=1e-6)
