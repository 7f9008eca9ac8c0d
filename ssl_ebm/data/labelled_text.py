"""Labelled documents, for probes and fine-tuning of a model of text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ssl_ebm.data.documents import Corpus, fingerprint, warn_of_shared
from ssl_ebm.data.fingerprints import Fingerprint
from ssl_ebm.data.loading import StreamData, check_least
from ssl_ebm.data.seen_text import warn_of_other_splits
from ssl_ebm.data.special_tokens import SpecialTokens
from ssl_ebm.data.tokenizing import encode
from ssl_ebm.errors import UserError

MULTIPLE = 8  # of tokens, which tensor cores are quick with


class LabelledText(Dataset[dict[str, Tensor]]):
    """Documents of one split with their classes: {"tokens": (length,) int64, "label": (), "index": ()}.

    [CLS] the document's first tokens [SEP], padded with [PAD]. With several windows tokens are
    (windows, length): a document of more tokens is cut into as few of them as hold it, of equal length to one
    token; what they do not hold is left out, which a warning counts. Windows that it does not need are [PAD]
    alone. The index counts the documents of the split. Batches are cut, see `collate`.

    Args:
        corpus: with a label column.
        split: "train", "val" or "test"; None: the documents that have no label, whose items have no "label".
        tokenizer: of the checkpoint, as JSON.
        length: tokens of a sequence.
        windows: of a document, at most.
        whole: batches are not cut.

    Attributes:
        classes: names of the classes, sorted; of all splits.
        tokens: (N, length) int32; with several windows (N, W, length), W the most that a document has.
        sequences_per_item: W, or 1.
        labels: (N,) int64; -1 where there is none.

    Raises:
        UserError: no label column, or no documents in the split.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str | None,
        tokenizer: str,
        length: int,
        windows: int = 1,
        whole: bool = False,
    ) -> None:
        if corpus.label_column is None:
            raise UserError("labelled text needs a label column: set label_column")
        names: set[str] = set()
        labels: list[str | None] = []
        found: list[bytes] = []
        train, own = set[int](), list[int]()

        def texts() -> Iterator[str]:
            for document in corpus.documents():
                if document.label is not None:
                    names.add(document.label)
                if document.split == "train":
                    train.add(fingerprint(document.text))
                if (document.label is None) if split is None else document.split == split:
                    labels.append(document.label)
                    own.append(fingerprint(document.text))
                    found.append(os.fsencode(document.name))
                    yield document.text

        rows, lengths = [], []
        reader = Tokenizer.from_str(tokenizer)
        special = SpecialTokens.of(reader)
        for ids in encode(reader, texts()):
            parts = special.in_windows(ids.tolist(), length, windows)
            row = np.full((len(parts), length), special.pad, np.int32)
            for place, part in enumerate(parts):
                row[place, : len(part)] = part
            rows.append(row)
            lengths.append(len(ids))
        if not rows:
            raise UserError(f"{corpus.path} has no documents for {split or 'predictions'}")
        _warn_of_cut(corpus.path, split, lengths, windows, length)
        self.classes = sorted(names)
        missing = names - set(labels)
        if split is not None and missing:
            rank_zero_warn(f"{corpus.path}: {split} has no document of {', '.join(sorted(missing))}")
        shared = sum(one in train for one in own)
        if split in ("val", "test") and shared:
            warn_of_shared(corpus.path, split, shared, len(own))
        number = {name: label for label, name in enumerate(self.classes)}
        self.pad, self.whole = special.pad, whole
        tokens = np.full((len(rows), max(map(len, rows)), length), special.pad, np.int32)
        for whole_row, row in zip(tokens, rows, strict=True):
            whole_row[: len(row)] = row
        self.tokens = torch.from_numpy(tokens if windows > 1 else tokens[:, 0])
        self.sequences_per_item = tokens.shape[1]
        self._names = np.array(found)  # (of a list, workers would copy page after page)
        self.labels = torch.tensor([-1 if label is None else number[label] for label in labels])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = index % len(self)  # of a later epoch
        item = {"tokens": self.tokens[place].long(), "index": torch.tensor(place)}
        return item if self.labels[place] < 0 else item | {"label": self.labels[place]}

    def item_names(self, items: Sequence[int]) -> list[str]:
        """Where documents stand: their file, and its line."""
        return [os.fsdecode(self._names[index % len(self)]) for index in items]

    def names_in_batch(self, batch: Mapping[str, Tensor]) -> list[str]:
        """The same of a batch."""
        return self.item_names(batch["index"].tolist())

    def collate(self, items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """A batch of items: tokens (B, T) int64, T the length of the longest document, to a multiple of 8,
        and at most `length`: a model takes no notice of padding, but its time. With several windows
        (B, W, T), W the most that one of the documents has.
        """
        batch: dict[str, Tensor] = default_collate(list(items))
        if not self.whole:
            tokens = batch["tokens"]
            used = tokens != self.pad
            longest = _last(used.flatten(0, -2).any(0))
            tokens = tokens[..., : -(-longest // MULTIPLE) * MULTIPLE]
            if tokens.ndim == 3:
                tokens = tokens[:, : _last(used.any(2).any(0))]
            batch["tokens"] = tokens.contiguous()
        return batch


def _last(used: Tensor) -> int:
    """How many places there are up to the last that is used, of (N,) bool."""
    return int(used.nonzero().max()) + 1


def _warn_of_cut(path: str, split: str | None, lengths: Sequence[int], windows: int, length: int) -> None:
    """Says how much of the documents is left out, where something is."""
    tokens = np.array(lengths)
    held = windows * (length - 2)
    over = (tokens - held).clip(0)
    if over.any():
        place = f"{length} tokens" if windows == 1 else f"{windows} windows of {length} tokens"
        rank_zero_warn(
            f"{path}: {(over > 0).sum():,} of the {len(tokens):,} documents of {split or 'predictions'} are "
            f"longer than {place}; what follows, {over.sum() / tokens.sum():.1%} of all, is left out "
            f"(windows {-(-int(tokens.max()) // (length - 2))} would hold the longest)"
        )


class LabelledDocuments(StreamData):
    """Documents with their classes, for probes and fine-tuning of a model of text.

    Batches: {"tokens": (B, T) int64, "label": (B,) int64, "index": (B,) int64}, each document on its own (see
    `LabelledText`). T is the length of the batch's longest document, to a multiple of 8, and at most
    `length`. It is `length` where a `MaskedText` is trained or tested on them: it hides a share of T places,
    and what it draws for a document does not depend on the others. The tokenizer is that of the model: of the
    one that the Trainer runs, or as `use_tokenizer` says before `setup`.

    With several windows tokens are (B, W, T), and what a model makes of a document is the mean over the
    tokens of all its windows, each read by itself: a step costs as much more as there are more windows.

    To predict, no labels are needed: it is done for the documents that have none, and for those of test where
    all have one.

    Args:
        path: a folder, with .txt files in a folder for each class or with tables; a file: .csv, .tsv, .jsonl;
            or "hf:NAME", a dataset of Hugging Face; see `Corpus`, also for the next ones.
        text_column, label_column: of tables, JSON lines and datasets.
        length: tokens of a window, at most; null: as many as the model takes.
        windows: of a document, at most; see `LabelledText`.
        val_share, test_share: of the documents whose split no file name fixes.
        batch_size, workers, seed: as everywhere.

    Attributes:
        classes: names of the classes, sorted; there after `setup`.

    Raises:
        UserError: a setting out of its range, files that are missing or broken, a split without documents.
    """

    def __init__(
        self,
        path: str,
        text_column: str | int = "text",
        label_column: str | int = "label",
        length: int | None = None,
        windows: int = 1,
        val_share: float = 0.1,
        test_share: float = 0.2,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        check_least(length=(8 if length is None else length, 8), windows=(windows, 1))
        self.corpus = Corpus(path, "file", str(text_column), str(label_column), val_share, test_share, seed)
        self.length, self.windows = length, windows
        self.tokenizer_json: str | None = None
        self.classes: list[str] = []
        self._predicting = False
        self._checked: Mapping[str, Any] | None = None

    def use_tokenizer(self, tokenizer_json: str | None, length: int) -> None:
        """Takes the tokenizer of a model, and how many tokens it takes at most.

        Raises:
            UserError: the model has no tokenizer.
        """
        if tokenizer_json is None:
            raise UserError("this model has no tokenizer: it was not trained on text")
        self.tokenizer_json, self.length = tokenizer_json, min(self.length or length, length)

    def check_splits(self, trained_on: Mapping[str, Any] | None) -> None:
        """Warns where a model was trained on these documents in other splits, and so on some of those that
        are measured.

        Args:
            trained_on: what `ssl_ebm.data.Text` told of itself, and by "before" the same of the training
                before; of other data, or None: nothing is known.
        """
        if trained_on is self._checked:
            return
        self._checked = trained_on
        warn_of_other_splits(trained_on, self.corpus)

    def setup(self, stage: str | None = None) -> None:
        self._predicting = stage == "predict"
        super().setup(stage)

    def make_dataset(self, split: str) -> LabelledText:
        model: Any = None if self.trainer is None else self.trainer.lightning_module
        reader = getattr(model, "backbone", model)  # the task that was pre-trained
        if self.tokenizer_json is None and self.trainer is not None:
            length = getattr(getattr(reader, "network", None), "length", 0)
            self.use_tokenizer(getattr(reader, "tokenizer_json", None), length)
        if self.tokenizer_json is None or self.length is None:
            raise UserError("labelled documents need the tokenizer of a model: give a checkpoint of text")
        if reader is not model:
            self.check_splits(getattr(reader, "trained_on", None))
        corpus = replace(self.corpus, optional=self._predicting)
        unlabelled = self._predicting and any(one.label is None for one in corpus.documents())
        whole = model is not None and reader is model and not self._predicting  # which is trained itself
        if whole and self.windows > 1:
            raise UserError(
                f"windows is {self.windows}, but a model of text is trained on one window of a document at a "
                "time: use ssl_ebm.data.Text, which reads them whole, or windows 1"
            )
        made = LabelledText(
            corpus, None if unlabelled else split, self.tokenizer_json, self.length, self.windows, whole
        )
        self.classes = made.classes
        return made

    def fingerprint(self) -> Fingerprint:
        return self.corpus.fingerprint()

    def settings(self) -> dict[str, Any]:
        own = {"length": self.length, "windows": self.windows, "classes": self.classes}
        return {**self.corpus.settings(), **own}
