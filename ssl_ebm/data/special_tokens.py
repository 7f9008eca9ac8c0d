"""The tokens that stand for no text: which ids they have in a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ssl_ebm.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4 of a tokenizer that is trained here
PAD, UNKNOWN, CLS, SEP, MASK = range(len(SPECIAL))
OTHERS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")  # RoBERTa's names of the same


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens of a vocabulary.

    Attributes:
        pad: stands where a document has ended; nothing looks at it.
        unknown: of a word without tokens; None where every text has some (bytes).
        cls, sep: before and after a document.
        mask: in place of a hidden token.
        names: of all of them in this order, None where there is none.
    """

    pad: int = PAD
    unknown: int | None = UNKNOWN
    cls: int = CLS
    sep: int = SEP
    mask: int = MASK
    names: tuple[str | None, ...] = SPECIAL

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialTokens:
        """Those of a tokenizer, by the names of BERT or of RoBERTa.

        Raises:
            UserError: one is missing.
        """
        ids: list[int | None] = []
        names: list[str | None] = []
        for choice in zip(SPECIAL, OTHERS, strict=True):
            known = [name for name in choice if tokenizer.token_to_id(name) is not None]
            if not known and choice[0] != SPECIAL[UNKNOWN]:
                raise UserError(
                    f"the tokenizer has no token {' or '.join(choice)}: give one with BERT's or RoBERTa's "
                    "special tokens"
                )
            names.append(known[0] if known else None)
            ids.append(tokenizer.token_to_id(known[0]) if known else None)
        pad, unknown, first, last, mask = ids
        return cls(pad, unknown, first, last, mask, tuple(names))  # type: ignore[arg-type]

    def ordinary(self, vocabulary: int, known: int | None = None) -> Tensor:
        """Which tokens stand for text: (vocabulary,) bool.

        Args:
            known: tokens of the tokenizer, where a network has room for more; they stand for nothing.
        """
        found = torch.arange(vocabulary) < (vocabulary if known is None else known)
        special = (self.pad, self.unknown, self.cls, self.sep, self.mask)
        found[[one for one in special if one is not None and one < vocabulary]] = False
        return found

    def bracketed(self, ids: list[int], length: int) -> list[int]:
        """[CLS] the first of a document's tokens [SEP]: at most `length` in all."""
        return [self.cls, *ids[: length - 2], self.sep]

    def in_windows(self, ids: Sequence[int], length: int, windows: int = 1) -> list[list[int]]:
        """The first of a document's tokens in as few windows as hold them, each [CLS] ... [SEP].

        Windows have as many tokens as each other, to one; one alone is `bracketed`.

        Args:
            ids: of the document, without special tokens.
            length: tokens of a window, at most.
            windows: at most.
        """
        kept = ids[: windows * (length - 2)]
        count = max(1, -(-len(kept) // (length - 2)))
        edges = [len(kept) * i // count for i in range(count + 1)]
        return [self.bracketed(list(kept[start:end]), length) for start, end in pairwise(edges)]
