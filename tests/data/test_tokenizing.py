"""Tokenizers: special tokens, round trips, mistakes; the same in every process, for documents of any kind."""

from __future__ import annotations

import hashlib
import json
import os
import string
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from ssl_ebm.data import tokenizing
from ssl_ebm.data.special_tokens import MASK, SPECIAL
from ssl_ebm.data.tokenizing import (
    Kind,
    encode,
    load_tokenizer,
    pieces,
    read_tokenizer,
    train_tokenizer,
    word_starts,
)
from ssl_ebm.errors import UserError

TEXTS = ["the cat sat on the mat", "a dog sat on a log", "the cats and the dogs ran"] * 20
LINES = [
    f"{a}{b} {b}{a}n't, {a}é — {b}ß 漢{a} ({i})"
    for i, (a, b) in enumerate((a, b) for a in ("ka", "lo", "mi", "ŝu") for b in ("pra", "tek", "zón"))
]
SIZES: dict[Kind, int] = {"wordpiece": 80, "bpe": 300}
TRAINED = {kind: train_tokenizer(lambda: iter(LINES * 3), size, kind) for kind, size in SIZES.items()}


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


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 40), ("bpe", 280)])
def test_a_mask_takes_the_place_of_a_word(kind: Kind, size: int) -> None:
    """As in training, where a token of bytes holds the space before it."""
    tokenizer = train_tokenizer(lambda: iter(TEXTS), size, kind)
    whole = tokenizer.encode("the dog sat", add_special_tokens=False)
    assert len(whole.ids) == 3
    masked = tokenizer.encode("the [MASK] sat", add_special_tokens=False).ids
    assert masked == [whole.ids[0], MASK, whole.ids[2]]


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
    Tokenizer(models.WordPiece({"a": 0, "[MASK]": 1}, unk_token="a")).save(str(tmp_path / "other.json"))
    with pytest.raises(UserError, match=r"other.json: the tokenizer has no token \[PAD\] or <pad>"):
        load_tokenizer(tmp_path / "other.json")
    train_tokenizer(lambda: iter(TEXTS), 40).save(str(tmp_path / "good.json"))
    assert load_tokenizer(tmp_path / "good.json").get_vocab_size() == 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_every_process_trains_the_same_tokenizer(kind: Kind, shared_data: Path) -> None:
    """The library orders words by a hash that differs from process to process."""
    script = (
        "import sys, hashlib\n"
        "from ssl_ebm.data.tokenizing import train_tokenizer\n"
        f"lines = open({str(shared_data / 'text/wikitext-2/valid.txt')!r}, encoding='utf-8').readlines()\n"
        f"made = train_tokenizer(lambda: iter(lines), 4000, {kind!r})\n"
        "print(hashlib.sha256(made.to_str().encode()).hexdigest())"
    )
    found = {
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
        for _ in range(3)
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == hashlib.sha256().digest_size * 2


def test_only_the_five_special_tokens_are_special() -> None:
    for tokenizer in TRAINED.values():
        added = tokenizer.get_added_tokens_decoder()
        assert [added[i].content for i in sorted(added)] == list(SPECIAL)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_special_token_in_a_document_is_text(kind: Kind) -> None:
    tokenizer = TRAINED[kind]
    (ids,) = encode(tokenizer, ["ka [MASK] lo [SEP][CLS] mi [PAD]"])
    assert not {0, 2, 3, 4} & set(ids.tolist())
    assert MASK in tokenizer.encode("ka [MASK] lo", add_special_tokens=False).ids  # elsewhere it is one


@given(
    texts=st.lists(st.text(st.sampled_from("kalo é漢.'\n\t\u00a0\u0301(9"), max_size=60), max_size=6),
    piece=st.integers(1, 8),
    batch=st.integers(1, 30),
)
def test_pieces_and_batches_do_not_change_the_tokens(texts: list[str], piece: int, batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizing, "PIECE", piece)
        patch.setattr(tokenizing, "BATCH", batch)
        assert ["".join(pieces(text)) for text in texts] == texts
        for tokenizer in TRAINED.values():
            whole = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
            assert [ids.tolist() for ids in encode(tokenizer, texts)] == whole


@given(
    texts=st.lists(
        st.text(st.sampled_from("kaloSΣςİßẞé漢가.'9(\n\t\r\u00a0\u0301\u0323\u200b\ufeff ")), max_size=20
    ),
    size=st.integers(1, 40),
)
def test_characters_of_texts_are_those_of_each_text(texts: list[str], size: int) -> None:
    """Texts that are normalised together lend each other no accent, capital or place in a word."""
    normal = [normalizers.BertNormalizer().normalize_str(text) for text in texts]
    counts = Counter(character for text in normal for character in text if not character.isspace())
    inside = {two[1] for text in normal for two in map("".join, pairwise(text)) if two.split() == [two]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizing, "PIECE", size)
        patch.setattr(tokenizing, "ALPHABET", 4)
        known, within = tokenizing._alphabet(normalizers.BertNormalizer(), iter(texts))
    assert known == sorted(sorted(counts, key=lambda one: (-counts[one], one))[:4])
    assert within == [one for one in known if one in inside and one not in string.punctuation]


def test_encodings_of_one_batch_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoding:
        def __init__(self) -> None:
            self.ids = [7]

    class FakeTokenizer:
        made: list[weakref.ref[Encoding]]

        def __init__(self) -> None:
            self.made = []

        def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[Encoding]:
            alive = [one for one in self.made if one() is not None]
            assert len(alive) <= 1  # the last one of the batch before
            encodings = [Encoding() for _ in texts]
            self.made = [weakref.ref(one) for one in encodings]
            return encodings

    monkeypatch.setattr(tokenizing, "BATCH", 12)
    assert len(list(encode(FakeTokenizer(), ["four"] * 10))) == 10


def test_words_of_bytes_begin_at_white_space_and_punctuation() -> None:
    """Against the library's own cutting into words, where letters follow white space."""
    tokenizer = TRAINED["bpe"]
    starts = word_starts(tokenizer)
    text = "ka lo\nmi, tek;pra\tzón\r\nka"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    number = starts[tokens.ids].long().cumsum(0).tolist()
    words = [
        "".join(t for t, _ in group)
        for _, group in groupby(zip(tokens.tokens, number, strict=True), lambda p: p[1])
    ]
    assert words == ["Ġka", "Ġlo", "Ċmi", ",", "Ġtek", ";pra", "ĉzÃ³n", "č", "Ċka"]
    assert "".join(words) == "".join(w for w, _ in pre_tokenizers.ByteLevel().pre_tokenize_str(text))


def test_a_tokenizer_that_cuts_or_pads_does_so_no_longer(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(TRAINED["bpe"].to_str())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "t.json"))
    assert load_tokenizer(tmp_path / "t.json").encode(LINES[0]).ids == TRAINED["bpe"].encode(LINES[0]).ids


