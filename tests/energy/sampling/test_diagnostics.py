"""R-hat and effective sample size against what is known of autoregressive chains."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssl_ebm.energy.sampling import autocorrelation_ess, split_r_hat
from ssl_ebm.errors import UserError


def autoregressive(phi: float, steps: int, chains: int, dims: int = 1, seed: int = 0) -> Tensor:
    """x' = phi x + sqrt(1 - phi^2) xi from its stationary N(0, 1): (steps, chains, dims)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(chains, dims, generator=generator)
    draws = []
    for _ in range(steps):
        x = phi * x + (1 - phi**2) ** 0.5 * torch.randn(chains, dims, generator=generator)
        draws.append(x)
    return torch.stack(draws)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.5])
def test_ess_of_an_autoregressive_chain(phi: float) -> None:
    """Autocorrelations phi^t sum to ESS = n (1 - phi) / (1 + phi)."""
    draws = autoregressive(phi, 4000, 8, dims=3)
    expected = 4000 * 8 * (1 - phi) / (1 + phi)
    assert autocorrelation_ess(draws).tolist() == pytest.approx([expected] * 3, rel=0.15)


def test_r_hat_by_its_formula() -> None:
    draws = autoregressive(0.3, 10, 2)
    halves = [draws[:5, 0, 0], draws[:5, 1, 0], draws[5:, 0, 0], draws[5:, 1, 0]]
    within = sum(float(h.var()) for h in halves) / 4
    means = torch.tensor([float(h.mean()) for h in halves])
    expected = ((4 / 5 * within + float(means.var())) / within) ** 0.5
    assert float(split_r_hat(draws)[0]) == pytest.approx(expected, rel=1e-5)


def test_r_hat_tells_chains_that_disagree_or_drift() -> None:
    good = autoregressive(0.3, 2000, 4)
    assert float(split_r_hat(good)[0]) == pytest.approx(1, abs=0.01)
    assert float(split_r_hat(good + torch.arange(4.0)[:, None])[0]) > 1.3
    assert float(split_r_hat(good + torch.linspace(0, 2, 2000)[:, None, None])[0]) > 1.1


def test_states_of_any_shape() -> None:
    draws = torch.randn(100, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    assert split_r_hat(draws).shape == autocorrelation_ess(draws).shape == (2, 5)


def test_too_few_records_are_refused() -> None:
    with pytest.raises(UserError, match="4 recorded states at least, got 3: set record_every"):
        split_r_hat(torch.zeros(3, 2, 1))


def test_chains_that_do_not_move_are_worth_nothing_that_can_be_told() -> None:
    assert autocorrelation_ess(torch.ones(10, 3, 1)).isnan().all()
    stuck = torch.arange(4.0)[:, None].expand(10, 4, 1)
    assert autocorrelation_ess(stuck).isnan().all()
    assert split_r_hat(torch.ones(10, 3, 1)).isnan().all()
    drawn = torch.randn(1, 4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert autocorrelation_ess(drawn.expand(1001, 4, 50)).isnan().all()  # their means are rounded


def as_stan_has_it(draws: Tensor) -> float:
    """Effective sample size of (R, N) by the text of Stan's reference manual, a lag at a time."""
    half = len(draws) // 2
    chains = [chain.double() for part in (draws[:half], draws[-half:]) for chain in part.T]
    n, m = half, len(chains)
    means = torch.stack([chain.mean() for chain in chains])

    def covariance(lag: int) -> float:
        parts = [((c - c.mean())[: n - lag] * (c - c.mean())[lag:]).sum() / n for c in chains]
        return float(sum(parts)) / m

    within = covariance(0) * n / (n - 1)
    total = within * (n - 1) / n + float(means.var())
    rho = [1.0] + [1 - (within - covariance(lag)) / total for lag in range(1, n)]
    time, least = -1.0, math.inf
    for lag in range(0, n - 1, 2):
        pair = rho[lag] + rho[lag + 1]
        if pair <= 0:
            break
        least = min(least, pair)
        time += 2 * least
    return n * m / max(time, 1 / math.log10(n * m))


@pytest.mark.parametrize(("phi", "records"), [(0.0, 4), (0.0, 16), (0.6, 40), (-0.3, 100)])
def test_ess_as_stan_has_it(phi: float, records: int) -> None:
    draws = autoregressive(phi, records, 8)
    assert float(autocorrelation_ess(draws)[0]) == pytest.approx(as_stan_has_it(draws[..., 0]), rel=1e-5)
