"""A transformer that reads text both ways, and what it says of a hidden token."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from ssl_ebm.errors import UserError
from ssl_ebm.networks.onednn import linear
from ssl_ebm.networks.transformer import Block, PostNormBlock, Turn, rotary


class TextEncoder(nn.Module):
    """Tokens to features of each, and features to scores of what a token is.

    By default a pre-norm transformer with rotary positions, which learn fast where there is little text. With
    ``norm="post"`` and ``positions="learnt"`` it is BERT, and its weights go to and from `transformers`: see
    `ssl_ebm.networks.bert`.

        logits(h) = LayerNorm(GELU(A h)) W^T + b,    W the table of token embeddings

    Args:
        vocabulary: V, number of tokens.
        width: of a token's features, a multiple of the heads.
        depth: blocks.
        heads: of the attention; rotary positions need an even width of each.
        length: T, most tokens of a sequence.
        positions: rotary, or learnt and added to the embeddings.
        norm: pre or post.
        ratio: width of the perceptrons, in widths.

    Raises:
        UserError: a setting out of its range.

    Source: Vaswani et al., "Attention is all you need" (2017); Devlin et al., "BERT" (2019); Su et al.,
    "RoFormer" (2021).
    """

    cosines: Tensor
    sines: Tensor

    def __init__(
        self,
        vocabulary: int = 8192,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        length: int = 128,
        positions: Literal["rotary", "learnt"] = "rotary",
        norm: Literal["pre", "post"] = "pre",
        ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if min(vocabulary, width, depth, heads, length) < 1 or not ratio > 0:
            raise UserError(
                f"TextEncoder: vocabulary {vocabulary}, width {width}, depth {depth}, heads {heads}, length "
                f"{length}: use at least 1; ratio {ratio}: use a number above 0"
            )
        if width % heads or (positions == "rotary" and width // heads % 2):
            raise UserError(
                f"TextEncoder: a width of {width} with {heads} heads: use a multiple of them, and for rotary "
                "positions of twice as many"
            )
        self.vocabulary, self.width, self.length = vocabulary, width, length
        self.heads, self.positions, self.norm_order = heads, positions, norm
        layer_norm: Any = partial(nn.LayerNorm, eps=1e-12 if norm == "post" else 1e-6)
        self.tokens = nn.Embedding(vocabulary, width)
        self.learnt = nn.Embedding(length, width) if positions == "learnt" else None
        if positions == "rotary":
            cosines, sines = rotary(length, width // heads)
            self.register_buffer("cosines", cosines, persistent=False)
            self.register_buffer("sines", sines, persistent=False)
        block = PostNormBlock if norm == "post" else Block
        self.blocks = nn.ModuleList(
            block(width, heads, mlp_ratio=ratio, qkv_bias=True, norm_layer=layer_norm) for _ in range(depth)
        )
        # Before the blocks where they normalise their sums, after them where they do not.
        self.norm = layer_norm(width)
        self.transform = nn.Linear(width, width)
        self.transform_norm = layer_norm(width)
        self.scores = nn.Linear(width, vocabulary)
        self.apply(_start)
        self.scores.weight = self.tokens.weight

    def forward(self, tokens: Tensor, seen: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Features of every token: (B, T) int64 -> (B, T, width), or (B, M, width) of M places.

        Args:
            seen: (B, T) bool: which tokens are looked at (padding is not); None: all.
            at: (B, M) int64: the places whose features are asked for; the last block leaves out what only
                others need. None: all.

        Raises:
            UserError: a sequence longer than `length`, or tokens of another shape.
        """
        if tokens.ndim != 2 or tokens.shape[1] > self.length:
            raise UserError(
                f"TextEncoder: tokens must be (batch, up to {self.length}), got {tuple(tokens.shape)}"
            )
        x: Tensor = self.tokens(tokens)
        turn: Turn | None = None
        if self.learnt is not None:
            x = x + self.learnt.weight[: tokens.shape[1]]
        else:
            turn = self.cosines[: tokens.shape[1]], self.sines[: tokens.shape[1]]
        if self.norm_order == "post":
            x = self.norm(x)
        mask = None if seen is None else seen[:, None, None]
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, attn_mask=mask, turn=turn)
        x = last(x, attn_mask=mask, turn=turn, at=at)
        return self.norm(x) if self.norm_order == "pre" else x

    def logits(self, features: Tensor) -> Tensor:
        """Scores of every token of the vocabulary: (..., width) -> (..., V)."""
        return linear(self.scores, self.transform_norm(gelu(linear(self.transform, features))))


def _start(module: nn.Module) -> None:
    """BERT's initial weights."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def pooled(features: Tensor, seen: Tensor, pooling: Literal["mean", "first"] = "mean") -> Tensor:
    """Features of a whole sequence: (B, T, width), seen (B, T) bool -> (B, width)."""
    if pooling == "first":
        return features[:, 0]
    weight = seen[..., None].to(features)
    return (features * weight).sum(1) / weight.sum(1).clamp_min(torch.finfo(features.dtype).tiny)


def pooled_windows(features: Tensor, seen: Tensor, pooling: Literal["mean", "first"] = "mean") -> Tensor:
    """Features of sequences in windows: (B, W, T, width), seen (B, W, T) bool -> (B, width).

    The mean over what is seen of all windows, or over the first places of those of which something is.
    """
    if pooling == "first":
        return pooled(features[:, :, 0], seen.any(2))
    return pooled(features.flatten(1, 2), seen.flatten(1))
