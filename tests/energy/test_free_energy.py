import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_ebm.energy import (
    Ball,
    Gaussian,
    OneHot,
    Sphere,
    effective_sample_size,
    free_energy,
    importance_free_energy,
    posterior,
)
from ssl_ebm.errors import UserError

from .linear_gaussian import LinearGaussian, example, gaussian, weight

rows = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12)
betas = st.floats(-6, 6).map(lambda exponent: 10**exponent)


def row(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([values], dtype=dtype)


def by_hand(energies: np.ndarray, beta: float, weights: Iterable[float]) -> list[float]:
    """One item at a time in Python floats, straight from the formula (small beta * E only)."""
    return [
        -math.log(sum(w * math.exp(-beta * e) for e, w in zip(es, weights, strict=True))) / beta
        for es in energies
    ]


@pytest.mark.parametrize("beta", [0.1, 1.0, 7.0])
def test_equals_the_formula_in_loops(beta: float) -> None:
    rng = np.random.default_rng(0)
    energies = rng.uniform(0, 5, (8, 6))
    weights = rng.uniform(0.1, 1, 6)
    found = free_energy(torch.from_numpy(energies), beta)
    np.testing.assert_allclose(found, by_hand(energies, beta, [1 / 6] * 6), rtol=1e-12)
    # Weights are used as they are, whatever their sum.
    found = free_energy(torch.from_numpy(energies), beta, torch.from_numpy(weights).log())
    np.testing.assert_allclose(found, by_hand(energies, beta, weights), rtol=1e-12)
    p = np.array([[w * math.exp(-beta * e) for e, w in zip(es, weights, strict=True)] for es in energies])
    p /= p.sum(1, keepdims=True)
    log_weights = torch.from_numpy(weights).log()
    np.testing.assert_allclose(posterior(torch.from_numpy(energies), beta, log_weights), p, rtol=1e-12)
    sizes = effective_sample_size(torch.from_numpy(energies), beta, log_weights)
    np.testing.assert_allclose(sizes, [1 / sum(q * q for q in r) for r in p], rtol=1e-12)


@settings(max_examples=200, deadline=None)
@given(values=rows, low=betas, high=betas)
def test_falls_with_beta_from_the_average_to_the_minimum(
    values: list[float], low: float, high: float
) -> None:
    low, high = sorted((low, high))
    energies = row(values)
    slack = 1e-9 * (1 + max(map(abs, values)))
    warm, cold, coldest = (float(free_energy(energies, beta)) for beta in (low, high, math.inf))
    average = sum(values) / len(values)
    assert average + slack >= warm >= cold - slack
    assert cold >= coldest - slack
    assert coldest == min(values)
    # 1/S of the sum is the minimum's own term: F <= min + log S / beta.
    assert cold <= min(values) + math.log(len(values)) / high + slack


@settings(max_examples=100, deadline=None)
@given(values=rows, beta=betas, shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_moves_with_a_shift_and_ignores_order(
    values: list[float], beta: float, shift: float, seed: int
) -> None:
    energies = row(values)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    expected = free_energy(energies, beta) + shift
    torch.testing.assert_close(free_energy(energies[:, order] + shift, beta), expected, rtol=1e-9, atol=1e-7)


@settings(max_examples=100, deadline=None)
@given(values=rows, beta=betas)
def test_derivative_in_the_energies_is_the_posterior(values: list[float], beta: float) -> None:
    energies = row(values).requires_grad_()
    (gradient,) = torch.autograd.grad(free_energy(energies, beta).sum(), energies)
    p = posterior(energies.detach(), beta)
    torch.testing.assert_close(gradient, p, rtol=1e-6, atol=1e-9)
    assert abs(float(p.sum()) - 1) < 1e-9
    assert 1 - 1e-9 <= float(effective_sample_size(energies.detach(), beta)) <= len(values) + 1e-9


@settings(max_examples=100, deadline=None)
@given(values=rows, seed=st.integers(0, 99))
def test_limits_hold_for_float32_at_any_beta(values: list[float], seed: int) -> None:
    log_weights = torch.randn(1, len(values), generator=torch.Generator().manual_seed(seed)).log_softmax(1)
    energies = row(values, torch.float32)
    scale = 1 + max(map(abs, values))
    for beta in (1e-300, 1e-30, 1e-12, 1e-7):
        warm = float(free_energy(energies, beta))
        assert abs(warm - sum(values) / len(values)) < 1e-4 * scale
    for beta in (1e9, 1e30, 1e300, math.inf):
        for weights in (None, log_weights):
            assert abs(float(free_energy(energies, beta, weights)) - min(values)) < 1e-6 * scale


def test_large_energies_do_not_overflow() -> None:
    energies = torch.tensor([[3e37, 3.1e37], [1e5, 1e5 + 1]])
    found = free_energy(energies, 100.0)
    torch.testing.assert_close(found, torch.tensor([3e37, 1e5 + math.log(2) / 100]))
    torch.testing.assert_close(posterior(energies, 100.0), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


def test_zero_temperature_shares_ties_by_weight() -> None:
    energies = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    log_weights = torch.tensor([0.5, 0.1, 0.4]).log()
    (gradient,) = torch.autograd.grad(free_energy(energies).sum(), energies)
    assert gradient.tolist() == [[0.0, 0.5, 0.5]]
    cold = posterior(energies.detach(), 1e6, log_weights)
    torch.testing.assert_close(posterior(energies.detach(), math.inf, log_weights), cold)
    torch.testing.assert_close(cold, torch.tensor([[0.0, 0.2, 0.8]]))


@pytest.mark.parametrize("beta", [0.5, math.inf])
def test_weight_zero_removes_a_candidate_even_a_broken_one(beta: float) -> None:
    energies = torch.tensor([[2.0, -7.0, 3.0], [2.0, math.nan, 3.0]], requires_grad=True)
    log_weights = torch.tensor([0.5, 0.0, 0.5]).log()
    expected = free_energy(energies[:1, ::2], beta).expand(2)
    found = free_energy(energies, beta, log_weights)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), energies)
    assert torch.isfinite(gradient).all()
    assert gradient[:, 1].tolist() == [0.0, 0.0]
    assert posterior(energies, beta, log_weights)[:, 1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("beta", [1e-3, 2.0, math.inf])
def test_impossible_and_broken_candidates(beta: float) -> None:
    energies = torch.tensor([[math.inf, 1.0], [math.inf, math.inf], [math.nan, 1.0]])
    found = free_energy(energies, beta)
    one = 1.0 + (0 if math.isinf(beta) else math.log(2) / beta)
    assert math.isclose(float(found[0]), one, rel_tol=1e-5)
    assert found[1] == math.inf
    assert found[2].isnan()
    nothing = torch.full((3, 2), -math.inf)
    assert (free_energy(energies, beta, nothing) == math.inf).all()


def test_half_precision_is_taken_to_float32() -> None:
    energies = torch.tensor([[1000.0, 1004.0]]).bfloat16()
    found = free_energy(energies, 0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, free_energy(energies.double(), 0.1).float())


# Continuous z


@pytest.mark.parametrize("beta", [0.2, 3.0])
def test_importance_sampling_from_the_exact_posterior_is_exact(
    beta: float, generator: torch.Generator
) -> None:
    # All weights are alike then: no variance, whatever the number of samples.
    truth = example(1)
    model = truth.model()
    y = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    mean, covariance = truth.posterior(y, beta)
    std = covariance.sqrt().expand(5, 1)
    found = importance_free_energy(
        lambda z: model.energy(y, None, z), model.latent, mean, std, beta, 3, generator
    )
    torch.testing.assert_close(found.free_energy, truth.free_energy(y, beta))
    torch.testing.assert_close(found.effective_sample_size, torch.full((5,), 3.0).double())


def test_importance_sampling_converges_from_above(generator: torch.Generator) -> None:
    """Burda et al. 2015, theorem 1: the expectation falls to F_beta as the number of samples grows."""
    truth, beta, batch = example(3), 0.5, 4000
    model = truth.model()
    y = torch.randn(1, 4, generator=generator, dtype=torch.float64).expand(batch, -1)
    mean, covariance = truth.posterior(y, beta)
    std = 1.5 * covariance.diagonal().sqrt().expand(batch, -1)
    exact = float(truth.free_energy(y[:1], beta))
    means = []
    for samples in (1, 4, 32, 512):
        found = importance_free_energy(
            lambda z: model.energy(y, None, z), model.latent, mean, std, beta, samples, generator
        )
        values = found.free_energy.detach()
        error = float(values.std()) / math.sqrt(batch)
        means.append(float(values.mean()))
        assert means[-1] > exact - 4 * error
        sizes = found.effective_sample_size
        assert ((sizes >= 1 - 1e-9) & (sizes <= samples + 1e-6)).all()
    assert means[0] > means[1] > means[2] > means[3]
    assert abs(means[3] - exact) < 0.01


def test_gradient_of_the_estimate_is_that_of_the_closed_form(generator: torch.Generator) -> None:
    truth, beta = example(2), 0.5
    model = truth.model()
    y = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    mean, covariance = truth.posterior(y, beta)
    std = 1.3 * covariance.diagonal().sqrt()[None]
    found = importance_free_energy(
        lambda z: model.energy(y, None, z), model.latent, mean, std, beta, 200_000, generator
    )
    (gradient,) = torch.autograd.grad(found.free_energy.sum(), weight(model))
    A = truth.A.clone().requires_grad_()
    (exact,) = torch.autograd.grad(LinearGaussian(A, truth.lam).free_energy(y, beta).sum(), A)
    torch.testing.assert_close(gradient, exact, rtol=0.02, atol=0.02)


def test_importance_sampling_in_a_ball_agrees_with_quadrature(generator: torch.Generator) -> None:
    # Samples outside of the ball weigh nothing.
    latent, beta = Ball(2, 1.0).double(), 2.0

    def energy_of_z(z: Tensor) -> Tensor:
        return (z - 0.5).square().sum(-1)

    rule = latent.quadrature(48)
    exact = free_energy(energy_of_z(rule.nodes)[None], beta, rule.log_weights)
    mean, std = torch.zeros(1, 2).double(), torch.full((1, 2), 0.8).double()
    found = importance_free_energy(energy_of_z, latent, mean, std, beta, 400_000, generator)
    torch.testing.assert_close(found.free_energy, exact, rtol=0, atol=5e-3)
    lost = importance_free_energy(energy_of_z, latent, mean + 100, std, beta, 10, generator)
    assert float(lost.free_energy) == math.inf


def test_limits_of_a_continuous_latent(generator: torch.Generator) -> None:
    truth = example(1)
    model = truth.model()
    y = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    rule = gaussian(model).quadrature(700)
    energies = model.energy(y, None, rule.nodes.expand(5, -1, -1))
    warm = free_energy(energies, 1e-9, rule.log_weights)
    torch.testing.assert_close(warm, truth.average(y), rtol=1e-6, atol=1e-6)
    # F_beta - F = log(1 + beta (lam + 2 |A|^2)) / (2 beta) and less.
    cold = free_energy(energies, 200.0, rule.log_weights)
    gap = math.log(1 + 200 * (truth.lam + 2 * float(truth.A.square().sum()))) / 400
    torch.testing.assert_close(cold, truth.ridge(y)[1] + gap, rtol=0, atol=5e-3)


def test_the_estimate_from_a_half_precision_encoder_is_that_of_float32(generator: torch.Generator) -> None:
    """E = |y - z|^2 in 16 dimensions; q is p(z | y) but for the rounding of its mean and width."""
    y = torch.randn(200, 16, generator=generator)
    mean, std = (2 * y / 3).bfloat16(), torch.full_like(y, 3**-0.5).bfloat16()
    exact = y.square().sum(1) / 3 + 8 * math.log(3)
    found = [
        importance_free_energy(
            lambda z: (y[:, None] - z).square().sum(2),
            Gaussian(16, 0.0), one.to(dtype), two.to(dtype), 1.0, 256, torch.Generator().manual_seed(0),
        ).free_energy
        for dtype in (torch.bfloat16, torch.float32)
        for one, two in ((mean, std),)
    ]  # fmt: skip
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], exact, rtol=0, atol=0.01)


