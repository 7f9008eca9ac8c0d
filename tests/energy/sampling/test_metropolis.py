"""Metropolis, MALA and HMC leave their target as it is, find it from elsewhere, and adapt their steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssl_ebm.energy.sampling import Hmc, Langevin, Mala, Metropolis, Sampler, autocorrelation_ess
from ssl_ebm.errors import UserError

from .densities import (
    COVARIANCE,
    MEAN,
    gaussian,
    gaussian_draws,
    two_modes,
    two_modes_draws,
    two_modes_moments,
)

# Steps so large that without the correction the target would be missed by far.
SAMPLERS: dict[str, Sampler] = {
    "metropolis": Metropolis(0.8),
    "mala": Mala(0.2),
    "hmc": Hmc(0.5, leapfrog_steps=4),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_gaussian_stays_as_it_is(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    count = 40_000
    start = gaussian_draws(count, generator)
    chains = SAMPLERS[name].sample(gaussian, start, 20, generator)
    assert 0.2 < float(chains.acceptance.mean()) < 0.95  # steps are refused, and taken
    moved = (chains.state - start).square().sum(-1).mean()
    assert float(moved) > 0.5
    error = (COVARIANCE.diagonal() / count).sqrt()
    assert ((chains.state.mean(0) - MEAN).abs() < 4 * error).all()
    products = COVARIANCE.square() + COVARIANCE.diagonal()[:, None] * COVARIANCE.diagonal()
    assert ((chains.state.T.cov() - COVARIANCE).abs() < 4 * (products / count).sqrt()).all()


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("name", SAMPLERS)
def test_two_modes_stay_as_they_are(name: str, beta: float) -> None:
    generator = torch.Generator().manual_seed(2)
    count = 20_000
    sampler = {"metropolis": Metropolis(0.8, beta), "mala": Mala(0.15, beta), "hmc": Hmc(0.4, beta)}[name]
    start = two_modes_draws(count, generator, beta)
    state = sampler.sample(two_modes, start, 15, generator).state[:, 0]
    mean, second, left = two_modes_moments(beta)
    assert float(state.mean()) == pytest.approx(mean, abs=4 * (second / count) ** 0.5)
    assert float((state < 0).double().mean()) == pytest.approx(left, abs=2 / count**0.5)
    assert float(state.square().mean()) == pytest.approx(
        second, abs=4 * float(state.square().std()) / count**0.5
    )


def test_without_the_correction_such_steps_miss_the_target() -> None:
    """What the tests above would not see if the choice to stay were left out."""
    generator = torch.Generator().manual_seed(2)
    start = gaussian_draws(40_000, generator)
    state = Langevin(0.2).sample(gaussian, start, 20, generator).state
    assert abs(float(state[:, 1].var()) / 0.5 - 1) > 0.15


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_target_is_found_from_elsewhere(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.full((200, 1), 1.5, dtype=torch.float64)
    sampler = {"metropolis": Metropolis(1.2), "mala": Mala(0.15), "hmc": Hmc(0.4)}[name]
    chains = sampler.sample(two_modes, start, 600, generator, record_every=2)
    draws = chains.draws[50:]
    size = float(autocorrelation_ess(draws)[0])
    mean, second, _ = two_modes_moments()
    assert size > 500
    assert float(draws.mean()) == pytest.approx(mean, abs=4 * (second / size) ** 0.5)
    assert float(draws.square().mean()) == pytest.approx(second, rel=0.05)


@pytest.mark.parametrize(
    ("sampler", "target"),
    [
        (Metropolis(0.01, warmup=400), 0.234),
        (Mala(5.0, warmup=400), 0.574),
        (Hmc(0.01, warmup=300, leapfrog_steps=3), 0.8),
        (Mala(0.01, warmup=400, target=0.8), 0.8),
    ],
)
def test_steps_adapt_to_the_acceptance_that_is_aimed_at(sampler: Sampler, target: float) -> None:
    generator = torch.Generator().manual_seed(4)
    start = gaussian_draws(500, generator)
    chains = sampler.sample(gaussian, start, 200, generator)
    assert float(chains.acceptance.mean()) == pytest.approx(target, abs=0.05)


def test_hmc_conserves_energy_as_steps_shrink() -> None:
    """The leapfrog's error falls with the square of the step (Neal 2011, section 5.2.3.4)."""
    generator = torch.Generator().manual_seed(5)
    start = gaussian_draws(2000, generator)
    refused = [
        1
        - float(
            Hmc(size, leapfrog_steps=int(0.8 / size)).sample(gaussian, start, 5, generator).acceptance.mean()
        )
        for size in (0.2, 0.1)
    ]
    assert refused[0] / refused[1] == pytest.approx(4, rel=0.25)


