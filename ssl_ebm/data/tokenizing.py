"""Tokenizers: trained on a corpus, or taken from a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from ssl_ebm.data.corruption import SPECIAL
from ssl_ebm.errors import UserError

Kind = Literal["wordpiece", "bpe"]
CONTINUES = "##"  # a WordPiece that goes on a word
SPACE = "Ġ"  # what stands for the space before a word in byte-level BPE
LONGEST_WORD = 100  # characters; a longer one is [UNK] to WordPiece


def train_tokenizer(texts: Iterator[str], vocabulary: int, kind: Kind = "wordpiece") -> Any:
    """A tokenizer of exactly `vocabulary` tokens; [PAD] [UNK] [CLS] [SEP] [MASK] are 0 to 4.

    Args:
        kind: "wordpiece" (lower case, without accents, as BERT's uncased one), or "bpe" of bytes, which keeps
            every character. The library trains a WordPiece with ties broken by chance, so that two trainings
            number tokens in two ways: keep the one that a network was trained with. Checkpoints hold it.

    Raises:
        UserError: the text has not so many tokens, or none; another kind.
    """
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False
        )
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        raise UserError(f"tokenizer: kind is {kind!r}: use wordpiece or bpe")
    tokenizer.train_from_iterator(texts, trainer)
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
    return tokenizer


def load_tokenizer(path: str | Path) -> Any:
    """A tokenizer.json of the `tokenizers` library whose special tokens are ours.

    Raises:
        UserError: no such file, or one of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no tokenizer at {path}: give a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"{path} is no tokenizer.json: {error}") from error
    ids = [tokenizer.token_to_id(token) for token in SPECIAL]
    if ids != list(range(len(SPECIAL))):
        raise UserError(f"{path}: {' '.join(SPECIAL)} must be the tokens 0 to 4, they are {ids}")
    return tokenizer


def word_starts(tokenizer: Any) -> Tensor:
    """Which tokens begin a word: (V,) bool. Special ones do."""
    size = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(i) for i in range(size)]
    if any(token.startswith(CONTINUES) for token in tokens):
        return torch.tensor([not token.startswith(CONTINUES) for token in tokens])
    return torch.tensor([token.startswith(SPACE) or token in SPECIAL for token in tokens])
