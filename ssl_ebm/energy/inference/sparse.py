"""Inference of sparse latents: ISTA, FISTA, and an encoder that has learnt to do the same in a few steps.

    E(z) = smooth(z) + regularisation * |z|_1,    z <- shrink(z - dsmooth/dz / L, regularisation / L)

with L the largest curvature of the smooth part, 2 |W|^2 (spectral norm) for |y - W z|^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ssl_ebm.energy.autograd import needs_gradients
from ssl_ebm.energy.inference.base import EnergyOfLatent, Inferred, SplitEnergy, fitting
from ssl_ebm.energy.latents import Latent, Sparse
from ssl_ebm.errors import UserError

CURVATURE_STEPS = 100  # of the power iteration
CURVATURE_MARGIN = 1.05  # the power iteration comes from below


@dataclass(frozen=True)
class Ista:
    """Iterative shrinkage-thresholding from z = 0; falls at every step, by O(1 / steps) in all.

    Costs one forward and one backward pass per step, and 200 such passes for L where it is not given.

    Args:
        steps: 1 or more.
        lipschitz: L, above 0, the largest curvature of the smooth part; None: measured at z = 0 by a power
            iteration, item by item, and 5 % more. Give it where it is known: for a decoder that is not
            linear,
            or whose largest curvatures lie close together, the measured one can be too small.

    Raises:
        UserError: a setting out of its range; on a call: a latent that is not `Sparse`, an energy that does
            not say what its smooth part is (that of `PredictiveEnergy.infer` does), `torch.inference_mode`.

    Source: Daubechies, Defrise, De Mol (2004).
    """

    steps: int
    lipschitz: float | None = None

    @property
    def second_derivatives(self) -> bool:
        """Whether L is measured."""
        return self.lipschitz is None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"{type(self).__name__}: steps must be at least 1, got {self.steps}")
        if self.lipschitz is not None and not 0 < self.lipschitz < math.inf:
            raise UserError(
                f"{type(self).__name__}: lipschitz must be a number above 0, got {self.lipschitz}"
            )

    def __call__(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        name = type(self).__name__
        needs_gradients(name)
        if not isinstance(latent, Sparse):
            raise UserError(
                f"{name} needs a Sparse latent, not {type(latent).__name__}: use {fitting(latent)}"
            )
        if not hasattr(energy_of_z, "smooth"):
            raise UserError(f"{name} needs the smooth part of the energy: use PredictiveEnergy.infer")
        energy = cast(SplitEnergy, energy_of_z)
        z = torch.zeros(len(y), 1, latent.dim, device=y.device, dtype=latent._anchor.dtype)
        if self.lipschitz is not None:
            curvature = torch.full_like(z[..., :1], self.lipschitz)
        else:
            curvature = CURVATURE_MARGIN * largest_curvature(energy, z)
        z = self.descend(energy, latent, z, curvature)
        energies = energy_of_z(z)  # (B, 1)
        index = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return Inferred(z[:, 0], energies[:, 0], energies.detach(), index)

    def descend(self, energy: SplitEnergy, latent: Sparse, z: Tensor, curvature: Tensor) -> Tensor:
        """z after all steps: (B, S, D), with L (B, S, 1)."""
        for _ in range(self.steps):
            z = _shrunk(energy, latent, z, curvature)
        return z


class Fista(Ista):
    """ISTA with momentum: falls by O(1 / steps^2) in all, not at every step.

    Args and errors: as `Ista`.

    Source: Beck & Teboulle, "A fast iterative shrinkage-thresholding algorithm" (2009), section 4.
    """

    def descend(self, energy: SplitEnergy, latent: Sparse, z: Tensor, curvature: Tensor) -> Tensor:
        ahead, t = z, 1.0
        for _ in range(self.steps):
            new = _shrunk(energy, latent, ahead, curvature)
            t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
            ahead = new + (t - 1) / t_new * (new - z)
            z, t = new, t_new
        return z


class Lista(nn.Module):
    """An encoder for `Amortised`: iterations of ISTA whose matrices and thresholds are learnt.

        z_0 = shrink(W_e y, theta),   z_{t+1} = shrink(W_e y + S z_t, theta)

    y (B, *Y) is flattened. Made by `from_dictionary` it is ISTA exactly, and training goes on from there.
    (Printed versions with -S z are wrong: S = I - 2 W'W / L.)

    Args:
        inputs: numbers in a y.
        dim: D, of z.
        iterations: 0 or more.

    Raises:
        UserError: a setting out of its range; on a call: a y of another size.

    Source: Gregor & LeCun, "Learning fast approximations of sparse coding" (2010), section 3.
    """

    def __init__(self, inputs: int, dim: int, iterations: int) -> None:
        super().__init__()
        if min(inputs, dim) < 1 or iterations < 0:
            raise UserError(
                f"LISTA: inputs is {inputs}, dim {dim} and iterations {iterations}: use at least 1, 1 and 0"
            )
        self.iterations = iterations
        self.encode = nn.Linear(inputs, dim, bias=False)
        self.inhibit = nn.Linear(dim, dim, bias=False)
        self.threshold = nn.Parameter(torch.full((dim,), 0.1))

    @classmethod
    def from_dictionary(cls, dictionary: Tensor, regularisation: float, iterations: int) -> Lista:
        """ISTA for |y - W z|^2 + regularisation * |z|_1 with W (P, D)."""
        inputs, dim = dictionary.shape
        made = cls(inputs, dim, iterations).to(dictionary)
        with torch.no_grad():
            curvature = 2 * torch.linalg.matrix_norm(dictionary, 2).square()
            made.encode.weight.copy_(2 * dictionary.T / curvature)
            eye = torch.eye(dim, dtype=dictionary.dtype, device=dictionary.device)
            made.inhibit.weight.copy_(eye - 2 * dictionary.T @ dictionary / curvature)
            made.threshold.fill_(regularisation / float(curvature))
        return made

    def forward(self, y: Tensor) -> Tensor:
        """z (B, D)."""
        flat = y.flatten(1)
        if flat.shape[1] != self.encode.in_features:
            raise UserError(
                f"LISTA: y has {flat.shape[1]} numbers, the encoder takes {self.encode.in_features}"
            )
        drive = self.encode(flat)
        z = self._shrink(drive)
        for _ in range(self.iterations):
            z = self._shrink(drive + self.inhibit(z))
        return z

    def _shrink(self, values: Tensor) -> Tensor:
        return values.sign() * torch.relu(values.abs() - self.threshold.clamp_min(0))


def largest_curvature(energy: SplitEnergy, z: Tensor, steps: int = CURVATURE_STEPS) -> Tensor:
    """Largest eigenvalue of the smooth part's Hessian at z (B, S, D), from below, by power iteration: (B, S,
    1)."""
    z = z.detach().requires_grad_()
    # The same start everywhere, and no two entries alike: nothing random, and no symmetry to hide behind.
    vector = torch.linspace(1, 2, z.shape[-1], dtype=z.dtype, device=z.device).expand_as(z)
    norm = vector.norm(dim=-1, keepdim=True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(energy.smooth(z).sum(), z, create_graph=True)
        for _ in range(steps):
            vector = vector / norm
            (vector,) = torch.autograd.grad(gradient, z, vector, retain_graph=True, materialize_grads=True)
            norm = vector.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
    return norm.detach()


def _shrunk(energy: SplitEnergy, latent: Sparse, z: Tensor, curvature: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(energy.smooth(z).sum(), z, materialize_grads=True)
    with torch.no_grad():
        return latent.proximal(z - gradient / curvature, energy.regularisation / curvature)