# Mistakes


@pytest.mark.parametrize("beta", [0, -1.0, math.nan, -math.inf])
def test_beta_that_is_not_above_zero_is_named(beta: float) -> None:
    energies = torch.zeros(2, 3)
    for function in (free_energy, posterior, effective_sample_size):
        with pytest.raises(UserError, match="beta must be above 0"):
            function(energies, beta)


def test_other_mistakes_are_named(generator: torch.Generator) -> None:
    with pytest.raises(UserError, match=r"energies must be"):
        free_energy(torch.zeros(3), 1.0)
    with pytest.raises(UserError, match=r"energies must be"):
        free_energy(torch.zeros(3, 0), 1.0)
    model = example(2).model()

    def estimate(**change: Any) -> object:
        inputs: dict[str, Any] = {
            "mean": torch.zeros(1, 2),
            "std": torch.ones(1, 2),
            "beta": 1.0,
            "samples": 2,
        }
        return importance_free_energy(lambda z: z.sum(-1), model.latent, **(inputs | change))

    with pytest.raises(UserError, match="finite beta"):
        estimate(beta=math.inf)
    with pytest.raises(UserError, match="samples"):
        estimate(samples=0)
    with pytest.raises(UserError, match="mean and std"):
        estimate(std=torch.ones(2))
    for latent, message in ((OneHot(2), "use free_energy"), (Sphere(2), "use Ball or Gaussian")):
        with pytest.raises(UserError, match=message):
            importance_free_energy(
                lambda z: z.sum(-1), latent, torch.zeros(1, 2), torch.ones(1, 2), beta=1.0, samples=2
            )
