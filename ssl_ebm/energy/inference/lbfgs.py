"""Inference by L-BFGS, each candidate with a curvature and a step length of its own."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_ebm.energy.autograd import needs_gradients
from ssl_ebm.energy.inference.base import EnergyOfLatent, Inferred, fitting, starts
from ssl_ebm.energy.latents import Latent
from ssl_ebm.errors import UserError

SUFFICIENT_DECREASE = 1e-4  # share of the predicted decrease that a step must reach (Armijo)


@dataclass(frozen=True)
class Lbfgs:
    """Quasi-Newton steps from random starts: few steps, each with a search for its length.

    For latents without a border (Gaussian, Sparse): a quasi-Newton step cut off at one need not descend. The
    search halves the step until the energy falls enough; a candidate that finds no such step stays where it
    is, so the energy never rises.

    Not torch.optim.LBFGS, which takes all candidates for one long vector with one curvature and one step.

    Costs per step one forward and backward pass, and one forward pass for each halving of the slowest
    candidate. Waits for the device in each of them. `energies` (B, restarts) are without gradient.

    Args:
        steps: 1 or more.
        history: steps whose curvature is remembered, 1 or more.
        restarts: starting points per item, drawn from the latent's reference measure, 1 or more.
        halvings: of a step at most, 1 or more.

    Raises:
        UserError: a setting out of its range; on a call: a latent with a border, `torch.inference_mode`.

    Source: Nocedal & Wright, "Numerical optimization" (2nd edition, 2006), algorithms 7.4 and 3.1.
    """

    steps: int = 50
    history: int = 10
    restarts: int = 1
    halvings: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "history", "restarts", "halvings"):
            if getattr(self, name) < 1:
                raise UserError(f"L-BFGS: {name} must be at least 1, got {getattr(self, name)}")

    def __call__(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        needs_gradients("L-BFGS")
        if not latent.unbounded:
            raise UserError(f"L-BFGS: steps leave a {type(latent).__name__}: use {fitting(latent)}")
        z = starts(latent, len(y), self.restarts, generator, y.device).detach()
        value, gradient = _value_and_gradient(energy_of_z, z)
        pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=self.history)  # moves, changes, 1 / dot
        # Without any curvature yet: a first step of length 1.
        scale = 1 / gradient.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        for _ in range(self.steps):
            direction = -_newton(gradient, pairs, scale)
            new, moved = self._search(energy_of_z, z, value, gradient, direction)
            if not bool(moved.any()):
                break
            new_value, new_gradient = _value_and_gradient(energy_of_z, new)
            move, change = new - z, new_gradient - gradient
            curvature = _dot(move, change)
            # Where the curvature is not positive the pair says nothing: its weight is 0. Positive is beyond
            # rounding, whatever the units of z and of the energy.
            lengths = move.norm(dim=-1, keepdim=True) * change.norm(dim=-1, keepdim=True)
            useful = curvature > torch.finfo(z.dtype).eps * lengths
            pairs.append((move, change, torch.where(useful, 1 / curvature, 0.0)))
            scale = torch.where(useful, curvature / _dot(change, change), scale)
            z, value, gradient = new, new_value, new_gradient
        index = value.argmin(1)  # (B,)
        best = z[torch.arange(len(y), device=z.device), index]  # (B, D)
        return Inferred(best, energy_of_z(best[:, None])[:, 0], value, index)

    def _search(
        self,
        energy_of_z: EnergyOfLatent,
        z: Tensor,
        value: Tensor,
        gradient: Tensor,
        direction: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Where each candidate goes (B, S, D), and whether it moves (B, S)."""
        length = torch.ones_like(value)
        done = torch.zeros_like(value, dtype=torch.bool)
        new = z
        with torch.no_grad():
            for _ in range(self.halvings + 1):
                trial = z + length[..., None] * direction
                fall = SUFFICIENT_DECREASE * _dot(gradient, trial - z)[..., 0]
                enough = (energy_of_z(trial) <= value + fall) & (fall < 0) & ~done
                new = torch.where(enough[..., None], trial, new)
                done = done | enough
                if bool(done.all()):
                    break
                length = torch.where(done, length, length / 2)
        return new, done


def _newton(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]], scale: Tensor) -> Tensor:
    """The inverse Hessian's estimate times the gradient, by the two-loop recursion."""
    q = gradient
    weights = []
    for move, change, rho in reversed(pairs):
        weight = rho * _dot(move, q)
        weights.append(weight)
        q = q - weight * change
    q = scale * q
    for (move, change, rho), weight in zip(pairs, reversed(weights), strict=True):
        q = q + (weight - rho * _dot(change, q)) * move
    return q


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(B, S, D), (B, S, D) -> (B, S, 1)."""
    return (a * b).sum(-1, keepdim=True)


def _value_and_gradient(energy_of_z: EnergyOfLatent, z: Tensor) -> tuple[Tensor, Tensor]:
    """E (B, S) and dE/dz (B, S, D), without graph."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        energies = energy_of_z(z)
        (gradient,) = torch.autograd.grad(energies.sum(), z, materialize_grads=True)
    return energies.detach(), gradient
