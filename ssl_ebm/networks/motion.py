"""Shifting pictures, and measuring how they shifted."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MOTION_SHARPNESS = 2.0  # logits per squared intensity, summed over a part


def shifts(radius: int) -> int:
    """Number of displacements of at most `radius` pixels along each axis: (2 radius + 1)^2."""
    return (2 * radius + 1) ** 2


def shifted(pictures: Tensor, radius: int, continued: bool = False) -> Tensor:
    """Every displaced copy of the pictures: (B, D, H, W) -> (B, D, shifts, H, W).

    Copy s holds `pictures[..., i - a, j - b]` at (i, j), the picture moved by a down and b to the right, with
    (a, b) = `displacements(radius)[s]`. What comes in at the edges are zeros, as for a mask or what it cuts
    out; or, `continued`, the nearest pixels of the picture, as for a frame that shows a part of its scene.
    """
    batch, depth, height, width = pictures.shape
    room = F.pad(pictures, (radius,) * 4, "replicate" if continued else "constant")
    copies = F.unfold(room, 2 * radius + 1)
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

    What comes in over the edges is not known: the frame is continued by its outermost pixels. (Were it black,
    no pan of a bright scene would explain the blocks at the edges.)

    Args:
        before, after: (B, C, H, W), H and W multiples of `cell`.
        radius: largest displacement, pixels.
        cell: side of a block, pixels.

    Returns:
        (B, shifts, H / cell, W / cell), without gradient.
    """
    difference = shifted(before, radius, continued=True) - after[:, :, None]  # (B, C, shifts, H, W)
    return F.avg_pool2d(difference.square_().mean(1), cell) * cell**2


def part_motions(weight: Tensor, cost: Tensor) -> Tensor:
    """How each part of the frame has moved, as a distribution over displacements.

        motions[part] = softmax_s(-MOTION_SHARPNESS sum over blocks of weight[part, block] cost[s, block])

    Args:
        weight: share of each block that belongs to the part, (B, parts, h, w).
        cost: of `block_matching`, (B, shifts, h, w).

    Returns:
        (B, parts, shifts).
    """
    return (-MOTION_SHARPNESS * torch.einsum("bmhw,bshw->bms", weight, cost)).softmax(-1)


def moved_by(pictures: Tensor, motions: Tensor) -> Tensor:
    """Each picture moved as a whole by its distribution over displacements: the mean of its copies.

    Args:
        pictures: (B, M, C, H, W).
        motions: (B, M, shifts), in the order of `displacements`.

    Returns:
        (B, M, C, H, W); zeros come in at the edges.
    """
    if torch.compiler.is_exporting():  # ONNX knows no convolution of a number of groups that is an input's
        copies = shifted(pictures.flatten(0, 1), math.isqrt(motions.shape[-1]) // 2)  # (B M, C, shifts, H, W)
        return (copies * motions.flatten(0, 1)[:, None, :, None, None]).sum(2).view_as(pictures)
    batch, parts, colours, height, width = pictures.shape
    side = math.isqrt(motions.shape[-1])
    kernels = motions.reshape(batch * parts, 1, side, side).repeat_interleave(colours, 0)
    flat = pictures.reshape(1, batch * parts * colours, height, width)
    return F.conv2d(flat, kernels, padding=side // 2, groups=flat.shape[1]).view_as(pictures)
