"""Structural similarity (SSIM) of many samples to one target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Wang, Bovik, Sheikh, Simoncelli: Image quality assessment: from error visibility to structural similarity,
# IEEE TIP 2004: Gaussian window of 11 pixels with sigma 1.5, stabilisers (0.01 L)^2 and (0.03 L)^2 for
# frames of range L = 1.
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def window_matrix(
    size: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """The Gaussian window along one axis as a matrix (size, size), reflected borders folded in."""
    half = WINDOW // 2
    if size <= half:
        raise ValueError(f"SSIM needs frames of more than {half} pixels a side, got {size}")
    offsets = torch.arange(-half, half + 1, dtype=torch.float64)
    window = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    window = window / window.sum()
    borders = F.pad(torch.eye(size, dtype=torch.float64)[None], (half, half), mode="reflect")[
        0
    ]  # (size, size + 10)
    return (borders.unfold(1, WINDOW, 1) @ window).T.to(device=device, dtype=dtype)


def structural_similarity(samples: Tensor, target: Tensor, where: Tensor | None = None) -> Tensor:
    """SSIM of every sample to its target; 1 is equality.

    Args:
        samples, target: see below.
        where: (B, 1, H, W) bool: the mean is over these pixels alone. None: over all.

    ``samples`` (B, S, C, H, W) and ``target`` (B, C, H, W) in [0, 1] -> (B, S).

    Equal to torchmetrics' ``structural_similarity_index_measure(data_range=1)`` image by image (asserted in
    the tests), which
    convolves with the full 11 x 11 window and filters the same target again for each sample: 0.3 ms a 32 x
    32 frame on one core, a minute and more for a table of 100 samples a clip. The window is separable, so
    that filtering is two small matrix products here, and the target's moments are computed once.
    """
    down = window_matrix(samples.shape[-2], samples.dtype, samples.device)
    across = window_matrix(samples.shape[-1], samples.dtype, samples.device).T

    def blur(frames: Tensor) -> Tensor:
        return down @ (frames @ across)

    target = target.unsqueeze(1)  # (B, 1, C, H, W)
    mean_t, mean_s = blur(target), blur(samples)
    var_t = (blur(target * target) - mean_t * mean_t).clamp_min(0.0)
    var_s = (blur(samples * samples) - mean_s * mean_s).clamp_min(0.0)
    product = mean_s * mean_t
    covariance = blur(samples * target) - product
    numerator = (2.0 * product + C1) * (2.0 * covariance + C2)
    denominator = (mean_s * mean_s + mean_t * mean_t + C1) * (var_s + var_t + C2)
    local = (numerator / denominator).mean(dim=2)  # (B, S, H, W)
    if where is None:
        return local.flatten(2).mean(dim=2)
    weight = where.to(local)  # (B, 1, H, W) stands for (B, S, H, W)
    return (local * weight).flatten(2).sum(dim=2) / weight.flatten(2).sum(dim=2)
