"""Free energies: what is left of E(x, y, z) when z is minimised or averaged out.

    F_beta(x, y) = -1/beta log E_{z ~ pi}[exp(-beta E(x, y, z))]

with pi the latent's reference measure (uniform on a finite space or a ball, where this is 1/|Z| times the
integral over Z; N(0, I) for the Gaussian latent, whose space has no finite volume). As beta grows from 0 to
inf, F_beta falls monotonically from the average of E under pi to its minimum.

    exact          finite z: `free_energy(energies of all codes, beta)`
    deterministic  z of 1 or 2 dims: nodes and log-weights of `latent.quadrature(order)`
    estimated      any continuous z: `importance_free_energy`, a stochastic upper bound

Source: LeCun et al., "A tutorial on energy-based learning" (2006), section 4.2
(probabilistic latent variables); lecture (NYU Deep Learning 2020, week 7-2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_ebm.energy.draws import normal
from ssl_ebm.energy.inference import EnergyOfLatent
from ssl_ebm.energy.latents import FiniteLatent, Latent, Sphere
from ssl_ebm.energy.temperature import check_beta
from ssl_ebm.errors import UserError


def free_energy(energies: Tensor, beta: float = math.inf, log_weights: Tensor | None = None) -> Tensor:
    """F_beta = -1/beta log sum_s w_s exp(-beta E_s): (B, S) -> (B,), in the energy's unit.

    Exact when the S candidates are all the values of z; otherwise as good as the nodes and weights. beta =
    inf is the exact minimum over candidates of weight above 0. Half-precision energies are taken to float32.

    The derivative in E_s is `posterior`'s p_s. At beta = inf it is 1 at the minimiser (shared by ties).

    Precise at both ends: the minimum is taken out before beta multiplies, so a large beta does not overflow;
    near beta = 0, where the logarithm of almost 1 is divided by almost 0, log1p and expm1 keep its digits.

    Args:
        energies: (B, S). +inf means impossible; NaN gives NaN.
        beta: inverse temperature, above 0, in 1 / the energy's unit.
        log_weights: broadcast to (B, S): log w_s, -inf allowed. None: w = 1/S. Used as they are: weights
            that do not sum to 1 (importance weights) move F by -1/beta log of their sum. If no weight is
            above 0, F is +inf.

    Raises:
        UserError: beta is 0, negative or NaN; energies is not (B, S) with S of 1 or more.
    """
    check_beta(beta)
    _check_energies(energies)
    energies, log_weights = _prepare(energies, log_weights)
    low = energies.amin(1)  # (B,)
    if math.isinf(beta):
        return low
    beta = _representable(beta, energies.dtype)
    # Where nothing is possible, low is +inf and must not be subtracted from itself.
    base = torch.where(torch.isposinf(low), 0.0, low.detach())
    total = log_weights.logsumexp(1)  # (B,), 0 for normalised weights
    # Weights that sum to 1 but for rounding: the rest would be divided by beta. Its gradient stays.
    rounding = total.abs() < 32 * torch.finfo(total.dtype).eps
    total = total - torch.where(rounding, total, 0.0).detach()
    log_share = log_weights - torch.where(torch.isneginf(total), 0.0, total)[:, None]
    scaled = -beta * (energies - base[:, None])  # (B, S), at most 0
    # sum_s share_s exp(scaled_s) = 1 + shortfall, shortfall in (-1, 0].
    shortfall = (log_share.exp() * scaled.expm1()).sum(1)
    near_one = torch.log1p(shortfall.clamp_min(-0.5))
    far_from_one = torch.logsumexp(scaled + log_share, 1)
    log_mean = torch.where(shortfall > -0.5, near_one, far_from_one)
    return base - (log_mean + total) / beta


def posterior(energies: Tensor, beta: float, log_weights: Tensor | None = None) -> Tensor:
    """p_s = w_s exp(-beta E_s) / sum_r w_r exp(-beta E_r): (B, S) -> (B, S), rows sum to 1.

    The Gibbs distribution of z given (x, y). beta = inf is its limit: all mass on the minimisers, in
    proportion to their weights. A row in which nothing is possible is NaN.

    Args and errors: as `free_energy`.
    """
    check_beta(beta)
    _check_energies(energies)
    energies, log_weights = _prepare(energies, log_weights)
    low = energies.amin(1, keepdim=True)
    if math.isinf(beta):
        return torch.softmax(log_weights.masked_fill(energies > low, -math.inf), 1) + 0 * low
    beta = _representable(beta, energies.dtype)
    return torch.softmax(log_weights - beta * (energies - low.detach()), 1)


def effective_sample_size(energies: Tensor, beta: float, log_weights: Tensor | None = None) -> Tensor:
    """1 / sum_s p_s^2 with p = `posterior`: (B, S) -> (B,), from 1 to S.

    S: all candidates count alike. 1: one carries the sum, and an estimate of F_beta is not to be trusted.

    Source: Kong, "A note on importance sampling using standardized weights" (1992). Args and errors: as
    `free_energy`.
    """
    return 1 / posterior(energies, beta, log_weights).square().sum(1)


@dataclass(frozen=True)
class ImportanceEstimate:
    """An estimate of F_beta, (B,), and its effective sample size, (B,), 1 to S, without gradient."""

    free_energy: Tensor
    effective_sample_size: Tensor


def importance_free_energy(
    energy_of_z: EnergyOfLatent,
    latent: Latent,
    mean: Tensor,
    std: Tensor,
    beta: float,
    samples: int,
    generator: torch.Generator | None = None,
) -> ImportanceEstimate:
    """F_beta for continuous z by importance sampling from q = N(mean, diag std^2), an amortised posterior.

        -1/beta log 1/S sum_s pi(z_s) / q(z_s) exp(-beta E(z_s)),  z_s ~ q

    Its expectation is above F_beta and falls to it as S grows (Burda, Grosse, Salakhutdinov, "Importance
    weighted autoencoders", 2015, theorem 1). q must be wider than exp(-beta E) pi, or the estimate has no
    finite variance. Samples are reparametrised: gradients reach mean and std unless they come detached.

    Args:
        energy_of_z: candidates (B, S, D) -> energies (B, S).
        latent: a continuous latent; its log_density is log pi.
        mean, std: (B, D); std above 0 (not checked: that would wait for the device). Half precision is taken
            to float32.
        beta: inverse temperature, above 0 and finite.
        samples: S, 1 or more.

    Raises:
        UserError: beta is not above 0 or is infinite; samples below 1; mean and std are not both (B, D); a
            latent without a density over volume: a finite one, or a `Sphere`.
    """
    check_beta(beta)
    if isinstance(latent, FiniteLatent):
        raise UserError("importance sampling: a finite latent's F_beta is exact: use free_energy")
    if isinstance(latent, Sphere):
        raise UserError("importance sampling: no Gaussian draws from a Sphere: use Ball or Gaussian")
    if math.isinf(beta):
        raise UserError(
            "beta: importance sampling needs a finite beta; the minimum (beta = inf) is for an inference"
        )
    if samples < 1:
        raise UserError(f"samples must be at least 1, got {samples}")
    if mean.shape != std.shape or mean.ndim != 2:
        raise UserError(
            f"mean and std must both be (batch, dim), got {tuple(mean.shape)} and {tuple(std.shape)}"
        )
    batch, dim = mean.shape
    mean, std = (one.to(torch.promote_types(one.dtype, torch.float32)) for one in (mean, std))
    noise = normal((batch, samples, dim), mean.dtype, mean.device, generator)
    z = mean[:, None] + std[:, None] * noise  # (B, S, D)
    log_q = -0.5 * noise.square().sum(-1) - std.log().sum(-1)[:, None] - 0.5 * dim * math.log(2 * math.pi)
    log_weights = latent.log_density(z) - log_q - math.log(samples)  # (B, S)
    energies = energy_of_z(z)
    with torch.no_grad():
        size = effective_sample_size(energies, beta, log_weights)
    return ImportanceEstimate(free_energy(energies, beta, log_weights), size)


def _representable(beta: float, dtype: torch.dtype) -> float:
    """beta moved into the range where beta * E and 1 / beta are numbers of this dtype."""
    info = torch.finfo(dtype)
    return min(max(beta, info.tiny / info.eps), info.max)


def _check_energies(energies: Tensor) -> None:
    if energies.ndim != 2 or energies.shape[1] < 1:
        raise UserError(
            f"energies must be (batch, candidates) with a candidate at least, got {tuple(energies.shape)}"
        )


def _prepare(energies: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Energies (B, S), +inf where the weight is 0, and log-weights (B, S), both float32 or wider."""
    energies = energies.to(torch.promote_types(energies.dtype, torch.float32))
    if log_weights is None:
        return energies, torch.full_like(energies, -math.log(energies.shape[1])).detach()
    log_weights = log_weights.to(energies).expand_as(energies)
    return energies.masked_fill(torch.isneginf(log_weights), math.inf), log_weights
