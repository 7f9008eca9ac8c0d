"""Text for pre-training: a corpus tokenised once, packed into whole sequences, mapped from disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from ssl_ebm.data.corruption import CLS, PAD, SEP
from ssl_ebm.data.documents import Corpus, Unit
from ssl_ebm.data.listings import SPLITS
from ssl_ebm.data.loading import StreamData, check_least, warn_of_skipped
from ssl_ebm.data.tokenizing import Kind, bracketed, encode, load_tokenizer, train_tokenizer, word_starts
from ssl_ebm.errors import UserError

REPORT = 100_000  # documents between two lines of progress
FORMAT = 2  # of the files in the cache


class PackedText(Dataset[dict[str, Tensor]]):
    """Sequences of a token file: {"tokens": (length,) int64}. The remainder of the file is left out, and a
    file shorter than a sequence is padded to one.

    Indices beyond the length stand for later epochs and wrap around.
    """

    def __init__(self, path: Path, dtype: str, length: int) -> None:
        self.path, self.dtype, self.length = path, dtype, length
        self.tokens = path.stat().st_size // np.dtype(dtype).itemsize
        self._mapped: Any = None

    def __len__(self) -> int:
        return max(1, self.tokens // self.length)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if self._mapped is None:  # in the worker that reads
            self._mapped = np.memmap(self.path, self.dtype, "r")
        start = index % len(self) * self.length
        tokens = torch.from_numpy(self._mapped[start : start + self.length].astype(np.int64))
        return {"tokens": torch.nn.functional.pad(tokens, (0, self.length - len(tokens)), value=PAD)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": None}

    def all_tokens(self) -> NDArray[np.int64]:
        """The whole file, in memory."""
        return np.fromfile(self.path, self.dtype).astype(np.int64)


class Text(StreamData):
    """Documents of a file or folder, packed one after another: [CLS] a document [SEP] [CLS] the next ...

    Batches: {"tokens": (B, length) int64}. The tokenizer is trained on the training documents alone. The
    corpus is tokenised once, into files that are mapped, not read, so memory does not grow with it.

    Args:
        path: a folder, or a file: .txt, .csv, .tsv, .jsonl; see `Corpus`.
        unit: what is a document of a .txt file: file, paragraph or line.
        text_column: of tables and JSON lines.
        tokenizer: a tokenizer.json; null: one is trained.
        kind: of the trained one, wordpiece or bpe.
        vocabulary: its number of tokens.
        length: tokens of a sequence.
        val_share, test_share: of the documents whose split no file name fixes.
        cache: folder for token files; null: ssl_ebm in the user's cache folder.
        batch_size, workers, seed: as everywhere.

    Raises:
        UserError: a setting out of its range, files that are missing or broken, a corpus without documents in
            one of its splits, a vocabulary larger than the text supports.
    """

    def __init__(
        self,
        path: str,
        unit: Unit = "paragraph",
        text_column: str = "text",
        tokenizer: str | None = None,
        kind: Kind = "wordpiece",
        vocabulary: int = 8192,
        length: int = 128,
        val_share: float = 0.05,
        test_share: float = 0.05,
        cache: str | None = None,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        check_least(vocabulary=(vocabulary, 6), length=(length, 8))
        self.corpus = Corpus(path, unit, text_column, None, val_share, test_share, seed)
        self.given, self.kind, self.vocabulary, self.length = tokenizer, kind, vocabulary, length
        self.cache = Path(cache) if cache else _user_cache()
        self._folder: Path | None = None
        self.tokenizer_json: str | None = None
        self.word_starts = torch.ones(0, dtype=torch.bool)
        self.info: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """Tokenises the corpus if that has not been done; in one process of each machine."""
        self._prepared()

    def setup(self, stage: str | None = None) -> None:
        folder = self._prepared()
        self.tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self.word_starts = word_starts(Tokenizer.from_str(self.tokenizer_json))
        self.info = json.loads((folder / "info.json").read_text())
        if self.info["blank"]:
            warn_of_skipped(self.corpus.path, "file(s) without text", self.info["blank"])
        super().setup(stage)

    def make_dataset(self, split: str) -> PackedText:
        return PackedText(self._prepared() / f"{split}.bin", self.info["dtype"], self.length)

    def settings(self) -> dict[str, Any]:
        return {
            "path": self.corpus.path,
            "length": self.length,
            "vocabulary": len(self.word_starts),
            "documents": self.info.get("documents"),
            "tokens": self.info.get("tokens"),
            **_fingerprint(self.corpus),
        }

    # -- tokenising --------------------------------------------------------------------------------------

    def _prepared(self) -> Path:
        """The folder with tokenizer and token files."""
        if self._folder is None:
            folder = self.cache / self._key()
            if not (folder / "info.json").is_file():
                self._tokenise(folder)
            self._folder = folder
        return self._folder

    def _key(self) -> str:
        """Names the content of the files and all settings that the tokens depend on."""
        corpus = self.corpus
        settings = [FORMAT, corpus.unit, corpus.text_column, corpus.val_share, corpus.test_share, corpus.seed]
        given = None if self.given is None else load_tokenizer(self.given).to_str()
        settings += [self.kind, self.vocabulary] if given is None else [given]
        digest = hashlib.sha256(repr(settings).encode())
        for line in corpus.content():
            digest.update(f"{line}\n".encode())
        return digest.hexdigest()[:32]

    def _texts(self, split: str) -> Iterator[str]:
        return (document.text for document in self.corpus.documents() if document.split == split)

    def _tokenise(self, folder: Path) -> None:
        """Into a folder beside, which is then renamed: there is a whole one or none."""
        if self.given is not None:
            tokenizer = load_tokenizer(self.given)
        else:
            rank_zero_info(f"training a tokenizer of {self.vocabulary} tokens on {self.corpus.path}")
            tokenizer = train_tokenizer(lambda: self._texts("train"), self.vocabulary, self.kind)
        dtype = "uint16" if tokenizer.get_vocab_size() <= 2**16 else "uint32"
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".partial", dir=self.cache))
        except OSError as error:
            raise UserError(
                f"cannot write to {self.cache}: {error.strerror or error}; set data.cache"
            ) from error
        try:
            counts = self._write_tokens(tokenizer, partial, dtype)
            (partial / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
            (partial / "info.json").write_text(json.dumps({"dtype": dtype, **counts}))
            try:
                partial.rename(folder)
            except OSError:
                if not (folder / "info.json").is_file():  # else another process was faster
                    raise
        except OSError as error:
            raise UserError(
                f"cannot write to {self.cache}: {error.strerror or error}; set data.cache"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _write_tokens(self, tokenizer: Any, folder: Path, dtype: str) -> dict[str, Any]:
        documents, tokens = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        blank: list[str] = []
        waiting: deque[str] = deque()  # splits of the documents of which there are no tokens yet

        def texts() -> Iterator[str]:
            for document in self.corpus.documents(blank):
                waiting.append(document.split)
                yield document.text

        files = {split: (folder / f"{split}.bin").open("wb") for split in SPLITS}
        try:
            for done, ids in enumerate(encode(tokenizer, texts()), 1):
                split = waiting.popleft()
                files[split].write(np.concatenate([[CLS], ids, [SEP]]).astype(dtype).tobytes())
                documents[split] += 1
                tokens[split] += len(ids) + 2
                if done % REPORT == 0:
                    rank_zero_info(f"tokenised {done:,} documents")
        finally:
            for file in files.values():
                file.close()
        if empty := [split for split in SPLITS if not documents[split]]:
            raise UserError(
                f"{self.corpus.path} has no documents for {', '.join(empty)}: give more text, larger shares, "
                "or smaller documents (unit)"
            )
        return {"documents": documents, "tokens": tokens, "blank": blank}


class LabelledText(Dataset[dict[str, Tensor]]):
    """Documents of one split with their classes: {"tokens": (length,) int64, "label": (), "index": ()}.

    [CLS] the document's first tokens [SEP], padded with [PAD].
    The index counts the documents of the split.

    Args:
        corpus: with a label column.
        split: "train", "val" or "test".
        tokenizer: of the checkpoint, as JSON.
        length: tokens of a sequence.

    Attributes:
        classes: names of the classes, sorted; of all splits.

    Raises:
        UserError: no label column, or no documents in the split.
    """

    def __init__(self, corpus: Corpus, split: str, tokenizer: str, length: int) -> None:
        if corpus.label_column is None:
            raise UserError("labelled text needs a label column: set label_column")
        names: set[str] = set()
        labels: list[str] = []

        def texts() -> Iterator[str]:
            for document in corpus.documents():
                names.add(str(document.label))
                if document.split == split:
                    labels.append(str(document.label))
                    yield document.text

        rows = []
        for ids in encode(Tokenizer.from_str(tokenizer), texts()):
            row = np.full(length, PAD)
            kept = bracketed(ids, length)
            row[: len(kept)] = kept
            rows.append(row)
        if not rows:
            raise UserError(f"{corpus.path} has no documents for {split}")
        self.classes = sorted(names)
        number = {name: label for label, name in enumerate(self.classes)}
        self.tokens = torch.from_numpy(np.stack(rows))
        self.labels = torch.tensor([number[label] for label in labels])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = index % len(self)  # of a later epoch
        return {"tokens": self.tokens[place], "label": self.labels[place], "index": torch.tensor(place)}


class LabelledDocuments(StreamData):
    """Documents with their classes, for probes and fine-tuning of a model of text.

    Batches: {"tokens": (B, length) int64, "label": (B,) int64, "index": (B,) int64}, each document on its own
    (see `LabelledText`). The tokenizer is that of the model: of the one that the Trainer runs, or as
    `use_tokenizer` says before `setup`.

    Args:
        path: a folder, or a file: .csv, .tsv, .jsonl; see `Corpus`, also for the next ones.
        text_column, label_column: of tables and JSON lines.
        length: tokens of a document, at most; null: as many as the model takes.
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
        text_column: str = "text",
        label_column: str = "label",
        length: int | None = None,
        val_share: float = 0.1,
        test_share: float = 0.2,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        check_least(length=(8 if length is None else length, 8))
        self.corpus = Corpus(path, "file", text_column, label_column, val_share, test_share, seed)
        self.length = length
        self.tokenizer_json: str | None = None
        self.classes: list[str] = []

    def use_tokenizer(self, tokenizer_json: str | None, length: int) -> None:
        """Takes the tokenizer of a model, and how many tokens it takes at most.

        Raises:
            UserError: the model has no tokenizer.
        """
        if tokenizer_json is None:
            raise UserError("this model has no tokenizer: it was not trained on text")
        self.tokenizer_json, self.length = tokenizer_json, min(self.length or length, length)

    def make_dataset(self, split: str) -> LabelledText:
        if self.tokenizer_json is None and self.trainer is not None:
            model: Any = self.trainer.lightning_module
            reader = getattr(model, "backbone", model)  # the task that was pre-trained
            length = getattr(getattr(reader, "network", None), "length", 0)
            self.use_tokenizer(getattr(reader, "tokenizer_json", None), length)
        if self.tokenizer_json is None or self.length is None:
            raise UserError("labelled documents need the tokenizer of a model: give a checkpoint of text")
        made = LabelledText(self.corpus, split, self.tokenizer_json, self.length)
        self.classes = made.classes
        return made

    def settings(self) -> dict[str, Any]:
        own = {"path": self.corpus.path, "length": self.length, "classes": self.classes}
        return {**own, **_fingerprint(self.corpus)}


def _fingerprint(corpus: Corpus) -> dict[str, str]:
    shards = corpus.shards()
    return {} if shards is None else {"shards": shards.manifest.fingerprint}


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssl_ebm" / "text"
