"""What a set of sampled frames is worth against the one frame that came: errors, best of K, sharpness,
diversity."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def squared_error(samples: Tensor, target: Tensor) -> Tensor:
    """Squared error of each sample, summed over channels and pixels: (B, S, C, H, W), (B, C, H, W) -> (B,
    S)."""
    return (samples - target.unsqueeze(1)).square().flatten(2).sum(dim=2)


def gradient_energy(frames: Tensor, where: Tensor | None = None) -> Tensor:
    """Sum of squared differences of horizontal and of vertical neighbours: (..., C, H, W) -> (...).

    The ratio of a prediction's to the true frame's is 1 for a sharp prediction, below it for a blurred one,
    above it for a noisy one (a necessary condition of realism, not a sufficient one).

    Args:
        where: (..., 1, H, W) bool; only pairs of which one pixel at least is True count. None: all.
    """
    across = (frames[..., :, 1:] - frames[..., :, :-1]).square()
    down = (frames[..., 1:, :] - frames[..., :-1, :]).square()
    if where is not None:
        across = across * (where[..., :, 1:] | where[..., :, :-1])
        down = down * (where[..., 1:, :] | where[..., :-1, :])
    return across.flatten(-3).sum(dim=-1) + down.flatten(-3).sum(dim=-1)


def diversity(samples: Tensor) -> Tensor:
    """Mean squared distance between two different samples of a clip, per pixel value: (B, S, C, H, W) ->
    (B,).

    By the variance identity: the mean over ordered pairs of ``|s_a - s_b|^2`` is twice the unbiased
        variance. NaN for one sample.
    """
    if samples.shape[1] < 2:
        return samples.new_full((len(samples),), float("nan"))
    away = samples - samples.mean(dim=1, keepdim=True)
    return 2.0 * away.square_().flatten(2).mean(dim=2).sum(dim=1) / (samples.shape[1] - 1)


def subset_weights(samples: int, k: int) -> Tensor:
    """P(the best of a random subset of size k is the r-th best of all samples), r = 1..samples: (samples,),
    float64.

    Hypergeometric: ``C(samples - r, k - 1) / C(samples, k)``.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"best of {k} needs between 1 and {samples} samples")
    rank = torch.arange(1, samples + 1, dtype=torch.float64)
    left = samples - rank - (k - 1)  # worse ones that are not in the subset; below 0 no such subset exists
    possible = left >= 0
    log_count = torch.lgamma(samples - rank + 1) - math.lgamma(k) - torch.lgamma(left.clamp_min(0) + 1)
    total = math.lgamma(samples + 1) - math.lgamma(k + 1) - math.lgamma(samples - k + 1)
    return torch.where(possible, torch.exp(log_count - total), torch.zeros_like(rank))


def expected_best(values: Tensor, k: int, largest: bool = False) -> Tensor:
    """Expected minimum (maximum if ``largest``) of k of the S values, drawn without replacement: (..., S) ->
    (...).

    The mean over all subsets of size k: the unbiased estimate of best-of-k, of far less variance than the
    first k samples. k = 1 is the mean over samples, k = S the plain minimum.
    """
    ordered = values.double().sort(dim=-1, descending=largest).values
    return ordered @ subset_weights(values.shape[-1], k).to(ordered.device)


def best_in_a_row(values: Tensor, k: int, largest: bool = False) -> Tensor:
    """Expected minimum (maximum if ``largest``) of k of the S values, in a row: (..., S) -> (...).

    The mean over all S - k + 1 such rows. Where draws depend on those before them, this is what a call for k
    gives, and `expected_best` is not; where they do not, both estimate the same.
    """
    rows = values.double().unfold(-1, k, 1)  # (..., S - k + 1, k)
    return (rows.amax(-1) if largest else rows.amin(-1)).mean(-1)
