"""``ssl-ebm fill`` and ``ssl-ebm score``: what a masked text autoencoder says of a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_ebm.data.special_tokens import MASK, SPECIAL
from ssl_ebm.data.text_files import is_unicode
from ssl_ebm.data.tokenizing import read_tokenizer
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.text_examples import Reader
from ssl_ebm.tasks.checkpoints import load_task
from ssl_ebm.tasks.fillings import complete
from ssl_ebm.tasks.masked_text import MaskedText


@dataclass(frozen=True)
class Filling:
    """One way to fill all masks of a text.

    Attributes:
        of: the text as it was given.
        text: with the masks filled in.
        words: what stands at each mask, in order.
        probability: of all of them together.
    """

    of: str
    text: str
    words: tuple[str, ...]
    probability: float


@dataclass(frozen=True)
class Score:
    """How likely a text is to the model.

    Attributes:
        text: that was scored.
        log_likelihood: its pseudo-log-likelihood, in nats.
        tokens: how many were scored.
    """

    text: str
    log_likelihood: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(-log_likelihood / tokens)."""
        return float(torch.tensor(-self.log_likelihood / self.tokens).exp())


class TextModel:
    """A checkpoint of `MaskedText` with its tokenizer.

    Raises:
        UserError: no such checkpoint, or one without a tokenizer.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.task = load_task(checkpoint, MaskedText)
        if self.task.tokenizer_json is None:
            raise UserError(f"{checkpoint} holds no tokenizer: it was not trained on text")
        self.tokenizer: Any = read_tokenizer(self.task.tokenizer_json)
        self.reader = Reader(self.task.tokenizer_json)
        self.mask = str(self.task.special.names[MASK])
        added = self.tokenizer.get_added_tokens_decoder()
        #: Whether [MASK] takes the place of the space before it, too.
        self.takes_space = getattr(added.get(self.task.special.mask), "lstrip", False)

    def tokens_of(self, text: str) -> Tensor:
        """(T,) int64, between [CLS] and [SEP]; [MASK] in the text is one, whatever the tokenizer calls it.

        Raises:
            UserError: no token but special ones, or more than the network reads; bytes that are no UTF-8.
        """
        if not is_unicode(text):
            raise UserError("the text holds bytes that are no UTF-8: give it in UTF-8")
        special = self.task.special
        text = text.replace(SPECIAL[MASK], self.mask)
        ids = [special.cls, *self.tokenizer.encode(text, add_special_tokens=False).ids, special.sep]
        longest = self.task.network.length
        if len(ids) > longest:
            raise UserError(
                f"the text has {len(ids)} tokens, with [CLS] and [SEP], and this model reads {longest}: "
                "shorten it"
            )
        if len(ids) == 2:
            raise UserError("the text is empty: give one with words")
        return torch.tensor(ids)

    def fill(self, text: str, top: int = 5) -> list[Filling]:
        """The `top` likeliest fillings of all [MASK]; see `complete` for several.

        Raises:
            UserError: no [MASK], top below 1, or as `tokens_of`.
        """
        if top < 1:
            raise UserError(f"top is {top}: use at least 1")
        tokens = self.tokens_of(text)
        places = (tokens == self.task.special.mask).nonzero()[:, 0].tolist()
        texts, log_p = complete(self.task, tokens, beam=top if len(places) == 1 else max(top, 20))
        found = []
        for filled, one in zip(texts.tolist()[:top], log_p.tolist(), strict=False):
            tokens_there = [filled[place] for place in places]
            words = tuple(self.reader.word(token) for token in tokens_there)
            probability = float(torch.tensor(one).exp())
            found.append(Filling(text, self._in_place(text, tokens_there), words, probability))
        return found

    def score(self, text: str) -> Score:
        """Pseudo-log-likelihood of a text, each token given all others.

        Raises:
            UserError: no token that could be scored, or as `tokens_of`.
        """
        tokens = self.tokens_of(text)
        count = int(self.task.ordinary[tokens].sum())
        if not count:
            raise UserError("the text has no token that could be scored: it is not of this vocabulary")
        return Score(text, float(self.task.pseudo_log_likelihood(tokens[None])), count)

    def _in_place(self, text: str, tokens: list[int]) -> str:
        """The text as it was written, with a token at each mask; one that goes on a word joins it."""
        made, *others = text.replace(SPECIAL[MASK], self.mask).split(self.mask)
        for token, piece, after in zip(tokens, self.reader.pieces(tokens), others, strict=True):
            if self.reader.by_words:
                goes_on = not piece.startswith(" ")
                made = (made.rstrip() + piece if goes_on else made + self.reader.word(token)) + after
            else:
                made = made.rstrip() if self.takes_space else made
                made += (piece if made else piece.lstrip()) + after
        return made