def test_a_trajectory_as_long_as_an_oscillation_goes_somewhere_with_jitter() -> None:
    """E = y^2 / 2 oscillates with a period of 2 pi: 20 steps of pi / 10 lead back to the start."""

    def bowl(y: Tensor) -> Tensor:
        return 0.5 * y.square().sum(-1)

    start = torch.full((2000, 1), 2.0, dtype=torch.float64)
    ends = [
        Hmc(torch.pi / 10, leapfrog_steps=20, jitter=jitter)
        .sample(bowl, start, 20, torch.Generator().manual_seed(7))
        .state
        for jitter in (0.0, 0.2)
    ]
    assert float(ends[0].mean()) > 1.5
    assert float(ends[1].mean()) == pytest.approx(0, abs=0.1)
    assert float(ends[1].var()) == pytest.approx(1, abs=0.13)


@pytest.mark.parametrize("sampler", [Metropolis(4.0), Mala(3.0), Hmc(1.0)])
def test_proposals_that_are_not_finite_are_refused(sampler: Sampler) -> None:
    def half_line(y: Tensor) -> Tensor:  # exponential density on y > 0; NaN elsewhere
        return y[:, 0] - 0 * y[:, 0].sqrt()

    generator = torch.Generator().manual_seed(6)
    start = torch.rand(500, 1, generator=generator) + 0.1
    state = sampler.sample(half_line, start, 50, generator).state
    assert bool((state > 0).all())
    assert 0.6 < float(state.mean()) < 1.6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mala(-1.0), "Mala: step_size is -1.0"),
        (lambda: Hmc(0.1, leapfrog_steps=0), "Hmc: leapfrog_steps is 0: use at least 1"),
        (lambda: Hmc(0.1, jitter=1.0), "Hmc: jitter is 1.0"),
        (lambda: Hmc(0.1, warmup=-1), "Hmc: warmup is -1"),
        (lambda: Hmc(0.1, target=1.0), "Hmc: target is 1.0"),
        (
            lambda: Metropolis(0.1).sample(lambda y: y.sum(), torch.ones(3, 1), 1),
            r"one number per item, \(3,\)",
        ),
        (lambda: Metropolis(0.1, beta=float("inf")), "use Descent for the minimum"),
        (lambda: Hmc(0.1, beta=-1.0), "beta must be above 0"),
        (
            lambda: Metropolis(1.0).sample(gaussian, torch.full((2, 2), float("nan")).double(), 3),
            "not finite",
        ),
    ],
)
def test_mistakes_are_said_in_a_line(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("beyond", [-math.inf, math.inf, math.nan])
def test_no_chain_goes_where_the_energy_is_not_finite(beyond: float) -> None:
    """A flat energy below 1, and none above."""

    def energy(y: Tensor) -> Tensor:
        return torch.where(y[:, 0] < 1, 0.0, beyond)

    generator = torch.Generator().manual_seed(0)
    start = torch.linspace(-1, 0.9, 200)[:, None]
    found = Metropolis(0.5).sample(energy, start, 40, generator)
    assert (found.state < 1).all()
    assert 0.5 < float(found.acceptance.mean()) < 1
    assert float(found.acceptance.min()) < float(found.acceptance.max()) <= 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", SAMPLERS)
def test_states_keep_their_precision_whatever_the_energys(name: str, dtype: torch.dtype) -> None:
    def energy(y: Tensor) -> Tensor:
        return gaussian(y.double()).to(dtype)

    chains = SAMPLERS[name].sample(energy, torch.zeros(8, 2), 4)
    assert chains.state.dtype == chains.energy.dtype == torch.float32


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_chance_of_next_to_nothing_stays_one_in_half_precision(name: str) -> None:
    """Beyond 1 nothing goes with more than exp(-50); in bfloat16 a uniform number is 0 one time in 512."""

    def energy(y: Tensor) -> Tensor:
        return torch.where(y[:, 0] < 1, 0.0, 50.0).bfloat16()

    start = torch.linspace(-1, 0.9, 2000)[:, None]
    found = SAMPLERS[name].sample(energy, start, 40, torch.Generator().manual_seed(0))
    assert (found.state < 1).all()
    assert float(found.acceptance.mean()) < 1


def test_acceptance_is_counted_beyond_the_whole_numbers_of_half_precision() -> None:
    start = torch.zeros(50, 1, dtype=torch.bfloat16)
    found = Metropolis(0.5).sample(lambda y: 0 * y[:, 0], start, 600, torch.Generator().manual_seed(0))
    assert found.state.dtype == torch.bfloat16
    assert (found.acceptance == 1).all()
