"""Samplers that take every step: gradient descent, and Langevin dynamics without a correction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_ebm.energy.autograd import frozen
from ssl_ebm.energy.sampling.chains import (
    Chains,
    EnergyOfState,
    Record,
    energy_and_gradient,
    normal_like,
)
from ssl_ebm.energy.sampling.schedules import Schedule, at
from ssl_ebm.energy.temperature import check_beta
from ssl_ebm.errors import UserError


@dataclass(frozen=True)
class Langevin:
    """Unadjusted Langevin dynamics.

        y <- y - step_size * beta * dE/dy + noise * sqrt(2 * step_size) * xi,   xi ~ N(0, I)

    Aims at exp(-beta E), from which its stationary distribution differs by O(step_size); `Mala` corrects
    that. `noise` below 1 samples at a lower temperature than the gradient is scaled for, as image models do
    to see results in tens of steps; 0 is gradient descent.

    Costs one forward and one backward pass of the energy per step.

    Args:
        step_size: above 0; a number or a schedule over steps. Unit: that of the state, squared.
        beta: inverse temperature, above 0 and finite, in 1 / the energy's unit.
        noise: factor on the noise, 0 or more; a number or a schedule.
        max_gradient: entries of dE/dy are cut to +- this; None: not at all.
        low, high: states are kept between them, as pixel values are: projected Langevin dynamics (Bubeck,
            Eldan, Lehec 2015). None: no limit.

    Raises:
        UserError: a number is out of range; on a call: as `Sampler.sample`.

    Source: Grenander & Miller (1994); Welling & Teh, "Bayesian learning via stochastic gradient Langevin
    dynamics" (2011), equation 3; for images Du & Mordatch (2019), Nijkamp et al. (2019).
    """

    step_size: Schedule
    beta: float = 1.0
    noise: Schedule = 1.0
    max_gradient: float | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        check_beta(self.beta)
        if math.isinf(self.beta):
            raise UserError("Langevin: beta must be finite; use noise 0 to descend")
        if not callable(self.step_size):
            check_step_size(type(self).__name__, self.step_size)
        if not callable(self.noise) and not 0 <= self.noise < math.inf:
            raise UserError(f"Langevin: noise is {self.noise}: use a number of 0 or more")
        if self.max_gradient is not None and not self.max_gradient > 0:
            raise UserError(f"Langevin: max_gradient is {self.max_gradient}: use a number above 0, or null")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise UserError(f"Langevin: low is {self.low} and high {self.high}: use low < high")

    def sample(
        self,
        energy: EnergyOfState,
        start: Tensor,
        steps: int,
        generator: torch.Generator | None = None,
        record_every: int = 0,
        check: bool = True,
    ) -> Chains:
        """Moves the chains; see `Sampler.sample`."""
        record = Record(type(self).__name__, start, steps, record_every)
        state, size = start.detach().clone(), 0.0
        with frozen(energy), torch.enable_grad():
            for step in range(steps):
                size, noise = at(self.step_size, step), at(self.noise, step)
                if not 0 <= size < math.inf:
                    raise UserError(
                        f"{type(self).__name__}: step_size is {size} at step {step}: its schedule must give "
                        "finite numbers, none below 0"
                    )
                energies, gradient = energy_and_gradient(energy, state)
                record.before(step, energies)
                if self.max_gradient is not None:
                    gradient = gradient.clamp(-self.max_gradient, self.max_gradient)
                state = state.add_(gradient, alpha=-size * self.beta)
                del gradient  # the noise takes its memory
                if noise:
                    state = state.add_(normal_like(state, generator), alpha=noise * math.sqrt(2 * size))
                if self.low is not None or self.high is not None:
                    state = state.clamp_(self.low, self.high)
                record.after(step, state)
        last = torch.full((), size, dtype=state.dtype, device=state.device)
        return record.chains(state, state.new_ones(len(state)), last, check)


class Descent(Langevin):
    """Gradient descent y <- y - step_size * dE/dy: the way down after the kick of contrastive divergence, and
    the query for a plausible y nearby.

    Args:
        step_size: above 0; a number or a schedule over steps. Unit: that of the state, squared, per energy.
        max_gradient, low, high: as in `Langevin`.
    """

    def __init__(
        self,
        step_size: Schedule,
        max_gradient: float | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__(step_size, noise=0.0, max_gradient=max_gradient, low=low, high=high)


def check_step_size(name: str, step_size: float) -> None:
    """Raises UserError unless a step size is a finite number above 0."""
    if not 0 < step_size < math.inf:
        raise UserError(f"{name}: step_size is {step_size}: use a finite number above 0")