def _with_gaps(model: dict[str, Any]) -> None:
    model["vocab"]["ka"] = 1000


def _without_unknown(model: dict[str, Any]) -> None:
    model["unk_token"] = "[NONE]"


def test_damaged_tokenizers_are_named(tmp_path: Path) -> None:
    whole = TRAINED["wordpiece"].to_str()
    path = tmp_path / "tokenizer.json"
    for content, says in [
        (whole[:-20], r"tokenizer.json: this is no tokenizer.json: "),
        ("{}", r"tokenizer.json: this is no tokenizer.json: "),
        (_changed(whole, _with_gaps), r"tokenizer.json: the ids of the tokenizer have gaps: its \d+ tokens"),
    ]:
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=says) as raised:
            load_tokenizer(path)
        assert "\n" not in str(raised.value)
    path.write_bytes(whole.encode("utf-16"))
    with pytest.raises(UserError, match=r"tokenizer.json: 'utf-8' codec can't decode"):
        load_tokenizer(path)


def test_a_tokenizer_that_lacks_its_own_unknown_token_is_named() -> None:
    reader = read_tokenizer(_changed(TRAINED["wordpiece"].to_str(), _without_unknown))
    assert len(next(encode(reader, ["ka"]))) > 0
    with pytest.raises(UserError, match=r"the tokenizer cannot encode the text: .*Missing \[UNK\]"):
        next(encode(reader, ["猫"]))


def _changed(tokenizer: str, change: Callable[[dict[str, Any]], None]) -> str:
    content = json.loads(tokenizer)
    change(content["model"])
    return json.dumps(content)


def test_rare_characters_leave_room_for_words() -> None:
    """Of 3000 characters that occur twice, the 1000 first are kept; frequent ones always are."""
    rare = [chr(0x13000 + i) for i in range(3000)] * 2
    tokenizer = train_tokenizer(lambda: iter([*LINES * 3, *rare]), 1070)
    known = [token for token in tokenizer.get_vocab() if len(token) == 1]
    assert len(known) == tokenizing.ALPHABET
    assert {"k", "(", "漢"} <= set(known)
    assert chr(0x13000) in known
    assert chr(0x13000 + 2999) not in known


def test_workers_start_without_a_warning() -> None:
    assert os.environ["TOKENIZERS_PARALLELISM"]
