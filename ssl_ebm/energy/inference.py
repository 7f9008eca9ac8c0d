"""Inference: z* = argmin_z E(x, y, z), for a batch of (x, y) at once.

Every inference here is a callable over `energy_of_z`, a function of candidates z (B, S, D) that returns
their energies (B, S). That function is all it knows of the model, so it serves any energy, conditional or
not.

No gradient flows through the argmin. It need not: by the envelope theorem the derivative of F(x, y) = min_z
E(x, y, z) in the parameters is the partial derivative of E at z* (Danskin 1967; Milgrom & Segal, "Envelope
theorems for arbitrary choice sets", 2002, theorem 1). So the returned z is detached, and the returned energy
is a function of the parameters at that fixed z. Where z* is not fully converged the same gradient is that of
the upper bound E(x, y, z*) of F.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ssl_ebm.energy.latents import FiniteLatent, Latent
from ssl_ebm.errors import UserError

EnergyOfLatent = Callable[[Tensor], Tensor]
"""Candidates z (B, S, D) -> energies (B, S)."""

OptimizerName = Literal["sgd", "adam"]


@dataclass(frozen=True)
class Inferred:
    """What an inference found.

    Attributes:
        z: (B, D), detached: the best candidate.
        energy: (B,), E at z: differentiable in the parameters, not in z.
        energies: (B, S), of all the candidates that were compared: the K codes of an enumeration (the exact
            free energy at any temperature is a function of these), the restarts of a descent, one for an
            encoder. Differentiable only where the inference says so.
        index: (B,) int64, which candidate is z; the code's number for an enumeration.
        proposal: (B, D), the encoder's own output with its graph, where there is an encoder. It is what
            trains the encoder, by energy_of_z(proposal[:, None]) or by its distance to z (Kavukcuoglu,
            Ranzato, LeCun, "Fast inference in sparse coding algorithms", 2008).
    """

    z: Tensor
    energy: Tensor
    energies: Tensor
    index: Tensor
    proposal: Tensor | None = None


class Inference(Protocol):
    """How to find z*.

    Args of a call:
        energy_of_z: candidates (B, S, D) -> energies (B, S).
        latent: the space of z.
        y: (B, *Y); gives the batch size and the device, and is the encoder's input where there is one.
        context: what the encoder sees beside y; None: the encoder is called with y alone.
        generator: for starting points.
    """

    def __call__(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred: ...


@dataclass(frozen=True)
class Enumeration:
    """Exact: tries every value of a finite latent.

    Ties go to the lowest index. A NaN energy wins, so that it is seen.

    Args:
        gradient: "all": `energies` (B, K) are differentiable (a loss over all codes needs it); "minimum":
            the K energies are computed without a graph and the best code is evaluated again with one, which
            saves K - 1 backward passes. With dropout the second evaluation differs from the first.
        chunk: values tried at a time; None: all at once. Bounds the memory where no graph is kept (under
            no_grad, or with gradient "minimum").

    Raises:
        UserError: `chunk` is below 1, `gradient` is neither; on a call: the latent is not finite.
    """

    gradient: Literal["all", "minimum"] = "all"
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.gradient not in ("all", "minimum"):
            raise UserError(f'enumeration: gradient must be "all" or "minimum", got {self.gradient!r}')
        if self.chunk is not None and self.chunk < 1:
            raise UserError(f"enumeration: chunk must be at least 1, got {self.chunk}")

    def __call__(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        if not isinstance(latent, FiniteLatent):
            raise UserError(
                f"enumeration needs a latent with finitely many values (OneHot, Quantised), not "
                f"{type(latent).__name__}: use gradient descent or an encoder"
            )
        codes = latent.enumerate().to(y.device)  # (K, D)
        candidates = codes.expand(len(y), -1, -1)  # (B, K, D)
        again = self.gradient == "minimum" and torch.is_grad_enabled()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not again):
            parts = candidates.split(self.chunk or len(codes), dim=1)
            energies = torch.cat([energy_of_z(part) for part in parts], dim=1)  # (B, K)
        index = energies.detach().argmin(1)  # (B,)
        best = codes[index]  # (B, D); learnt codes are parameters, so they stay in the graph of the energy
        energy = energy_of_z(best[:, None])[:, 0] if again else energies.gather(1, index[:, None])[:, 0]
        return Inferred(best.detach(), energy, energies, index)


@dataclass(frozen=True)
class GradientDescent:
    """Projected gradient steps on z from random starts; keeps the best point seen, so more steps never hurt.

    z <- project(z - lr * step(dE/dz)). A local minimum: `restarts` starts per item, drawn from the latent's
    reference measure, run side by side as candidates. `energies` (B, restarts) are without gradient.

    Costs `steps` forward and backward passes of the decoder over B * restarts candidates, and two forward
    passes at the end. Candidates must not see each other: no batch statistics in the decoder.

    Args:
        steps: number of steps, 1 or more.
        lr: step size, above 0: units of z per unit of gradient (sgd), or about units of z per step (adam).
        optimizer: "sgd" (plain gradient) or "adam" (Kingma & Ba 2015, torch's default moments).
        restarts: starting points per item, 1 or more.

    Raises:
        UserError: a setting out of its range; on a call: under `torch.inference_mode`, which forbids
            gradients.
    """

    steps: int
    lr: float
    optimizer: OptimizerName = "sgd"
    restarts: int = 1

    def __post_init__(self) -> None:
        _check_descent(self.steps, self.lr, self.optimizer)
        if self.restarts < 1:
            raise UserError(f"gradient descent: restarts must be at least 1, got {self.restarts}")

    def __call__(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        start = latent.sample(len(y) * self.restarts, generator, y.device)
        start = start.reshape(len(y), self.restarts, latent.dim)
        z, energies = _descend(energy_of_z, latent, start, self.steps, self.lr, self.optimizer)
        index = energies.argmin(1)  # (B,)
        best = z[torch.arange(len(y), device=z.device), index]  # (B, D)
        return Inferred(best, energy_of_z(best[:, None])[:, 0], energies, index)


class Amortised(nn.Module):
    """z* guessed in one pass by a trained encoder, then projected into the space: z = project(Enc(y,
    context)).

    An upper bound of the minimum. The encoder is trained through `Inferred.proposal`.

    Args:
        encoder: `encoder(y, context)`, or `encoder(y)` where context is None: (B, *Y) -> (B, D).

    Raises:
        UserError: on a call: the encoder's output is not (B, D).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        proposal = _propose(self.encoder, latent, y, context)
        z = latent.project(proposal.detach()).detach()  # (B, D)
        energies = energy_of_z(z[:, None])  # (B, 1)
        index = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return Inferred(z, energies[:, 0], energies, index, proposal)


class AmortisedRefined(nn.Module):
    """An encoder's guess, then projected gradient steps from there; never worse than the guess.

    Args:
        encoder: as in `Amortised`.
        steps, lr, optimizer: as in `GradientDescent`.

    Raises:
        UserError: as in `Amortised` and `GradientDescent`.
    """

    def __init__(self, encoder: nn.Module, steps: int, lr: float, optimizer: OptimizerName = "sgd") -> None:
        super().__init__()
        _check_descent(steps, lr, optimizer)
        self.encoder = encoder
        self.steps = steps
        self.lr = lr
        self.optimizer: OptimizerName = optimizer

    def forward(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        proposal = _propose(self.encoder, latent, y, context)
        start = proposal.detach()[:, None]  # (B, 1, D)
        z, energies = _descend(energy_of_z, latent, start, self.steps, self.lr, self.optimizer)
        index = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return Inferred(z[:, 0], energy_of_z(z)[:, 0], energies, index, proposal)


def _propose(encoder: nn.Module, latent: Latent, y: Tensor, context: Any) -> Tensor:
    proposal: Tensor = encoder(y) if context is None else encoder(y, context)
    if proposal.shape != (len(y), latent.dim):
        raise UserError(
            f"the encoder must return (batch, latent dim) = {(len(y), latent.dim)}, "
            f"got {tuple(proposal.shape)}"
        )
    return proposal


def _descend(
    energy_of_z: EnergyOfLatent,
    latent: Latent,
    start: Tensor,
    steps: int,
    lr: float,
    optimizer: OptimizerName,
) -> tuple[Tensor, Tensor]:
    """Best point on the path of projected descent: z (B, S, D) and its energies (B, S), both detached."""
    if torch.is_inference_mode_enabled():
        raise UserError(
            "inference by gradient steps needs gradients: use torch.no_grad() in place of "
            "torch.inference_mode() (in Lightning: Trainer(inference_mode=False))"
        )
    z = latent.project(start).detach().clone().requires_grad_()
    optim = torch.optim.SGD([z], lr=lr) if optimizer == "sgd" else torch.optim.Adam([z], lr=lr)
    best_z, best = z.detach().clone(), None
    with torch.enable_grad():
        for _ in range(steps):
            energies = energy_of_z(z)  # (B, S)
            # Candidates do not see each other, so the gradient of the sum is each one's own. Only z's is
            # asked for: parameters collect nothing here.
            (z.grad,) = torch.autograd.grad(energies.sum(), z, materialize_grads=True)
            best_z, best = _keep_best(best_z, best, z.detach(), energies.detach())
            optim.step()
            with torch.no_grad():
                z.copy_(latent.project(z))
    with torch.no_grad():
        last = energy_of_z(z)
    return _keep_best(best_z, best, z.detach(), last)


def _keep_best(best_z: Tensor, best: Tensor | None, z: Tensor, energies: Tensor) -> tuple[Tensor, Tensor]:
    # A NaN on the way is never better; a NaN at the start stays, and so reaches the loss.
    if best is None:
        return z.clone(), energies
    better = energies < best  # (B, S)
    return torch.where(better[..., None], z, best_z), torch.where(better, energies, best)


def _check_descent(steps: int, lr: float, optimizer: str) -> None:
    if steps < 1:
        raise UserError(f"gradient descent: steps must be at least 1, got {steps}")
    if not 0 < lr < float("inf"):
        raise UserError(f"gradient descent: lr must be a finite number above 0, got {lr}")
    if optimizer not in ("sgd", "adam"):
        raise UserError(f'gradient descent: optimizer must be "sgd" or "adam", got {optimizer!r}')
