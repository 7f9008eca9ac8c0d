"""Trained tokenizers: ids of special tokens, round trips, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_ebm.data.corruption import MASK, SPECIAL
from ssl_ebm.data.tokenizing import Kind, load_tokenizer, train_tokenizer, word_starts
from ssl_ebm.errors import UserError

TEXTS = ["the cat sat on the mat", "a dog sat on a log", "the cats and the dogs ran"] * 20


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 40), ("bpe", 280)])
def test_special_tokens_come_first_and_texts_come_back(kind: Kind, size: int) -> None:
    tokenizer = train_tokenizer(lambda: iter(TEXTS), size, kind)
    assert tokenizer.get_vocab_size() == size
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == [0, 1, 2, 3, 4]
    ids = tokenizer.encode("the cats sat on a log", add_special_tokens=False).ids
    assert tokenizer.decode(ids).strip() == "the cats sat on a log"
    assert train_tokenizer(lambda: iter(TEXTS), size, kind).to_str() == tokenizer.to_str()
    # as many words begin as there are words
    starts = word_starts(tokenizer)
    assert len(starts) == size
    assert int(starts[ids].sum()) == 6
    masked = tokenizer.encode("the [MASK] sat", add_special_tokens=False).ids
    assert masked.count(MASK) == 1


def test_a_byte_tokenizer_keeps_every_character() -> None:
    tokenizer = train_tokenizer(lambda: iter(TEXTS), 280, "bpe")
    text = " Naïve 猫 \U0001f408"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_a_vocabulary_that_the_text_does_not_support() -> None:
    with pytest.raises(UserError, match=r"supports \d+ tokens and not 5000: set vocabulary to"):
        train_tokenizer(lambda: iter(TEXTS), 5000)
    with pytest.raises(UserError, match="at least 261"):
        train_tokenizer(lambda: iter(TEXTS), 100, "bpe")


def test_files_that_are_no_tokenizer_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match="is no tokenizer"):
        load_tokenizer(tmp_path / "bad.json")
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordPiece({"a": 0, "[MASK]": 1}, unk_token="a")).save(str(tmp_path / "other.json"))
    with pytest.raises(UserError, match="tokens 0 to 4"):
        load_tokenizer(tmp_path / "other.json")
    train_tokenizer(lambda: iter(TEXTS), 40).save(str(tmp_path / "good.json"))
    assert load_tokenizer(tmp_path / "good.json").get_vocab_size() == 40
