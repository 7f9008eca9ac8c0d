"""Maximum likelihood: push down on the data, push up wherever the model puts its mass.

    L = F(y) + 1/beta log Z,  Z = int exp(-beta F(y')) dy'
    dL/dW = dF(y)/dW - E_{y' ~ exp(-beta F) / Z}[dF(y')/dW]

The integral is a sum on a grid where y has one or two dimensions; elsewhere it is estimated. (The loss is
sometimes printed without the logarithm, which does not have this gradient.)

Source: LeCun et al., "A tutorial on energy-based learning" (2006), section 2.2 (negative
log-likelihood loss); lecture, "contrastive methods: push down on the energy of training data points, push up
everywhere else".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssl_ebm.energy.noise import Noise
from ssl_ebm.energy.objectives.base import check_learns
from ssl_ebm.energy.sampling import EnergyOfState, Sampler
from ssl_ebm.energy.sampling.chains import checked_shape
from ssl_ebm.energy.temperature import check_beta
from ssl_ebm.errors import UserError


class GridLikelihood(nn.Module):
    """Exact maximum likelihood for y (B, 1) or (B, 2): the integral by the midpoint rule on a grid.

    Its error falls with the square of the spacing, and the density outside of the box counts as 0. Costs
    points^dim evaluations of F.

    Args:
        low, high: the box, the same in every dimension.
        points: cells in each dimension, 2 or more.
        dim: of y, 1 or 2.
        beta: inverse temperature, above 0, finite.

    Raises:
        UserError: a setting out of its range.
    """

    grid: Tensor

    def __init__(self, low: float, high: float, points: int = 100, dim: int = 2, beta: float = 1.0) -> None:
        super().__init__()
        _check_finite(beta)
        if not -math.inf < low < high < math.inf or points < 2 or dim not in (1, 2):
            raise UserError(
                f"grid likelihood: low {low}, high {high}, points {points}, dim {dim}: use low < high, 2 "
                "points at least, and 1 or 2 dimensions"
            )
        self.beta = beta
        self.log_cell = dim * math.log((high - low) / points)
        axis = low + (high - low) * (torch.arange(points) + 0.5) / points
        self.register_buffer("grid", torch.cartesian_prod(*[axis] * dim).reshape(-1, dim), persistent=False)

    def log_partition(self, model: EnergyOfState) -> Tensor:
        """log Z, ()."""
        return torch.logsumexp(-self.beta * _energies(model, self.grid), 0) + self.log_cell

    def log_density(self, model: EnergyOfState, y: Tensor) -> Tensor:
        """log exp(-beta F(y)) / Z: (B, dim) -> (B,), in nats."""
        return -self.beta * _energies(model, y) - self.log_partition(model)

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Mean negative log-likelihood over beta, ()."""
        check_learns(model)
        return -self.log_density(model, y).mean() / self.beta


class MonteCarloLikelihood(nn.Module):
    """Maximum likelihood with Z estimated from independent draws of a known density q.

        log Z = log E_{y' ~ q}[exp(-beta F(y')) / q(y')]

    The estimate of log Z is too small by about half its variance, which grows fast with the dimension and
    with the distance of q from the model.

    Args:
        proposal: q; must cover the data.
        samples: draws per step, 2 or more.
        beta: inverse temperature, above 0, finite.

    Raises:
        UserError: a setting out of its range.
    """

    def __init__(self, proposal: Noise, samples: int = 1024, beta: float = 1.0) -> None:
        super().__init__()
        _check_finite(beta)
        if samples < 2:
            raise UserError(f"Monte Carlo likelihood: samples is {samples}: use at least 2")
        self.proposal = proposal
        self.samples = samples
        self.beta = beta

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        check_learns(model)
        drawn = self.proposal.sample(self.samples, generator).to(y)
        log_weight = -self.beta * _energies(model, drawn) - self.proposal.log_density(drawn)
        log_partition = torch.logsumexp(log_weight, 0) - math.log(self.samples)
        return _energies(model, y).mean() + log_partition / self.beta


class SampledLikelihood(nn.Module):
    """Maximum likelihood by chains that begin at noise: their mean is the expectation under the model.

        L = mean F(y) - mean F(y'),  y' after `steps` steps of a sampler, without gradient

    Only the gradient of L means something, and it is that of the likelihood as far as the chains have
    settled: with `Metropolis` this is MCMC, with `Hmc` Hamiltonian Monte Carlo. The sampler's beta is the
    model's.

    Args:
        sampler: how chains move.
        steps: of each chain, 1 or more.
        start: where chains begin.
        chains: number of chains; None: as many as there is data in a batch.

    Raises:
        UserError: a setting out of its range; as the sampler.
    """

    def __init__(self, sampler: Sampler, steps: int, start: Noise, chains: int | None = None) -> None:
        super().__init__()
        if steps < 1 or (chains is not None and chains < 1):
            raise UserError(f"sampled likelihood: steps is {steps} and chains {chains}: use at least 1")
        self.sampler = sampler
        self.steps = steps
        self.start = start
        self.chains = chains

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        start = self.start.sample(self.chains or len(y), generator).to(y)
        negative = self.sampler.sample(model, start, self.steps, generator, check=False).state
        return contrast(model, y, negative)


def contrast(model: EnergyOfState, y: Tensor, negative: Tensor, restraint: float = 0.0) -> Tensor:
    """mean F(y) - mean F(y') + restraint * (mean F(y)^2 + mean F(y')^2): down on data, up on negatives.

    The last term keeps energies near 0, which the difference alone leaves free (Du & Mordatch, "Implicit
    generation and modeling with energy based models", 2019, section 3.3). One pass for both, so that they see
    the same weights and one call of the network.
    """
    check_learns(model)
    both = torch.cat([y, negative])
    energies = checked_shape(model(both), both)
    data, made = energies[: len(y)], energies[len(y) :]
    loss = data.mean() - made.mean()
    return loss + restraint * (data.square().mean() + made.square().mean()) if restraint else loss


def _energies(model: EnergyOfState, y: Tensor) -> Tensor:
    """F (B,), at least float32: in bfloat16 a sum over a grid has no gradient that can be trusted."""
    energies = checked_shape(model(y), y)
    return energies.to(torch.promote_types(energies.dtype, torch.float32))


def _check_finite(beta: float) -> None:
    check_beta(beta)
    if math.isinf(beta):
        raise UserError("beta: a likelihood needs a finite beta")
