"""The transformer block of images and text: timm's, with rotary positions and an order of BERT's as options.

On a processor, PyTorch's own choices make the blocks twice as slow as they can be; two of them are made here:

- float32 matrices are multiplied by oneDNN (see `ssl_ebm.networks.onednn`);
- `attend` spells attention out in bfloat16, where the backward of the fused kernel takes most of a step.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from timm.models import vision_transformer as timm_vit
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ssl_ebm.networks.onednn import linear

Turn = tuple[Tensor, Tensor]  # cosines and sines, (T, D / 2) each


def rotary(length: int, width: int, base: float = 10_000.0) -> Turn:
    """Angles of rotary positions: cos and sin of t base^(-2 i / D), (T, D / 2) each.

    Args:
        length: T.
        width: D of a head, even.

    Source: Su et al., "RoFormer: enhanced transformer with rotary position embedding" (2021).
    """
    rates = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), rates)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """Turns the pair (x_i, x_(i + D/2)) at place t by the angle t, i: (B, heads, T, D) -> the same.

    So the product of a query and a key depends on the distance of their places alone.
    """
    cos, sin = (one.to(x.dtype) for one in turn)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
    """softmax(query key^T / sqrt(D)) value, each (B, heads, T, D).

    Args:
        seen: bool, broadcast to (B, heads, T, T): which keys a query looks at; None: all.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return scaled_dot_product_attention(query, key, value, attn_mask=seen)
    b, heads, t, d = query.shape
    q, k, v = (one.reshape(b * heads, t, d) for one in (query, key, value))
    nothing = q.new_zeros(1, 1, 1).expand(b * heads, t, t)
    weights = torch.baddbmm(nothing, q, k.transpose(1, 2), beta=0, alpha=d**-0.5)  # scaled in float32
    if seen is not None:
        weights = weights.view(b, heads, t, t).masked_fill(~seen, -math.inf).view(b * heads, t, t)
    return (weights.softmax(-1) @ v).view(b, heads, t, d)


class Block(timm_vit.Block):
    """timm's block, the same parameters and results, by `linear` and `attend`."""

    def forward(  # type: ignore[override]
        self, x: Tensor, attn_mask: Tensor | None = None, turn: Turn | None = None
    ) -> Tensor:
        """Tokens (B, T, width) -> (B, T, width).

        Args:
            attn_mask: bool, broadcast to (B, heads, T, T): which tokens a token looks at; None: all.
            turn: what positions do to queries and keys, see `rotary`; None: nothing.
        """
        x = x + self.mix(self.norm1(x), attn_mask, turn)
        return x + self.think(self.norm2(x))

    def mix(self, x: Tensor, seen: Tensor | None, turn: Turn | None) -> Tensor:
        """Attention: (B, T, width) -> (B, T, width)."""
        attention = cast(Any, self.attn)
        qkv = linear(attention.qkv, x).unflatten(2, (3, attention.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, D)
        if turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)
        return linear(attention.proj, attend(query, key, value, seen).transpose(1, 2).flatten(2))

    def think(self, x: Tensor) -> Tensor:
        """The perceptron of each token: (B, T, width) -> (B, T, width)."""
        mlp = cast(Any, self.mlp)
        return linear(mlp.fc2, mlp.act(linear(mlp.fc1, x)))


class PostNormBlock(Block):
    """The same parts in BERT's order: each sum is normalised after it is made.

    Source: Devlin et al., "BERT" (2019).
    """

    def forward(  # type: ignore[override]
        self, x: Tensor, attn_mask: Tensor | None = None, turn: Turn | None = None
    ) -> Tensor:
        """As `Block.forward`."""
        x = self.norm1(x + self.mix(x, attn_mask, turn))
        made: Tensor = self.norm2(x + self.think(x))
        return made
