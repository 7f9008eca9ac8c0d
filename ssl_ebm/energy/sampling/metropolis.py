"""Samplers whose steps may be refused, so that exp(-beta E) itself is left invariant: the Metropolis family.

A step proposes a state and takes it with probability min(1, exp(log_ratio)); otherwise the chain stays. A
proposal whose energy is not finite is refused.

Source: Metropolis et al. (1953); Hastings (1970); Neal, "MCMC using Hamiltonian dynamics" (2011); step
sizes: Hoffman & Gelman, "The No-U-Turn sampler" (2014), section 3.2.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_ebm.energy.autograd import frozen
from ssl_ebm.energy.draws import uniform
from ssl_ebm.energy.sampling.chains import (
    Chains,
    EnergyOfState,
    Record,
    checked_shape,
    energy_and_gradient,
    normal_like,
    per_chain,
    uniform_like,
)
from ssl_ebm.energy.sampling.langevin import check_step_size
from ssl_ebm.energy.temperature import check_beta
from ssl_ebm.errors import UserError


class Point(NamedTuple):
    """States (N, *S) with beta E (N,) and its gradient (N, *S); the gradient is empty where none is used."""

    state: Tensor
    energy: Tensor
    gradient: Tensor


class Proposal(NamedTuple):
    """Where a step would go, and log of (target x way back) / (target x way there), (N,)."""

    point: Point
    log_ratio: Tensor


@dataclass(frozen=True)
class _Metropolis:
    """A step size that adapts during a warm-up, and the choice to take a step or stay.

    Args:
        step_size: above 0; the first one, if there is a warm-up.
        beta: inverse temperature, above 0 and finite.
        warmup: steps before those that were asked for, in which the step size is adapted until `target` of
            the proposals are taken, on average over the chains. They are not counted, and not recorded.
        target: mean probability of acceptance that the warm-up aims at, between 0 and 1; None: the best
            known for the sampler.
    """

    step_size: float
    beta: float = 1.0
    warmup: int = 0
    target: float | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_beta(self.beta)
        check_step_size(name, self.step_size)
        if math.isinf(self.beta):
            raise UserError(f"{name}: beta must be finite; use Descent for the minimum")
        if self.warmup < 0:
            raise UserError(f"{name}: warmup is {self.warmup}: use 0 or more")
        if self.target is not None and not 0 < self.target < 1:
            raise UserError(f"{name}: target is {self.target}: use a share above 0 and below 1")

    @property
    @abstractmethod
    def best_target(self) -> float:
        """The acceptance that moves furthest in many dimensions."""

    @abstractmethod
    def begin(self, energy: EnergyOfState, state: Tensor) -> Point:
        """The first point."""

    @abstractmethod
    def propose(
        self, energy: EnergyOfState, point: Point, size: Tensor, generator: torch.Generator | None
    ) -> Proposal:
        """A step of this size (a tensor of no dimension)."""

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
        size = torch.full((), self.step_size, dtype=start.dtype, device=start.device)
        accepted = _wide(start.new_zeros(len(start)))
        with frozen(energy), torch.enable_grad():
            point = self.begin(energy, start.detach())
            if self.warmup:
                point, size = self._warm_up(energy, point, size, generator)
            for step in range(steps):
                record.before(step, point.energy if self.beta == 1 else point.energy / self.beta)
                point, probability = self._step(energy, point, size, generator)
                accepted += probability
                record.after(step, point.state)
        return record.chains(point.state, accepted / steps, size, check)

    def _warm_up(
        self, energy: EnergyOfState, point: Point, size: Tensor, generator: torch.Generator | None
    ) -> tuple[Point, Tensor]:
        """Where the chains are after `warmup` steps, and the step size to keep."""
        adaptation = DualAveraging(size, self.best_target if self.target is None else self.target)
        for _ in range(self.warmup):
            point, probability = self._step(energy, point, size, generator)
            size = adaptation.update(probability.mean())
        return point, adaptation.average()

    def _step(
        self, energy: EnergyOfState, point: Point, size: Tensor, generator: torch.Generator | None
    ) -> tuple[Point, Tensor]:
        """The next point, and the probability (N,) that the proposed one had to be it."""
        proposed, log_ratio = self.propose(energy, point, size, generator)
        probability = _acceptance(proposed.energy, log_ratio)
        taken = uniform_like(probability, generator) < probability
        return _choose(taken, proposed, point), probability

    def energy_and_gradient(self, energy: EnergyOfState, state: Tensor) -> Point:
        """beta E and its gradient."""
        energies, gradient = energy_and_gradient(energy, state)
        energies = _wide(energies)
        if self.beta != 1:
            energies, gradient = energies * self.beta, gradient * self.beta
        return Point(state, energies, gradient)


@dataclass(frozen=True)
class Metropolis(_Metropolis):
    """Random-walk Metropolis: y' = y + step_size * xi, xi ~ N(0, I). No gradient of the energy is used.

    Costs one forward pass per step. Best acceptance 0.234 (Roberts, Gelman, Gilks 1997).

    Args and errors: step_size in units of the state; else as all of this family.
    """

    @property
    def best_target(self) -> float:
        return 0.234

    def begin(self, energy: EnergyOfState, state: Tensor) -> Point:
        with torch.no_grad():
            energies = _wide(checked_shape(energy(state), state))
        energies = energies if self.beta == 1 else energies * self.beta
        return Point(state, energies, state.new_empty(len(state), 0))

    def propose(
        self, energy: EnergyOfState, point: Point, size: Tensor, generator: torch.Generator | None
    ) -> Proposal:
        new = self.begin(energy, point.state + size * normal_like(point.state, generator))
        return Proposal(new, point.energy - new.energy)


@dataclass(frozen=True)
class Mala(_Metropolis):
    """Metropolis-adjusted Langevin: a step of `Langevin` as the proposal.

        y' = y - step_size * beta * dE/dy + sqrt(2 * step_size) * xi

    Costs one forward and one backward pass per step. Best acceptance 0.574 (Roberts & Rosenthal 1998).

    Args and errors: step_size in units of the state, squared; else as all of this family.

    Source: Roberts & Tweedie, "Exponential convergence of Langevin distributions" (1996).
    """

    @property
    def best_target(self) -> float:
        return 0.574

    def begin(self, energy: EnergyOfState, state: Tensor) -> Point:
        return self.energy_and_gradient(energy, state)

    def propose(
        self, energy: EnergyOfState, point: Point, size: Tensor, generator: torch.Generator | None
    ) -> Proposal:
        noise = normal_like(point.state, generator)
        there = point.state - size * point.gradient + (2 * size).sqrt() * noise
        new = self.energy_and_gradient(energy, there)
        # The way there had -|noise|^2 / 2; the way back would need the noise that leads from y' to y.
        back = (point.state - there + size * new.gradient) / (2 * size).sqrt()
        ways = _difference_of_squares(noise, back)
        return Proposal(new, torch.add(point.energy - new.energy, ways, alpha=0.5))


@dataclass(frozen=True)
class Hmc(_Metropolis):
    """Hamiltonian Monte Carlo: a fresh momentum p ~ N(0, I), then `leapfrog_steps` leapfrog steps along

        dy/dt = p,   dp/dt = -beta * dE/dy

    Costs `leapfrog_steps` forward and backward passes per step. Best acceptance 0.8 in practice (Stan's
    default; theory 0.651, Beskos et al. 2013).

    Args:
        step_size: of the leapfrog, in units of the state.
        leapfrog_steps: 1 or more.
        jitter: each trajectory draws its step size from step_size * (1 +- jitter), evenly; 0 to 1. Without it
            one that takes as long as an oscillation of the energy ends where it began, again and again.
        beta, warmup, target: as all of this family.

    Source: Duane et al., "Hybrid Monte Carlo" (1987); Neal (2011), section 5.2 and 5.3.
    """

    leapfrog_steps: int = 10
    jitter: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leapfrog_steps < 1:
            raise UserError(f"Hmc: leapfrog_steps is {self.leapfrog_steps}: use at least 1")
        if not 0 <= self.jitter < 1:
            raise UserError(f"Hmc: jitter is {self.jitter}: use a share of the step, from 0 to below 1")

    @property
    def best_target(self) -> float:
        return 0.8

    def begin(self, energy: EnergyOfState, state: Tensor) -> Point:
        return self.energy_and_gradient(energy, state)

    def propose(
        self, energy: EnergyOfState, point: Point, size: Tensor, generator: torch.Generator | None
    ) -> Proposal:
        first = normal_like(point.state, generator)
        if self.jitter:
            swing = 2 * uniform((len(first),), first.dtype, first.device, generator) - 1
            size = per_chain(size * (1 + self.jitter * swing), first)
        momentum = first.addcmul(point.gradient, size, value=-0.5)
        new = self.energy_and_gradient(energy, point.state.addcmul(momentum, size))
        for _ in range(self.leapfrog_steps - 1):
            momentum.addcmul_(new.gradient, size, value=-1)
            state = new.state.addcmul(momentum, size)
            del new  # its memory serves the next gradient
            new = self.energy_and_gradient(energy, state)
        momentum.addcmul_(new.gradient, size, value=-0.5)
        change = _difference_of_squares(first, momentum)
        return Proposal(new, torch.add(point.energy - new.energy, change, alpha=0.5))


class DualAveraging:
    """A step size for which the mean acceptance is `target`, found while sampling.

    Source: Hoffman & Gelman (2014), equation 6, with gamma = 0.05, t0 = 10, kappa = 0.75 and mu = log(10
    step_size) as they recommend.

    Args:
        step_size: (), the first one.
        target: mean acceptance, 0 to 1.
    """

    GAMMA, T0, KAPPA = 0.05, 10.0, 0.75

    def __init__(self, step_size: Tensor, target: float) -> None:
        self.target = target
        self.centre = (10 * step_size).log()
        self.shortfall = torch.zeros_like(step_size)  # H-bar: how much acceptance fell short, so far
        self.log_average = torch.zeros_like(step_size)
        self.steps = 0

    def update(self, acceptance: Tensor) -> Tensor:
        """The next step size, after a step with this mean acceptance (a tensor of no dimension)."""
        self.steps += 1
        share = 1 / (self.steps + self.T0)
        self.shortfall = (1 - share) * self.shortfall + share * (self.target - acceptance)
        log_size = self.centre - math.sqrt(self.steps) / self.GAMMA * self.shortfall
        weight = self.steps**-self.KAPPA
        self.log_average = weight * log_size + (1 - weight) * self.log_average
        return log_size.exp()

    def average(self) -> Tensor:
        """The step size to keep."""
        return self.log_average.exp()


def _acceptance(proposed: Tensor, log_ratio: Tensor) -> Tensor:
    """min(1, exp(log_ratio)), and 0 where that or the proposed energy is not a number to go to: (N,) each."""
    probability = log_ratio.clamp_max(0).exp_().nan_to_num_(0.0)
    return probability.masked_fill_(proposed == -math.inf, 0.0)


def _choose(taken: Tensor, new: Point, old: Point) -> Point:
    """The new point of each chain where `taken` (N,), else the old one."""
    # In full: torch.where is half as fast with a mask that is broadcast over short rows.
    mask = per_chain(taken, old.state).expand_as(old.state).contiguous()
    return Point(
        torch.where(mask, new.state, old.state),
        torch.where(taken, new.energy, old.energy),
        torch.where(mask, new.gradient, old.gradient) if old.gradient.numel() else old.gradient,
    )


def _wide(values: Tensor) -> Tensor:
    """At least float32: of bfloat16's uniform numbers one in 512 is 0, and below every chance."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _difference_of_squares(a: Tensor, b: Tensor) -> Tensor:
    """|a|^2 - |b|^2 of each chain: (N, *S) -> (N,), at least float32."""
    a, b = _wide(a), _wide(b)
    return a.square().addcmul_(b, b, value=-1).flatten(1).sum(1)
