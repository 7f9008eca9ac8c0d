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
BEYOND = 7  # tokens: room for the last word's, where words are hidden


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
            so that no step waits for the device; 7 more for words.
        unit: what is hidden together: a token, a word (needs ``word_starts``), or a span of tokens whose
            length is geometric with a mean of 3.8 (where fewer tokens are hidden: one span of all). Words are
            hidden whole, each as often as any other, so their tokens have that number on average; a word that
            does not fit, which has more than 8 tokens, stays, and one of more than M is hidden in parts of 8.
        masked, random: shares of the hidden tokens that become [MASK], and a random token.

    Raises:
        UserError: a setting out of its range.

    Source: Devlin et al., "BERT" (2019); Joshi et al., "SpanBERT" (2020); Wettig et al., "Should you mask 15%
    in masked language modeling?" (2023) for higher ratios; spans: Raffel et al., "Exploring the limits of
    transfer learning with a unified text-to-text transformer" (2020).
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
        length = tokens.shape[1]
        count = max(1, round(self.ratio * length))
        if isinstance(vocabulary, int):
            vocabulary = SpecialTokens().ordinary(vocabulary).to(tokens.device)
        free = vocabulary[tokens]
        wanted = self._wanted(tokens, count, pad)
        place = torch.arange(length, device=tokens.device)
        if self.unit == "token":
            score = torch.where(free, self._uniform(tokens, generator), -1.0)
            best, positions = score.topk(count, dim=1)
            counts = (best >= 0) & (place[:count] < wanted)
        else:
            if self.unit == "word":
                count = min(length, count + BEYOND)
                hidden = self._words(tokens, free, word_starts, wanted, count, generator)
            else:
                hidden = self._spans(tokens, free, wanted, generator)
            score = torch.where(hidden, length - place, -1 - place).float()
            best, positions = score.topk(count, dim=1)
            counts = best > 0
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

    def _words(
        self,
        tokens: Tensor,
        free: Tensor,
        word_starts: Tensor | None,
        wanted: Tensor,
        room: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Which tokens are hidden, (B, T) bool: whole words of (B, 1) `wanted` tokens on average, of at most
        `room`.

        The words are put in a row in random order, and those are hidden that begin among so many tokens from
        a random one on (the first word follows the last one): so each is hidden as often as any other,
        whatever its length, where one that must end among them would be hidden the less often the longer it
        is.
        """
        if word_starts is None:
            raise UserError("masking whole words needs to know where they begin: the tokenizer's word_starts")
        place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        begins = word_starts[tokens]
        begins[:, 0] = True  # the sequence may begin inside of a word
        begins |= ~free  # a special token ends a word
        begins[:, 1:] |= ~free[:, :-1]
        inside = place - _begin(begins)
        begins |= (_sizes(begins) > room) & (inside % (BEYOND + 1) == 0)
        score = self._uniform(tokens, generator).gather(1, begins.cumsum(1) - 1)
        order = score.masked_fill(~free, 2.0).argsort(dim=1, stable=True)  # (B, T), words in a row
        number = free.sum(1, keepdim=True)
        first = (self._uniform(tokens[:, :1], generator) * number).long()
        after = (_begin(begins.gather(1, order)) - first).remainder(number.clamp_min(1))
        chosen = (after < wanted) & (place < number)
        before = after.masked_fill(~chosen, tokens.shape[1]).amin(1, keepdim=True)
        chosen &= after + _sizes(begins).gather(1, order) - before <= room
        return torch.zeros_like(free).scatter(1, order, chosen)

    def _spans(
        self, tokens: Tensor, free: Tensor, wanted: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Which tokens are hidden, (B, T) bool: (B, 1) `wanted`, in spans.

        As many tokens as are hidden are cut into spans, and these are put among the others at random, as in
        T5; all is then turned by a random number of places, so that each place is hidden as often as any
        other. A span that comes to lie over a special token, or over the end, is two. So many fewer are cut
        that the expected number of all is that of tokens divided by `SPAN_MEAN`.
        """
        place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        number = free.sum(1, keepdim=True)
        wanted = wanted.minimum(number)
        parts = number - (free[:, 1:] & free[:, :-1]).sum(1, keepdim=True)  # of the text
        spans = wanted * (number / SPAN_MEAN - parts) / (number - parts).clamp_min(1)
        cut = (spans - 1) / (wanted - 1).clamp_min(1)  # how likely a span ends after a token
        begins = (self._uniform(tokens, generator) < cut) | (place == 0) | (place >= wanted)
        score = self._uniform(tokens, generator).gather(1, begins.cumsum(1) - 1)
        order = score.masked_fill(place >= number, 2.0).argsort(dim=1, stable=True)
        turn = (self._uniform(tokens[:, :1], generator) * number).long()
        rank = (free.cumsum(1) - 1 + turn).remainder(number.clamp_min(1))
        return (order < wanted).gather(1, rank) & free

    @staticmethod
    def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
        return uniform(tuple(like.shape), torch.float32, like.device, generator)


def _nth(ordinary: Tensor, share: Tensor) -> Tensor:
    """The ordinary token that so large a share of them, in [0, 1), lies below; without waiting for their
    number, as `nonzero` does."""
    rank = ordinary.long().cumsum(0)  # (V,)
    return torch.searchsorted(rank, (share * rank[-1]).long() + 1)


def _begin(begins: Tensor) -> Tensor:
    """Where the unit of each place begins: (B, T) bool, the first True -> (B, T) int64."""
    unit = begins.cumsum(1) - 1
    place = torch.arange(begins.shape[1], device=begins.device) * begins
    return torch.zeros_like(unit).scatter_add(1, unit, place).gather(1, unit)


def _sizes(begins: Tensor) -> Tensor:
    """How many places the unit of each place has: (B, T) bool -> (B, T) int64."""
    unit = begins.cumsum(1) - 1
    return torch.zeros_like(unit).scatter_add(1, unit, torch.ones_like(unit)).gather(1, unit)
