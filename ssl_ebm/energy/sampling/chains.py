"""What all samplers share: states, energies and their gradients, what a run returns.

A sampler moves N chains at once. A state is a tensor (N, *S), of y or of z; an energy maps it to (N,), each
chain's own, so batch statistics do not belong in it. All samplers aim at exp(-beta E) / Z, where Z is never
needed, and return `Chains`. Nothing in a step waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ssl_ebm.energy.autograd import needs_gradients
from ssl_ebm.energy.compiled import CompiledEnergy
from ssl_ebm.energy.draws import normal, uniform
from ssl_ebm.errors import UserError

READ_TOGETHER = 32  # steps whose energies are kept until their means are taken

EnergyOfState = Callable[[Tensor], Tensor]
"""States (N, *S) -> energies (N,)."""


@dataclass(frozen=True)
class Chains:
    """Where chains ended, and how they went; all without gradient.

    Attributes:
        state: (N, *S), after the last step.
        acceptance: (N,), mean probability of acceptance, warm-up apart; 1 where every step is taken.
        energy: (steps,), mean energy over the chains before each step: falls and levels off when they settle.
        step_size: (), that of the last step, in units of the state (squared, for the Langevin samplers).
        draws: (R, N, *S), the state after every `record_every` steps; R = 0 where nothing was recorded.
    """

    state: Tensor
    acceptance: Tensor
    energy: Tensor
    step_size: Tensor
    draws: Tensor


class Sampler(Protocol):
    """How to draw from exp(-beta E).

    Attributes:
        beta: inverse temperature.
    """

    @property
    def beta(self) -> float: ...

    def sample(
        self,
        energy: EnergyOfState,
        start: Tensor,
        steps: int,
        generator: torch.Generator | None = None,
        record_every: int = 0,
        check: bool = True,
    ) -> Chains:
        """Moves the chains.

        Args:
            energy: (N, *S) -> (N,). Where it is a module, its parameters are frozen meanwhile.
            start: (N, *S), floating point.
            steps: 1 or more.
            generator: of all random numbers; None: the global one of the state's device.
            record_every: steps between two recorded states; 0: none is recorded.
            check: raise for what is not finite, which waits for the device at the end. False: it is
                left in the chains, where a training's loss will show it.

        Raises:
            UserError: a wrong shape or number; an energy that is not finite, with the step where it began.
        """
        ...


def energy_and_gradient(energy: EnergyOfState, state: Tensor) -> tuple[Tensor, Tensor]:
    """E (N,) and dE/dstate (N, *S), both without graph. Gradients are enabled where it is called."""
    if isinstance(energy, CompiledEnergy):
        energies, gradient = energy.with_gradient(state)
        return checked_shape(energies, state), gradient
    state = state.detach().requires_grad_()
    energies = checked_shape(energy(state), state)
    if not energies.requires_grad:  # an energy that is the same everywhere
        return energies, torch.zeros_like(state)
    (gradient,) = torch.autograd.grad(energies, state, torch.ones_like(energies), allow_unused=True)
    return energies.detach(), torch.zeros_like(state) if gradient is None else gradient


def checked_shape(energies: Tensor, state: Tensor) -> Tensor:
    """Energies as they are.

    Raises:
        UserError: they are not (N,).
    """
    if energies.shape != state.shape[:1]:
        raise UserError(
            f"an energy must return one number per item, ({len(state)},), got {tuple(energies.shape)}"
        )
    return energies


def normal_like(state: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers of a state's shape (see `normal`)."""
    return normal(tuple(state.shape), state.dtype, state.device, generator)


def uniform_like(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1) of a tensor's shape (see `uniform`)."""
    return uniform(tuple(values.shape), values.dtype, values.device, generator)


def per_chain(values: Tensor, like: Tensor) -> Tensor:
    """(N,) -> (N, 1, ..., 1), to multiply a state."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


class Record:
    """Collects what `Chains` tells; asks once, at the end, whether all was finite.

    Args:
        name: of the sampler, for the error.
        start, steps, record_every: as in `Sampler.sample`.

    Raises:
        UserError: one of them is wrong.
    """

    def __init__(self, name: str, start: Tensor, steps: int, record_every: int) -> None:
        needs_gradients(name)
        if start.ndim < 2 or not start.is_floating_point():
            raise UserError(
                f"{name}: a state is (chains, ...) of floating point, got {tuple(start.shape)} of "
                f"{start.dtype}"
            )
        if steps < 1 or record_every < 0:
            raise UserError(f"{name}: steps is {steps} and record_every {record_every}: use at least 1 and 0")
        self.name = name
        self.every = record_every
        self.draws = start.new_empty((steps // record_every if record_every else 0, *start.shape))
        self.energy = start.new_empty(steps)
        self._unread: list[Tensor] = []  # energies of the last steps: means of many at once cost little

    def before(self, step: int, energies: Tensor) -> None:
        """Energies (N,) of the states that a step begins from, in order."""
        self._unread.append(energies)
        if len(self._unread) == READ_TOGETHER or step + 1 == len(self.energy):
            self.energy[step + 1 - len(self._unread) : step + 1] = torch.stack(self._unread).mean(1)
            self._unread.clear()

    def after(self, step: int, state: Tensor) -> None:
        """The states (N, *S) that a step ends in."""
        if self.every and (step + 1) % self.every == 0:
            self.draws[(step + 1) // self.every - 1] = state

    def chains(self, state: Tensor, acceptance: Tensor, step_size: Tensor, check: bool) -> Chains:
        """Waits for the device, to check.

        Raises:
            UserError: an energy was not finite, or a final state is not.
        """
        if check and not _all_finite(self.energy):
            first = int((~self.energy.isfinite()).int().argmax())
            raise UserError(
                f"{self.name}: the energy is not finite ({self.energy[first].item()}) at step {first + 1} of "
                f"{len(self.energy)}; use a smaller step_size ({step_size.item():g}) or look at the energy"
            )
        if check and not _all_finite(state):
            raise UserError(
                f"{self.name}: a state is not finite after step {len(self.energy)} of {len(self.energy)}; "
                f"use a smaller step_size ({step_size.item():g}) or look at the energy's gradient"
            )
        return Chains(state, acceptance, self.energy, step_size, self.draws)


def _all_finite(values: Tensor) -> bool:
    """Whether every entry is finite: so it is if their sum is, which costs a tenth; sums may overflow."""
    return math.isfinite(values.sum().item()) or bool(values.isfinite().all())
