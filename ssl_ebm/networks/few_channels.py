"""A convolution of pictures, with few channels, whose gradient in the picture is fast on a processor."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

Pair = tuple[int, int]

LANES = 16  # float32 numbers that a processor multiplies at once


def input_gradient(gradient: Tensor, weight: Tensor, size: Pair, stride: Pair, padding: Pair) -> Tensor:
    """The gradient of `torch.nn.functional.conv2d` in its input, as one convolution over its output.

    A block of the picture, `stride` pixels high and wide or a multiple of it, depends on a window of the
    output, through weights that are the same for every block. They are those of a convolution whose channels
    are the block's numbers, colours among them: enough of them to fill the processor's lanes.

    Args:
        gradient: of the output, (B, O, h, w).
        weight: (O, C, kh, kw), with one group and no dilation.
        size: (H, W) of the input.
        stride, padding: of the convolution, in rows and columns.

    Returns:
        (B, C, H, W). It can be differentiated in `gradient` and `weight`, any number of times.
    """
    channels = weight.shape[1]
    repeats = [1, 1]
    while channels * repeats[0] * stride[0] * repeats[1] * stride[1] < LANES:
        repeats[int(repeats[0] > repeats[1])] *= 2
    # The compiler knows no cache; and what is made where tensors have shapes alone is not for others.
    real = type(gradient) is Tensor and not torch.compiler.is_compiling()
    taps_of = _kept_taps if real else _taps
    plans = [
        taps_of(*dimension, weight.device)
        for dimension in zip(weight.shape[2:], stride, padding, repeats, strict=True)
    ]
    (rows, before), (columns, left) = plans
    taps = F.pad(weight, (0, 1, 0, 1))[:, :, rows[:, :, None, None], columns]  # (O, C, mh, bh, mw, bw)
    outputs, _, mh, high, mw, wide = taps.shape
    kernel = taps.permute(1, 3, 5, 0, 2, 4).reshape(channels * high * wide, outputs, mh, mw)
    down, across = -(-size[0] // high), -(-size[1] // wide)  # blocks
    below = (down - 1) * repeats[0] - before + mh - gradient.shape[2]
    right = (across - 1) * repeats[1] - left + mw - gradient.shape[3]
    if (before, left) == (below, right) and min(before, left) >= 0:  # saves a copy
        made = F.conv2d(gradient, kernel, None, repeats, (before, left))
    else:
        made = F.conv2d(F.pad(gradient, (left, right, before, below)), kernel, None, repeats)
    blocks = made.view(len(made), channels, high, wide, down, across).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(len(made), channels, down * high, across * wide)[..., : size[0], : size[1]]


def _taps(side: int, stride: int, padding: int, repeats: int, device: torch.device) -> tuple[Tensor, int]:
    """Which entry of a kernel leads from a pixel of a block to a number of the output, in one dimension.

    Output q sees pixel i through entry k = i + padding - stride q.

    Returns:
        k (outputs seen, pixels of a block), `side` where there is none; and how many of the outputs that the
        first block sees would lie before the first one.
    """
    block = repeats * stride
    first, last = -((side - 1 - padding) // stride), (block - 1 + padding) // stride
    outputs = torch.arange(first, last + 1, device=device)[:, None]
    entry = torch.arange(block, device=device) + padding - stride * outputs
    return entry.where((entry >= 0) & (entry < side), side), -first


_kept_taps = lru_cache(maxsize=256)(_taps)


class _ByBlocks(torch.autograd.Function):
    """A convolution whose gradient in x is `input_gradient`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        size = (x.shape[2], x.shape[3])
        return (
            input_gradient(gradient, weight, size, stride, padding) if of_x else None,
            conv2d_weight(x, list(weight.shape), gradient, stride, padding) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


class FewChannelConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` of pictures, for energies whose gradient in the picture is wanted.

    On a processor oneDNN's gradient in an input of one channel costs five times `input_gradient`, of three
    channels twice. The gradient has gradients of every order.
    """

    def forward(self, x: Tensor) -> Tensor:
        simple = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if (
            x.requires_grad
            and x.ndim == 4
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype
            and simple
            and not isinstance(self.padding, str)
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_exporting()
        ):
            made: Tensor = _ByBlocks.apply(x, self.weight, self.bias, self.stride, self.padding)
            return made
        return super().forward(x)
