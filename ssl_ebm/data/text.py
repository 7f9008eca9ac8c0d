"""Text for pre-training: a corpus tokenised once, packed into whole sequences, mapped from disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from ssl_ebm.data.documents import Corpus, warn_of_shared
from ssl_ebm.data.fingerprints import Fingerprint
from ssl_ebm.data.loading import StreamData, check_least, warn_of_skipped
from ssl_ebm.data.special_tokens import PAD, SpecialTokens
from ssl_ebm.data.text_files import Unit
from ssl_ebm.data.token_files import trained_tokenizer, write_token_files
from ssl_ebm.data.tokenizing import Kind, load_tokenizer, read_tokenizer, word_starts
from ssl_ebm.errors import UserError, in_one_line
from ssl_ebm.progress import Display

FORMAT = 3  # of the files in the cache


class PackedText(Dataset[dict[str, Tensor]]):
    """Sequences of a token file: {"tokens": (length,) int64}. The remainder of the file is left out, and a
    file shorter than a sequence is padded to one.

    Indices beyond the length stand for later epochs and wrap around.
    """

    def __init__(self, path: Path, dtype: str, length: int, pad: int = PAD) -> None:
        self.path, self.dtype, self.length, self.pad = path, dtype, length, pad
        self.tokens = path.stat().st_size // np.dtype(dtype).itemsize if path.is_file() else 0
        self._mapped: Any = None

    def __len__(self) -> int:
        return max(1, self.tokens // self.length)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if self._mapped is None:  # in the worker that reads
            self._mapped = np.memmap(self.path, self.dtype, "r")
        start = index % len(self) * self.length
        tokens = torch.from_numpy(self._mapped[start : start + self.length].astype(np.int64))
        return {"tokens": torch.nn.functional.pad(tokens, (0, self.length - len(tokens)), value=self.pad)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": None}

    def all_tokens(self, most: int = -1) -> NDArray[np.int64]:
        """The whole file, in memory; of a longer one the first `most` tokens."""
        return np.fromfile(self.path, self.dtype, most).astype(np.int64)


class Text(StreamData):
    """Documents of a file or folder, packed one after another: [CLS] a document [SEP] [CLS] the next ...

    Batches: {"tokens": (B, length) int64}. The tokenizer is trained on the training documents alone. The
    corpus is tokenised once, into files that are mapped, not read, so memory does not grow with it.

    Args:
        path: a folder, or a file: .txt, .csv, .tsv, .jsonl; or "hf:NAME", a dataset of Hugging Face; see
            `Corpus`.
        unit: what is a document of a .txt file: file, paragraph or line.
        text_column: of tables, JSON lines and datasets.
        tokenizer: a tokenizer.json, with BERT's or RoBERTa's special tokens; null: that of the model, where
            it begins with a checkpoint, else one is trained.
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
        text_column: str | int = "text",
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
        self.corpus = Corpus(path, unit, str(text_column), None, val_share, test_share, seed)
        self.given, self.kind, self.vocabulary, self.length = tokenizer, kind, vocabulary, length
        self.cache = Path(cache) if cache else _user_cache()
        self._folder: Path | None = None
        self._content: str | None = None  # a digest of the corpus
        self.tokenizer_json: str | None = None
        self.word_starts = torch.ones(0, dtype=torch.bool)
        self.info: dict[str, Any] = {}
        self._special = SpecialTokens()

    def prepare_data(self) -> None:
        """Tokenises the corpus if that has not been done; in one process of each machine."""
        self._prepared()

    def setup(self, stage: str | None = None) -> None:
        folder = self._prepared()
        tokenizer, self.tokenizer_json, self.info = _read(folder)
        self.word_starts, self._special = word_starts(tokenizer), SpecialTokens.of(tokenizer)
        if self.info["blank"]:
            warn_of_skipped(self.corpus.path, "file(s) without text", self.info["blank"])
        for split, count in self.info["shared"].items():
            if count:
                warn_of_shared(self.corpus.path, split, count, self.info["documents"][split])
        super().setup(stage)

    def make_dataset(self, split: str) -> PackedText:
        path, counted = self._prepared() / f"{split}.bin", self.info["tokens"][split]
        made = PackedText(path, self.info["dtype"], self.length, self._special.pad)
        if made.tokens != counted:
            raise UserError(f"{path} has {made.tokens} of its {counted} tokens: remove {path.parent}")
        return made

    def settings(self) -> dict[str, Any]:
        return {
            **self.corpus.settings(),
            "unit": self.corpus.unit,
            "text_column": self.corpus.text_column,
            "val_share": self.corpus.val_share,
            "test_share": self.corpus.test_share,
            "length": self.length,
            "vocabulary": len(self.word_starts),
            "documents": self.info.get("documents"),
            "tokens": self.info.get("tokens"),
        }

    def fingerprint(self) -> Fingerprint:
        self._prepared()
        return self.corpus.fingerprint(self._content)

    # -- tokenising --------------------------------------------------------------------------------------

    def _given_tokenizer(self) -> Tokenizer | None:
        """That of the settings or, without one, of the model; None: one is to be trained."""
        if self.given is not None:
            return load_tokenizer(self.given)
        model: Any = None if self.trainer is None else self.trainer.lightning_module
        content: str | None = getattr(model, "tokenizer_json", None)
        return None if content is None else read_tokenizer(content)

    def _prepared(self) -> Path:
        """The folder with tokenizer and token files."""
        if self._folder is None:
            given = self._given_tokenizer()
            folder = self.cache / self._key(given)
            if given is not None and not _is_whole(folder):
                # The model's may be the one that was trained here, when the corpus was first tokenised.
                first = self.cache / self._key(None)
                if _is_whole(first) and _read(first)[0].to_str() == given.to_str():
                    folder = first
            if not _is_whole(folder):
                self._tokenise(folder)
            self._folder = folder
        return self._folder

    def _key(self, given: Tokenizer | None) -> str:
        """Names the content of the files and all settings that the tokens depend on."""
        corpus = self.corpus
        settings = [FORMAT, corpus.unit, corpus.text_column, corpus.val_share, corpus.test_share, corpus.seed]
        settings += [self.kind, self.vocabulary] if given is None else [given.to_str()]
        digest = hashlib.sha256(repr(settings).encode())
        content = hashlib.sha256()
        for line in corpus.content():
            digest.update(f"{line}\n".encode())
            content.update(f"{line}\n".encode())
        self._content = content.hexdigest()
        return digest.hexdigest()[:32]

    def _tokenise(self, folder: Path) -> None:
        """Into a folder beside, which is then renamed: there is a whole one or none."""
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            apart = Path(tempfile.mkdtemp(prefix=".partial", dir=self.cache))
            partial = apart / "tokens"
            partial.mkdir()  # for whom the umask says, where a temporary folder is its maker's alone
        except OSError as error:
            raise UserError(
                f"cannot write to {self.cache}: {error.strerror or error}; set data.cache"
            ) from error
        try:
            with Display() as display:
                tokenizer = self._given_tokenizer()
                if tokenizer is None:
                    tokenizer = trained_tokenizer(self.corpus, self.vocabulary, self.kind, display)
                dtype = "uint16" if tokenizer.get_vocab_size() <= 2**16 else "uint32"
                counts = write_token_files(self.corpus, tokenizer, partial, dtype, display)
            (partial / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
            (partial / "info.json").write_text(json.dumps({"dtype": dtype, **counts}))
            try:
                partial.rename(folder)
            except OSError:
                if not _is_whole(folder):  # else another process was faster
                    raise
        except OSError as error:
            raise UserError(
                f"cannot write to {self.cache}: {error.strerror or error}; set data.cache"
            ) from error
        finally:
            shutil.rmtree(apart, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether a corpus has been tokenised into it."""
    return (folder / "info.json").is_file()


def _read(folder: Path) -> tuple[Tokenizer, str, dict[str, Any]]:
    """The tokenizer with which that was done, the same as JSON, and what is known of the tokens.

    Raises:
        UserError: a file cannot be read, or is damaged, as on a disk that was full.
    """
    try:
        content = (folder / "tokenizer.json").read_text(encoding="utf-8")
        info = json.loads((folder / "info.json").read_text())
        return Tokenizer.from_str(content), content, dict(info)
    except Exception as error:  # what `tokenizers` raises is of no type of its own
        raise UserError(f"{folder} cannot be read ({in_one_line(error)}): remove that folder") from error


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssl_ebm" / "text"
