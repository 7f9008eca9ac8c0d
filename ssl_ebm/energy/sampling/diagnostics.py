"""Whether chains have mixed: effective sample size and R-hat of what was recorded.

Both look at draws (R, N, *S): R records of N chains, each number of the state on its own.

Source: Gelman et al., "Bayesian data analysis" (3rd edition, 2013), sections 11.4 and 11.5; Vehtari et al.,
"Rank-normalization, folding, and localization: an improved R-hat" (2021).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssl_ebm.errors import UserError


def split_r_hat(draws: Tensor) -> Tensor:
    """R-hat of chains cut in half: (R, N, *S) -> (*S).

        sqrt(((n - 1) / n W + B / n) / W)

    with W the mean variance inside the 2 N half-chains of n draws, and B / n the variance of their means. 1
    when they agree; above 1.01 they have not mixed (Vehtari et al.).

    Raises:
        UserError: fewer than 4 records.
    """
    halves = _halves(draws)  # (n, 2 N, *S)
    n = len(halves)
    within = halves.var(0).mean(0)
    return (((n - 1) / n * within + halves.mean(0).var(0)) / within).sqrt()


def autocorrelation_ess(draws: Tensor) -> Tensor:
    """How many independent draws the R N recorded ones are worth: (R, N, *S) -> (*S).

        2 n N / (1 + 2 sum_t rho_t) over 2 N half-chains of n draws

    with autocorrelations rho_t from the variance between and within the half-chains, summed while the sums
    of neighbouring pairs are positive, and made monotone (Geyer 1992; Stan's estimator). NaN where no chain
    moved. Too large for few records: of independent draws in many chains twice the truth for 4, by a quarter
    for 16.

    Raises:
        UserError: fewer than 4 records.
    """
    halves = _halves(draws).double()  # (n, M, *S)
    n, chains = halves.shape[:2]
    centred = halves - halves.mean(0)
    spectrum = torch.fft.rfft(centred, 2 * n, dim=0)
    covariance = torch.fft.irfft(spectrum.abs().square(), 2 * n, dim=0)[:n] / n  # (n, M, *S), biased
    within = (covariance[0] * n / (n - 1)).mean(0)  # (*S)
    between = halves.mean(0).var(0)
    total = within * (n - 1) / n + between
    rho = 1 - (within - covariance.mean(1)) / total  # (n, *S)
    rho[0] = 1
    pairs = rho[: n // 2 * 2].unflatten(0, (-1, 2)).sum(1)  # (n // 2, *S)
    positive = (pairs > 0).cumprod(0).bool()
    pairs = pairs.cummin(0).values.where(positive, torch.zeros_like(pairs))
    time = (2 * pairs.sum(0) - 1).clamp_min(1 / math.log10(n * chains))
    moved = (halves != halves[0]).flatten(0, 1).any(0)  # not within > 0: a mean of equal numbers is rounded
    return torch.where(moved, n * chains / time, math.nan).to(draws.dtype)


def _halves(draws: Tensor) -> Tensor:
    """(R, N, *S) -> (R // 2, 2 N, *S): first and second halves as chains of their own."""
    if len(draws) < 4:
        raise UserError(f"diagnostics need 4 recorded states at least, got {len(draws)}: set record_every")
    half = len(draws) // 2
    return torch.cat([draws[:half], draws[len(draws) - half :]], 1)
