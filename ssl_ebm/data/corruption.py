"""Hiding tokens of a text: which, and what stands in their place. On the device, nothing waits for it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_ebm.data.special_tokens import MASK, PAD, SpecialTokens
from ssl_ebm.energy.draws import uniform
from ssl_ebm.errors import UserError

Unit = Literal["token", "word", "span"]
SPAN_MEAN = 3.8  # tokens, as in SpanBERT


class Corrupted(NamedTuple):
    """A batch with tokens hidden.

    Attributes:
        tokens: (B, T) int64, what the network sees.
        positions: (B, M) int64, where something is to be predicted.
        truth: (B, M) int64, the tokens that stood there.
        counts: (B, M) bool: a position that is not one (the text has too few tokens to hide, or is shorter
            than the others) is False.
    """

    tokens: Tensor
    positions: Tensor
    truth: Tensor
    counts: Tensor


class TokenMasking:
    """Hides a share of the tokens; special ones stay.

    Of the hidden ones 80 % become [MASK], 10 % a random token, 10 % stay as they are, as in BERT.

    Args:
        ratio: share of a sequence's places, without padding, that is hidden, above 0 and below 1: ratio times
            their number rounded, at least one. M is that of a sequence without padding, for all sequences,
            so that no step waits for the device.
        unit: what is hidden together: a token, a word (needs ``word_starts``), or a span of tokens whose
            length is geometric with a mean of 3.8. A unit that does not fit whole is left out.
        masked, random: shares of the hidden tokens that become [MASK], and a random token.

    Raises:
        UserError: a setting out of its range.

    Source: Devlin et al., "BERT" (2019); Joshi et al., "SpanBERT" (2020); Wettig et al., "Should you mask 15%
    in masked language modeling?" (2023) for higher ratios.
    """

    def __init__(
        self,
        ratio: float = 0.15,
        unit: Unit = "token",
        masked: float = 0.8,
        random: float = 0.1,
    ) -> None:
        if not 0 < ratio < 1:
            raise UserError(f"masking: ratio is {ratio}: use a number above 0 and below 1")
        if not (masked >= 0 and random >= 0 and masked + random <= 1):
            raise UserError(
                f"masking: masked {masked} and random {random}: use shares, 0 or more, of at most 1 in all"
            )
        if unit not in ("token", "word", "span"):
            raise UserError(f"masking: unit is {unit!r}: use token, word or span")
        self.ratio, self.masked, self.random = ratio, masked, random
        self.unit: Unit = unit

    def hide(
        self,
        tokens: Tensor,
        vocabulary: int | Tensor,
        word_starts: Tensor | None = None,
        generator: torch.Generator | None = None,
        mask: int = MASK,
        pad: int = PAD,
    ) -> Corrupted:
        """Hides tokens of a batch.

        Args:
            tokens: (B, T) int64.
            vocabulary: which tokens stand for text, (V,) bool on the device of the tokens: they alone are
                hidden, and drawn at random. V, their number: all but 0 to 4.
            word_starts: (V,) bool, which tokens begin a word; for words alone.
            generator: on the device of the tokens.
            mask, pad: ids of [MASK] and [PAD].

        Raises:
            UserError: words are to be hidden, and it is not known where they begin.
        """
        count = max(1, round(self.ratio * tokens.shape[1]))
        if isinstance(vocabulary, int):
            vocabulary = SpecialTokens().ordinary(vocabulary).to(tokens.device)
        free = vocabulary[tokens]
        unit = self._units(tokens, free, word_starts, generator)  # (B, T), rising from 0
        score = self._uniform(tokens, generator)
        if self.unit != "token":
            score = score.gather(1, unit)  # the same for all tokens of a unit
        score = torch.where(free, score, -1.0)
        best, positions = score.topk(count, dim=1)
        counts = (best >= 0) & (torch.arange(count, device=tokens.device) < self._wanted(tokens, count, pad))
        if self.unit != "token":
            counts &= self._whole(unit, free, positions, counts)
        truth = tokens.gather(1, positions)
        draw = self._uniform(truth, generator)
        other = _nth(vocabulary, self._uniform(truth, generator))
        seen = torch.where(
            draw < self.masked, mask, torch.where(draw < self.masked + self.random, other, truth)
        )
        seen = torch.where(counts, seen, truth)
        return Corrupted(tokens.scatter(1, positions, seen), positions, truth, counts)

    def _wanted(self, tokens: Tensor, count: int, pad: int) -> Tensor:
        """How many tokens of each sequence are hidden, of `count` where none is padding: (B, 1)."""
        places = (tokens != pad).sum(1, keepdim=True)
        wanted = (self.ratio * places).round().long().clamp(1, count)
        return torch.where(places == tokens.shape[1], count, wanted)  # rounded in one precision

    def _units(
        self, tokens: Tensor, free: Tensor, word_starts: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        if self.unit == "token":
            return torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        if self.unit == "word":
            if word_starts is None:
                raise UserError(
                    "masking whole words needs to know where they begin: the tokenizer's word_starts"
                )
            begins = word_starts[tokens]
            begins[:, 0] = True  # the sequence may begin inside of a word
        else:
            begins = self._uniform(tokens, generator) < 1 / SPAN_MEAN
        begins = begins | ~free  # a special token ends a unit
        begins[:, 1:] |= ~free[:, :-1]
        return (begins.cumsum(1) - 1).clamp_min(0)

    def _whole(self, unit: Tensor, free: Tensor, positions: Tensor, counts: Tensor) -> Tensor:
        """Of the tokens that were chosen, those whose unit was chosen whole; all where none was."""
        size = torch.zeros_like(unit).scatter_add(1, unit, free.long())
        chosen = unit.gather(1, positions)
        got = torch.zeros_like(unit).scatter_add(1, chosen, counts.long())
        whole = got.gather(1, chosen) == size.gather(1, chosen)
        return whole | ~(whole & counts).any(1, keepdim=True)

    @staticmethod
    def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
        return uniform(tuple(like.shape), torch.float32, like.device, generator)


def _nth(ordinary: Tensor, share: Tensor) -> Tensor:
    """The ordinary token that so large a share of them, in [0, 1), lies below; without waiting for their
    number, as `nonzero` does."""
    rank = ordinary.long().cumsum(0)  # (V,)
    return torch.searchsorted(rank, (share * rank[-1]).long() + 1)
