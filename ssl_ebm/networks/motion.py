"""Shifting pictures, and measuring how they shifted."""

import torch
import torch.nn.functional as F
from torch import Tensor


def shifts(radius: int) -> int:
    """Number of displacements of at most `radius` pixels along each axis: (2 radius + 1)^2."""
    return (2 * radius + 1) ** 2


def shifted(pictures: Tensor, radius: int) -> Tensor:
    """Every displaced copy of the pictures: (B, D, H, W) -> (B, D, shifts, H, W); zeros come in at the edges.

    Copy s holds `pictures[..., i - a, j - b]` at (i, j), the picture moved by a down and b to the right, with
    (a, b) = `displacements(radius)[s]`.
    """
    batch, depth, height, width = pictures.shape
    copies = F.unfold(F.pad(pictures, (radius,) * 4), 2 * radius + 1)
    return copies.view(batch, depth, shifts(radius), height, width)


def displacements(radius: int) -> Tensor:
    """(shifts, 2) int64: how far each copy of `shifted` has moved, (down, right), from (radius, radius) to
    (-radius, -radius)."""
    steps = torch.arange(radius, -radius - 1, -1)
    return torch.cartesian_prod(steps, steps)


@torch.no_grad()
def block_matching(before: Tensor, after: Tensor, radius: int, cell: int) -> Tensor:
    """How badly each displacement explains each block of `after`, as in a video codec.

        cost[s, block] = sum over the block's pixels, mean over channels, of (shift_s(before) - after)^2

    Args:
        before, after: (B, C, H, W), H and W multiples of `cell`.
        radius: largest displacement, pixels.
        cell: side of a block, pixels.

    Returns:
        (B, shifts, H / cell, W / cell), without gradient.
    """
    difference = shifted(before, radius) - after[:, :, None]  # (B, C, shifts, H, W)
    return F.avg_pool2d(difference.square_().mean(1), cell) * cell**2
