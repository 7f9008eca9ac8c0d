"""Tokenizers: trained on a corpus, or taken from a file."""

from __future__ import annotations

import json
import os
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from ssl_ebm.data.special_tokens import MASK, SPECIAL, SpecialTokens
from ssl_ebm.errors import UserError, in_one_line

Kind = Literal["wordpiece", "bpe"]
PASSES: dict[str, int] = {"wordpiece": 2, "bpe": 1}  # over the texts, in training
CONTINUES = "##"  # a WordPiece that goes on a word
SPACES = "ĠĉĊč▁"  # how byte-level BPE writes a space, tab, line feed, carriage return; SentencePiece a space
LONGEST_WORD = 100  # characters; a longer one is [UNK] to WordPiece
ALPHABET = 1000  # characters at most that WordPiece knows, as in BERT: the most frequent ones
PIECE = 2**16  # characters of a long document that are tokenised at once: its memory is 100 times as large
BATCH = 2**18  # characters tokenised together
_AFTER_ANOTHER = re.compile(r"(?<=\S)\S")
_LONE_SPACE = re.compile(r"(?<=\S) (?=\S)")

# The library warns when a loader forks its workers after text was tokenised, unless this is set. No worker
# tokenises.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def train_tokenizer(
    texts: Callable[[], Iterator[str]], vocabulary: int, kind: Kind = "wordpiece"
) -> Tokenizer:
    """A tokenizer of exactly `vocabulary` tokens; [PAD] [UNK] [CLS] [SEP] [MASK] are 0 to 4.

    The same texts give the same tokenizer.

    Args:
        texts: starts a pass over the texts; WordPiece makes two.
        kind: "wordpiece" (lower case, without accents, as BERT's uncased one), or "bpe" of bytes, which keeps
            every character.

    Raises:
        UserError: the text has not so many tokens, or none; another kind.
    """
    special = list(SPECIAL)
    if kind == "wordpiece":
        tokenizer: Any = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        alphabet, inside = _alphabet(tokenizer.normalizer, texts())
        # The trainer numbers the ##-characters in the order of a hash table, another one in each process, and
        # breaks ties between pairs by these numbers. Given as special tokens they are numbered in our order.
        ordered = [*special, *alphabet, *(CONTINUES + character for character in inside)]
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=vocabulary,
            special_tokens=ordered,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
    elif kind == "bpe":
        # A byte-level token holds the space before it, so that [MASK] takes the place of that space, too.
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[*special[:MASK], AddedToken(SPECIAL[MASK], lstrip=True, special=True)],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    else:
        raise UserError(f"tokenizer: kind is {kind!r}: use wordpiece or bpe")
    tokenizer.train_from_iterator((piece for text in texts() for piece in pieces(text)), trainer)
    supported = tokenizer.get_vocab_size()
    if supported == len(SPECIAL):
        raise UserError(
            "there is no text to train a tokenizer on: all files, or the training part, are empty"
        )
    if supported < vocabulary:
        raise UserError(
            f"the text supports {supported} tokens and not {vocabulary}: set vocabulary to {supported}"
        )
    if supported > vocabulary:
        raise UserError(
            f"vocabulary is {vocabulary}: {kind} needs at least {supported} for single characters"
        )
    return _with_special_tokens_alone(tokenizer) if kind == "wordpiece" else tokenizer


def _alphabet(normalizer: Any, texts: Iterator[str]) -> tuple[list[str], list[str]]:
    """The most frequent characters (of equally frequent ones the first in Unicode's order), and those of them
    that may go on a word; sorted."""
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for batch in _batches(texts, PIECE):
        normal = normalizer.normalize_str("\n".join(piece for piece, _ in batch))
        counts.update(normal)
        inside.update(_AFTER_ANOTHER.findall(normal))
    for space in [one for one in counts if one.isspace()]:
        del counts[space]
    kept = sorted(sorted(counts, key=lambda one: (-counts[one], one))[:ALPHABET])
    return kept, [one for one in kept if one in inside and one not in string.punctuation]


