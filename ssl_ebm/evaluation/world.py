"""Samples against the truth, where the world's distribution of the next frame is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_ebm.evaluation.protocols import Futures
from ssl_ebm.evaluation.samples import gradient_energy

# A sample hits a future if it is nearer to it than half the distance between the two futures that are
# nearest to
# each other: a quarter in squared distance. So a sample hits at most one future.
THRESHOLD_SHARE = 0.25


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances, summed over pixels: (S, C, H, W), (N, C, H, W) -> (S, N), float64."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2.0 * a @ b.T).clamp_min(0.0)


@dataclass(frozen=True)
class Modes:
    """The distinct next frames of one clip, and how near a sample must come to be one of them."""

    frames: Tensor  # (N, C, H, W)
    probability: Tensor  # (N,), float64, sums to 1
    threshold: float  # squared distance, summed over pixels

    @classmethod
    def of(cls, futures: Futures) -> Modes | None:
        """None for a clip with one future: no distance between futures sets the scale there."""
        frames = futures.frames
        if len(frames) < 2:
            return None
        between = squared_distances(frames, frames)
        between.fill_diagonal_(float("inf"))
        probability = futures.probability.double()
        return cls(frames, probability / probability.sum(), THRESHOLD_SHARE * float(between.min()))

    def score(self, samples: Tensor) -> ModeScores:
        """How samples (S, C, H, W) cover the distribution."""
        nearest, mode = squared_distances(samples, self.frames.to(samples.device)).cpu().min(dim=1)
        # Coverage asks for each future's nearest sample; balls of this radius are disjoint, so a sample
        # within the threshold of a future has that future as its nearest.
        hit = nearest <= self.threshold
        counts = torch.bincount(mode[hit], minlength=len(self.frames)).double()
        return ModeScores(
            coverage=float((counts > 0).double().mean()),
            precision=float(hit.double().mean()),
            total_variation=float(total_variation(counts / len(samples), self.probability.cpu())),
        )


@dataclass(frozen=True)
class ModeScores:
    """Of the samples of one clip, each in [0, 1].

    coverage: share of the distinct futures with a sample within the threshold.
    precision: share of the samples within the threshold of some future.
    total_variation: half the L1 distance between the true probabilities and the samples' frequencies, where
        a sample within no future's threshold counts as a mode of its own, of true probability 0: it is wrong
        mass in full.
    """

    coverage: float
    precision: float
    total_variation: float


def total_variation(frequency: Tensor, probability: Tensor) -> Tensor:
    """``1/2 (sum |p - q| + (1 - sum q))``: (..., N), (N,) -> (...); mass missing from ``frequency`` lies on
    no future."""
    return 0.5 * ((frequency - probability).abs().sum(-1) + 1.0 - frequency.sum(-1))


def posterior_mean(futures: Futures) -> Tensor:
    """E[y | x], the frame (C, H, W) of least expected squared error: what perfect least squares predicts."""
    weight = (futures.probability.double() / futures.probability.double().sum()).to(futures.frames.device)
    return torch.einsum("n,nchw->chw", weight, futures.frames.double()).to(futures.frames.dtype)


@dataclass(frozen=True)
class Bounds:
    """What the best predictors reach on one clip: the exact posterior mean and an exact sampler.

    mean_squared_error: of the posterior mean against the frame that came, summed over pixels.
    mean_gradient: gradient energy of the posterior mean.
    best_squared_error: expected least squared error of K independent exact samples, for each K of
        ``best_of``.
    total_variation, coverage: of ``samples`` exact draws, by simulation; NaN for a clip with one future.
    """

    mean_squared_error: float
    mean_gradient: float
    best_squared_error: tuple[float, ...]
    total_variation: float
    coverage: float


def exact_bounds(
    futures: Futures,
    target: Tensor,
    best_of: Sequence[int],
    samples: int,
    generator: torch.Generator,
    repeats: int = 20,
) -> Bounds:
    """Bounds for the next frame ``target`` (C, H, W) of one clip; ``repeats`` simulations of ``samples``
    draws each."""
    mean = posterior_mean(futures)
    probability = futures.probability.double() / futures.probability.double().sum()
    spread, coverage = float("nan"), float("nan")
    if len(probability) > 1:
        draws = torch.multinomial(probability, samples * repeats, replacement=True, generator=generator)
        counts = torch.zeros(repeats, len(probability), dtype=torch.float64)
        counts.scatter_add_(
            1, draws.view(repeats, samples), torch.ones(repeats, samples, dtype=torch.float64)
        )
        spread = float(total_variation(counts / samples, probability).mean())
        coverage = float((counts > 0).double().mean())
    errors = squared_distances(futures.frames, target[None])[:, 0]
    return Bounds(
        mean_squared_error=float((mean - target).square().sum()),
        mean_gradient=float(gradient_energy(mean)),
        best_squared_error=tuple(_expected_minimum(errors, probability, k) for k in best_of),
        total_variation=spread,
        coverage=coverage,
    )


def _expected_minimum(values: Tensor, probability: Tensor, k: int) -> float:
    """E[min of k independent draws]: ``sum_j v_j (P(v >= v_j)^k - P(v > v_j)^k)``."""
    ordered, order = values.sort()
    at_least = probability[order].flip(0).cumsum(0).flip(0).clamp(0.0, 1.0)
    more = torch.cat([at_least[1:], at_least.new_zeros(1)])
    return float((ordered * (at_least**k - more**k)).sum())
