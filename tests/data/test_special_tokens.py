"""Which tokens are special, by the names of BERT and of RoBERTa; they alone are left out of a draw."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from tokenizers import Tokenizer, models

from ssl_ebm.data.corruption import TokenMasking
from ssl_ebm.data.special_tokens import SPECIAL, SpecialTokens
from ssl_ebm.errors import UserError


def tokenizer(*names: str) -> Tokenizer:
    return Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0]))


def test_names_of_bert_and_of_roberta() -> None:
    assert SpecialTokens.of(tokenizer(*SPECIAL, "a")) == SpecialTokens()
    found = SpecialTokens.of(tokenizer("<s>", "<pad>", "</s>", "<unk>", "a", "<mask>"))
    assert (found.cls, found.pad, found.sep, found.unknown, found.mask) == (0, 1, 2, 3, 5)
    assert found.names == ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    assert found.ordinary(8, known=6).tolist() == [False] * 4 + [True] + [False] * 3
    assert found.bracketed([4, 4, 4, 4], 5) == [0, 4, 4, 4, 2]


def test_bytes_need_no_unknown_token_but_all_others() -> None:
    found = SpecialTokens.of(tokenizer("a", "[PAD]", "[CLS]", "[SEP]", "[MASK]"))
    assert found.unknown is None
    assert found.ordinary(5).tolist() == [True, False, False, False, False]
    with pytest.raises(UserError, match=r"has no token \[MASK\] or <mask>"):
        SpecialTokens.of(tokenizer("a", "[PAD]", "[CLS]", "[SEP]"))


def test_random_tokens_are_drawn_evenly_from_those_of_text() -> None:
    ordinary = torch.zeros(40, dtype=torch.bool)
    ordinary[[1, 2, 7, 30, 31, 39]] = True
    tokens = torch.full((200, 100), 7)
    tokens[:, ::2] = 5  # special
    hidden = TokenMasking(0.5, masked=0.0, random=1.0).hide(
        tokens, ordinary, generator=torch.Generator().manual_seed(0), mask=12
    )
    assert (hidden.positions[hidden.counts] % 2 == 1).all()
    counts = torch.bincount(hidden.tokens.gather(1, hidden.positions)[hidden.counts], minlength=40)
    assert counts[~ordinary].sum() == 0
    total = int(counts.sum())
    assert total == 200 * 50
    expected = torch.full((6,), total / 6)
    chi_square = float(((counts[ordinary] - expected) ** 2 / expected).sum())
    assert chi_square < 20.5  # exceeded by chance once in 1,000 draws, of 5 degrees of freedom
    hidden = TokenMasking(0.2, masked=1.0, random=0.0).hide(tokens, ordinary, mask=12)
    assert (hidden.tokens.gather(1, hidden.positions) == 12).all()


def test_windows_hold_a_document_in_equal_parts() -> None:
    special = SpecialTokens()
    for count in range(40):
        ids = [*range(10, 10 + count)]
        for length, windows in ((8, 1), (8, 3), (9, 7), (3, 2)):
            found = special.in_windows(ids, length, windows)
            inside = [one[1:-1] for one in found]
            assert all(one[0] == special.cls and one[-1] == special.sep for one in found)
            assert [*chain(*inside)] == ids[: windows * (length - 2)]
            assert max(map(len, inside)) <= length - 2
            assert max(map(len, inside)) - min(map(len, inside)) <= 1
            assert len(found) == min(max(1, -(-count // (length - 2))), windows)  # no more than it takes
        assert special.in_windows(ids, 8) == [special.bracketed(ids, 8)]