def _with_special_tokens_alone(trained: Any) -> Any:
    """The same WordPiece tokenizer, in which single characters are no longer special."""
    model = models.WordPiece(trained.get_vocab(), unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)
    tokenizer: Any = Tokenizer(model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        setattr(tokenizer, part, getattr(trained, part))
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def load_tokenizer(path: str | Path) -> Any:
    """A tokenizer.json of the `tokenizers` library. It neither cuts nor pads.

    Raises:
        UserError: no such file, or as `read_tokenizer`; with the file's name.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no tokenizer at {path}: give a tokenizer.json")
    try:
        return read_tokenizer(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path}: {in_one_line(error)}") from error


def read_tokenizer(content: str) -> Any:
    """A tokenizer from the text of its tokenizer.json. It neither cuts nor pads.

    Raises:
        UserError: no JSON of a tokenizer, one with gaps between its ids, or without a special token.
    """
    try:
        tokenizer: Any = Tokenizer.from_str(content)
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"this is no tokenizer.json: {in_one_line(error)}") from error
    known = tokenizer.get_vocab_size()
    if any(tokenizer.id_to_token(number) is None for number in range(known)):
        raise UserError(f"the ids of the tokenizer have gaps: its {known} tokens must be 0 to {known - 1}")
    SpecialTokens.of(tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def pieces(text: str) -> Iterator[str]:
    """A long text in pieces whose tokens are its own: it is cut before a space between two words."""
    start = 0
    while len(text) - start > PIECE and (space := _LONE_SPACE.search(text, start + PIECE)):
        yield text[start : space.start()]
        start = space.start()
    yield text[start:]


def encode(tokenizer: Any, texts: Iterable[str]) -> Iterator[NDArray[np.uint32]]:
    """Token ids of one document after another, without [CLS] and [SEP], from batches of bounded memory.

    A "[MASK]" that stands in a document is text like any other.

    Raises:
        UserError: the tokenizer cannot encode them, as one whose own unknown token is not in it.
    """
    gathered: list[NDArray[np.uint32]] = []  # of a document whose last piece is to come
    for batch in _batches(texts, BATCH):
        # No name for the encodings of a batch: they would be held until those of the next one are made.
        for made, (_, ends) in zip(_encodings(tokenizer, batch), batch, strict=True):
            gathered.append(np.array(made.ids, np.uint32))
            if ends:
                yield np.concatenate(gathered)
                gathered = []


def _encodings(tokenizer: Any, batch: list[tuple[str, bool]]) -> list[Any]:
    tokenizer.encode_special_tokens = True
    try:
        encoded: list[Any] = tokenizer.encode_batch_fast(
            [piece for piece, _ in batch], add_special_tokens=False
        )
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"the tokenizer cannot encode the text: {in_one_line(error)}") from error
    tokenizer.encode_special_tokens = False
    return encoded


def _batches(texts: Iterable[str], size: int) -> Iterator[list[tuple[str, bool]]]:
    """Pieces of texts, about so many characters at a time, and whether each ends its text."""
    batch, characters = [], 0
    for text in texts:
        taken = 0
        for piece in pieces(text):
            taken += len(piece)
            batch.append((piece, taken == len(text)))
            characters += len(piece)
            if characters >= size:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def in_word_pieces(tokenizer: Any) -> bool:
    """Whether tokens are words and ##parts; else the space before a word is part of its token."""
    return bool(json.loads(tokenizer.to_str())["model"]["type"] == "WordPiece")


def word_starts(tokenizer: Any) -> Tensor:
    """Which tokens begin a word: (V,) bool. Special ones do; of bytes, all that begin with white space or a
    punctuation mark of ASCII."""
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    if in_word_pieces(tokenizer):
        return torch.tensor([not token.startswith(CONTINUES) for token in tokens])
    return torch.tensor([token.startswith(tuple(SPACES + string.punctuation)) for token in tokens])
