"""Densities that are known: where chains begin, what data is told from, what estimates an integral."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from ssl_ebm.energy.draws import normal, uniform
from ssl_ebm.errors import UserError


class Noise(Protocol):
    """A distribution over y that can be drawn from and whose density is known."""

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, *Y) on the module's device; drawn on the generator's, where there is one, and moved."""
        ...

    def log_density(self, y: Tensor) -> Tensor:
        """(B, *Y) -> (B,), in nats; -inf where the density is 0."""
        ...


class UniformNoise(nn.Module):
    """Uniform on the box [low, high] in every entry of y.

    Args:
        shape: *Y.
        low, high: low < high, finite.

    Raises:
        UserError: the box is empty, or a y of another shape is given.
    """

    _anchor: Tensor

    def __init__(self, shape: tuple[int, ...], low: float, high: float) -> None:
        super().__init__()
        if not -math.inf < low < high < math.inf:
            raise UserError(f"uniform noise: low is {low} and high {high}: use finite numbers, low < high")
        self.shape, self.low, self.high = tuple(shape), low, high
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        share = uniform((count, *self.shape), self._anchor.dtype, self._anchor.device, generator)
        return self.low + (self.high - self.low) * share

    def log_density(self, y: Tensor) -> Tensor:
        check_shape("uniform noise", y, self.shape)
        inside = ((y >= self.low) & (y <= self.high)).flatten(1).all(1)
        flat = -math.prod(self.shape) * math.log(self.high - self.low)
        return torch.full_like(inside, flat, dtype=y.dtype).masked_fill(~inside, -math.inf)


class GaussianNoise(nn.Module):
    """N(mean, diag std^2), both a number for all entries or one for each.

    Args:
        shape: *Y.
        mean, std: numbers, or tensors that broadcast to *Y; std above 0.

    Raises:
        UserError: std is not above 0, or a y of another shape is given.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...], mean: float | Tensor = 0.0, std: float | Tensor = 1.0) -> None:
        super().__init__()
        self.shape = tuple(shape)
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.get_default_dtype()).clone())
        if not bool((self.std > 0).all() & self.std.isfinite().all()):
            raise UserError("Gaussian noise: std must be above 0 and finite")

    @classmethod
    def fit(cls, y: Tensor, widen: float = 1.0) -> GaussianNoise:
        """Mean and `widen` times the standard deviation of each entry of data (N, *Y), N of 2 or more."""
        std = widen * y.std(0).clamp_min(torch.finfo(y.dtype).eps)
        return cls(tuple(y.shape[1:]), y.mean(0), std).to(y)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return self.mean + self.std * normal(
            (count, *self.shape), self.mean.dtype, self.mean.device, generator
        )

    def log_density(self, y: Tensor) -> Tensor:
        check_shape("Gaussian noise", y, self.shape)
        terms = -0.5 * ((y - self.mean) / self.std).square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return terms.flatten(1).sum(1)


def check_shape(name: str, y: Tensor, shape: tuple[int, ...]) -> None:
    """Raises UserError unless y is (B, *shape)."""
    if tuple(y.shape[1:]) != shape:
        raise UserError(f"{name}: y must be (batch, {', '.join(map(str, shape))}), got {tuple(y.shape)}")
