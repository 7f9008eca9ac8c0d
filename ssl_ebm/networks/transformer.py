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

from ssl_ebm.energy.stages import Staged
from ssl_ebm.networks.onednn import linear

Turn = tuple[Tensor, Tensor]  # cosines and sines, each (T, D / 2) or broadcast to (B, heads, T, D / 2)


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
    """Turns a token's pair (x_i, x_(i + D/2)) by the angle i of its place: (B, heads, T, D) -> the same.

    So the product of a query and a key depends on the distance of their places alone.
    """
    cos, sin = (one.to(x.dtype) for one in turn)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def take(x: Tensor, at: Tensor | None) -> Tensor:
    """The tokens at some places: (B, T, width), (B, M) int64 -> (B, M, width); all where `at` is None."""
    return x if at is None else x.gather(1, at[..., None].expand(-1, -1, x.shape[2]))


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
    """softmax(query key^T / sqrt(D)) value: (B, heads, M, D) of M queries (B, heads, M, D) and T keys and
    values (B, heads, T, D).

    Args:
        seen: bool, broadcast to (B, heads, M, T): which keys a query looks at; None: all. One that looks
            at none gets 0.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return scaled_dot_product_attention(query, key, value, attn_mask=seen)
    b, heads, m, d = query.shape
    q, k, v = (one.flatten(0, 1) for one in (query, key, value))
    t = k.shape[1]
    nothing = q.new_zeros(1, 1, 1).expand(b * heads, m, t)
    weights = torch.baddbmm(nothing, q, k.transpose(1, 2), beta=0, alpha=d**-0.5)  # scaled in float32
    if seen is None:
        return (weights.softmax(-1) @ v).view(b, heads, m, d)
    blind = ~seen.any(-1, keepdim=True)  # a softmax of nothing is NaN, and so would its gradient be
    weights = weights.view(b, heads, m, t).masked_fill(~(seen | blind), -math.inf).view(b * heads, m, t)
    made = (weights.softmax(-1) @ v).view(b, heads, m, d)
    # Rare, and a pass over all that is made; what is compiled cannot ask.
    return made.masked_fill(blind, 0) if torch.compiler.is_compiling() or blind.any() else made


class Block(Staged, timm_vit.Block):
    """timm's block, the same parameters and results, by `linear` and `attend`."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        turn: Turn | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Tokens (B, T, width) -> (B, T, width), or (B, M, width) of M places.

        Args:
            attn_mask: bool, broadcast to (B, heads, T, T), with `at` to (B, heads, M, T): which tokens a
                token looks at; None: all.
            turn: what positions do to queries and keys, see `rotary`; None: nothing.
            at: (B, M) int64: the places that are asked for, each of which looks at all T; None: all.
        """
        x = take(x, at) + self.mix(self.norm1(x), attn_mask, turn, at)
        return x + self.think(self.norm2(x))

    def mix(self, x: Tensor, seen: Tensor | None, turn: Turn | None, at: Tensor | None) -> Tensor:
        """Attention: (B, T, width) -> (B, T or M, width)."""
        attention = cast(Any, self.attn)
        if at is None:
            qkv = linear(attention.qkv, x).unflatten(2, (3, attention.num_heads, -1))
            parts = qkv.unbind(2)
        else:
            width = x.shape[2]
            q = linear(attention.qkv, take(x, at), slice(width)).unflatten(2, (attention.num_heads, -1))
            kv = linear(attention.qkv, x, slice(width, None)).unflatten(2, (2, attention.num_heads, -1))
            parts = (q, *kv.unbind(2))
        query, key, value = (one.transpose(1, 2) for one in parts)  # (B, heads, T or M, D)
        if turn is not None:
            cos, sin = turn
            query = rotate(query, turn if at is None else (cos[at][:, None], sin[at][:, None]))
            key = rotate(key, turn)
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
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        turn: Turn | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """As `Block.forward`."""
        x = self.norm1(take(x, at) + self.mix(x, attn_mask, turn, at))
        made: Tensor = self.norm2(x + self.think(x))
        return made
