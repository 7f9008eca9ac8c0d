"""Texts of a split with what a masked text autoencoder says of them: to be looked at, not to be averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ssl_ebm.data.tokenizing import CONTINUES, in_word_pieces
from ssl_ebm.evaluation.hidden_tokens import spread
from ssl_ebm.tasks.masked_text import MaskedText

AROUND = 12  # tokens shown on either side of a hidden one
TOP = 5  # candidates shown


class Reader:
    """Ids of tokens as text.

    Args:
        tokenizer: as JSON.
    """

    def __init__(self, tokenizer: str) -> None:
        self.tokenizer: Any = Tokenizer.from_str(tokenizer)
        self.by_words = in_word_pieces(self.tokenizer)

    def text(self, ids: list[int]) -> str:
        """Some tokens in a row."""
        return str(self.tokenizer.decode(ids)).strip()

    def word(self, token: int) -> str:
        """One token by itself, without the space before it; a WordPiece that continues a word has its ##."""
        return self.text([token]) or str(self.tokenizer.id_to_token(token))

    def pieces(self, ids: list[int]) -> list[str]:
        """Each token with the space before it, if any."""
        names = [str(self.tokenizer.id_to_token(token)) for token in ids]
        if self.by_words:
            return [name[2:] if name.startswith(CONTINUES) else f" {name}" for name in names]
        texts = [str(self.tokenizer.decode([token])) for token in ids]
        # SentencePiece's decoder leaves out the space before the first token.
        return [
            f" {text}" if name.startswith("▁") and not text.startswith(" ") else text
            for name, text in zip(names, texts, strict=True)
        ]

    def around(self, tokens: list[int], first: int, count: int, special: set[int]) -> tuple[str, str]:
        """What stands before and after some hidden tokens, within their document."""
        before, after = tokens[max(0, first - AROUND) : first], tokens[first + count :][:AROUND]
        while special & set(before):
            before = before[1:]
        while special & set(after):
            after = after[:-1]
        return self.text(before), self.text(after)


def special_ids(task: MaskedText) -> set[int]:
    """Ids that stand for no text."""
    return set((~task.ordinary).nonzero()[:, 0].tolist())


def whole_words(task: MaskedText, tokens: Tensor, count: int = 1) -> list[list[int]]:
    """Places from which so many tokens in a row are a word each, with letters: (N, T) -> N lists."""
    assert task.tokenizer_json is not None
    reader, vocabulary = Reader(task.tokenizer_json), task.network.vocabulary
    known = reader.tokenizer.get_vocab_size()
    letters = [any(one.isalpha() for one in reader.text([token])) for token in range(known)]
    lettered = torch.zeros(vocabulary, dtype=torch.bool)
    lettered[:known] = torch.tensor(letters)
    starts, ordinary = task.word_starts.cpu()[tokens], task.ordinary.cpu()[tokens]
    ends = torch.ones_like(starts)
    ends[:, :-1] = starts[:, 1:] | ~ordinary[:, 1:]
    word = starts & ordinary & ends & lettered[tokens]
    every = word.unfold(1, count, 1).all(2)
    return [row.nonzero()[:, 0].tolist() for row in every]


def fills(task: MaskedText, tokens: Tensor, count: int, seed: int) -> list[dict[str, Any]]:
    """One hidden word in each of some sequences, (N, T).

    Each is {"before", "after", "truth", "energy" of the truth in nats, "top"}: the likeliest tokens with
    their probabilities.
    """
    assert task.tokenizer_json is not None
    reader, special = Reader(task.tokenizer_json), special_ids(task)
    rng = np.random.default_rng(seed)
    found = []
    chosen = tokens[list(spread(count, len(tokens)))]
    for row, places in zip(chosen, whole_words(task, chosen), strict=True):
        if not places:
            continue
        place = int(rng.choice(places))
        hidden = row.clone()
        hidden[place] = task.special.mask
        log_p = task.log_p(hidden[None].to(task.device), place)[0].cpu()
        p, best = log_p.exp().topk(min(TOP, int(task.ordinary.sum())))
        before, after = reader.around(row.tolist(), place, 1, special)
        found.append(
            {
                "before": before,
                "after": after,
                "truth": reader.word(int(row[place])),
                "energy": -float(log_p[row[place]]),
                "top": [
                    [reader.word(token), one] for token, one in zip(best.tolist(), p.tolist(), strict=True)
                ],
            }
        )
    return found


def coloured(task: MaskedText, texts: Tensor, energies: Tensor) -> list[list[list[Any]]]:
    """Tokens as text with their energies in nats, (N, T) each."""
    assert task.tokenizer_json is not None
    reader = Reader(task.tokenizer_json)
    return [
        [[piece, nats] for piece, nats in zip(reader.pieces(ids), values, strict=True)]
        for ids, values in zip(texts.tolist(), energies.tolist(), strict=True)
    ]
