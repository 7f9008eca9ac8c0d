"""Push down on data, up on chosen points: contrastive divergence, noise contrast, margins.

Source: lecture, "contrastive methods"; each class names its paper.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from ssl_ebm.energy.noise import Noise
from ssl_ebm.energy.objectives.base import check_learns
from ssl_ebm.energy.objectives.likelihood import contrast
from ssl_ebm.energy.sampling import EnergyOfState, Sampler
from ssl_ebm.energy.sampling.chains import checked_shape, normal_like
from ssl_ebm.errors import UserError


class ContrastiveDivergence(nn.Module):
    """CD-k: chains begin at the data, and the energy is pushed up where k steps of them lead.

        L = mean F(y) - mean F(y'),  y' after `steps` steps from y, without gradient

    Removes wells near the data; those that chains do not reach from there stay. As k grows the gradient
    becomes that of maximum likelihood.

    Args:
        sampler: how chains move; its beta is the model's. `Descent` is the lecture's picture: kick, then
            roll down.
        steps: k, 1 or more.
        kick: standard deviation of Gaussian noise added to y before the first step, 0 or more.
        restraint: weight of the squared energies (see `contrast`), 0 or more.

    Raises:
        UserError: a setting out of its range; as the sampler.

    Source: Hinton, "Training products of experts by minimizing contrastive divergence" (2002).
    """

    def __init__(self, sampler: Sampler, steps: int, kick: float = 0.0, restraint: float = 0.0) -> None:
        super().__init__()
        _check_chains("contrastive divergence", steps, kick, restraint)
        self.sampler = sampler
        self.steps = steps
        self.kick = kick
        self.restraint = restraint

    def negatives(self, model: EnergyOfState, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Where chains from y lead: (B, *Y)."""
        start = y + self.kick * normal_like(y, generator) if self.kick else y
        return self.sampler.sample(model, start, self.steps, generator, check=False).state

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        return contrast(model, y, self.negatives(model, y, generator), self.restraint)


class ReplayBuffer(nn.Module):
    """Chains that live on from one training step to the next.

    A part of the checkpoint; of several processes each has chains of its own, and the first one's are saved.

    Args:
        size: chains that are kept, 1 or more.
        noise: what chains begin as.
        refresh: share of the drawn chains that begin anew, 0 to 1: each draw replaces them with fresh noise.

    Raises:
        UserError: a setting out of its range; more chains are drawn than there are.

    Source: Du & Mordatch (2019), section 3.2 (5 % begin anew).
    """

    def __init__(self, size: int, noise: Noise, refresh: float = 0.05) -> None:
        super().__init__()
        if size < 1 or not 0 <= refresh <= 1:
            raise UserError(f"replay buffer: size is {size} and refresh {refresh}: use 1 or more, and 0 to 1")
        self.noise = noise
        self.refresh = refresh
        # No buffer: with several processes Lightning would make all of them those of the first.
        self.states = noise.sample(size)

    def _apply(self, fn: Any, recurse: bool = True) -> ReplayBuffer:
        super()._apply(fn, recurse)
        self.states = fn(self.states)
        return self

    def get_extra_state(self) -> Tensor:
        """The chains, for a checkpoint."""
        return self.states

    def set_extra_state(self, state: Tensor) -> None:
        """Takes the chains of a checkpoint."""
        self.states = state.to(self.states).clone()

    def draw(self, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """States (count, *Y) of different chains, and which chains (count,) they are."""
        if count > len(self.states):
            raise UserError(
                f"replay buffer: {count} chains are asked of {len(self.states)}: set a larger size"
            )
        origin = self.states.device if generator is None else generator.device
        order = torch.randperm(len(self.states), generator=generator, device=origin)
        index = order[:count].to(self.states.device)
        state = self.states[index]
        anew = torch.rand(count, generator=generator, device=origin).to(state.device) < self.refresh
        fresh = self.noise.sample(count, generator).to(state)
        return torch.where(_beside(anew, state), fresh, state), index

    def put(self, index: Tensor, state: Tensor) -> None:
        """Writes chains back where they came from; one that is not finite stays where it was before, as it
        would never be finite again."""
        state, before = state.detach().to(self.states), self.states[index]
        finite = state.isfinite().reshape(len(state), -1).all(1)
        self.states[index] = torch.where(_beside(finite, state), state, before)


class PersistentContrastiveDivergence(nn.Module):
    """Chains go on from where the last training step left them, so that they wander far from the data.

        L = mean F(y) - mean F(y') + restraint * (mean F(y)^2 + mean F(y')^2)

    Args:
        sampler: how chains move; its beta is the model's.
        steps: of each chain per training step, 1 or more.
        buffer: the chains.
        restraint: weight of the squared energies, 0 or more.

    Raises:
        UserError: a setting out of its range; as the sampler and the buffer.

    Source: Tieleman, "Training restricted Boltzmann machines using approximations to the likelihood gradient"
    (2008); with a buffer: Du & Mordatch (2019).
    """

    def __init__(self, sampler: Sampler, steps: int, buffer: ReplayBuffer, restraint: float = 0.0) -> None:
        super().__init__()
        _check_chains("persistent contrastive divergence", steps, 0.0, restraint)
        self.sampler = sampler
        self.steps = steps
        self.buffer = buffer
        self.restraint = restraint

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        start, chains = self.buffer.draw(len(y), generator)
        negative = self.sampler.sample(model, start, self.steps, generator, check=False).state
        self.buffer.put(chains, negative)
        return contrast(model, y, negative, self.restraint)


class NoiseContrastive(nn.Module):
    """Noise-contrastive estimation: tell data from noise of a known density q by log-odds G = -F - c - log q.

        L = -mean log sigmoid(G(y) - log r) - r mean log sigmoid(log r - G(y')),  y' ~ q, r draws per datum

    c is learnt and becomes log Z: at the optimum exp(-F - c) is the density of the data.

    Args:
        noise: q; must cover the data, and be near it.
        ratio: r, draws of noise per datum, 1 or more.

    Raises:
        UserError: ratio is below 1.

    Source: Gutmann & Hyvarinen, "Noise-contrastive estimation of unnormalized statistical models" (2012).
    """

    def __init__(self, noise: Noise, ratio: int = 1) -> None:
        super().__init__()
        if ratio < 1:
            raise UserError(f"noise contrast: ratio is {ratio}: use at least 1")
        self.noise = noise
        self.ratio = ratio
        self.log_partition = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        check_learns(model)
        drawn = self.noise.sample(self.ratio * len(y), generator).to(y)
        both = torch.cat([y, drawn])
        energies = checked_shape(model(both), both)
        odds = -energies - self.log_partition - self.noise.log_density(both) - math.log(self.ratio)
        return -logsigmoid(odds[: len(y)]).mean() - self.ratio * logsigmoid(-odds[len(y) :]).mean()


class Margin(nn.Module):
    """Energies of corrupted data are to lie above those of the data by a margin m.

        hinge           max(0, m + F(y) - F(y'))
        square_square   F(y)^2 + max(0, m - F(y'))^2
        logistic        log(1 + exp(F(y) - F(y')))        a margin without an end

    with y' = y + noise * xi.

    Args:
        noise: standard deviation of the corruption, above 0, in units of y.
        margin: m, above 0, in units of F.
        form: of the loss.

    Raises:
        UserError: a setting out of its range.

    Source: LeCun et al. (2006), section 2.2 (hinge, log and square-square losses).
    """

    def __init__(
        self,
        noise: float,
        margin: float = 1.0,
        form: Literal["hinge", "square_square", "logistic"] = "hinge",
    ) -> None:
        super().__init__()
        if not 0 < noise < math.inf or not 0 < margin < math.inf:
            raise UserError(f"margin: noise is {noise} and margin {margin}: use numbers above 0")
        if form not in ("hinge", "square_square", "logistic"):
            raise UserError(f"margin: form must be hinge, square_square or logistic, got {form!r}")
        self.noise = noise
        self.margin = margin
        self.form = form

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        check_learns(model)
        both = torch.cat([y, y + self.noise * normal_like(y, generator)])
        energies = checked_shape(model(both), both)
        data, negative = energies[: len(y)], energies[len(y) :]
        if self.form == "hinge":
            return torch.relu(self.margin + data - negative).mean()
        if self.form == "square_square":
            return (data.square() + torch.relu(self.margin - negative).square()).mean()
        return softplus(data - negative).mean()


def _beside(each: Tensor, state: Tensor) -> Tensor:
    """One value per chain (B,), to be broadcast over states (B, *Y)."""
    return each.reshape(-1, *(1,) * (state.ndim - 1))


def _check_chains(name: str, steps: int, kick: float, restraint: float) -> None:
    if steps < 1 or not 0 <= kick < math.inf or not 0 <= restraint < math.inf:
        raise UserError(
            f"{name}: steps is {steps}, kick {kick} and restraint {restraint}: use at least 1, 0 and 0"
        )
