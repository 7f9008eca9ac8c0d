"""Documents of files and datasets, and the split of each. Read one after another: memory stays flat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lightning.pytorch.utilities import rank_zero_warn

from ssl_ebm.data import fingerprints, hugging_face
from ssl_ebm.data.fingerprints import Fingerprint
from ssl_ebm.data.listings import Listing, find_files
from ssl_ebm.data.loading import warn_of_skipped
from ssl_ebm.data.randomness import stream_key
from ssl_ebm.data.shards.folder import ShardFolder, open_shards
from ssl_ebm.data.splits import SPLITS
from ssl_ebm.data.text_files import SUFFIXES, Row, Seen, TextFile, Unit, ignore
from ssl_ebm.errors import UserError

HUB = "hf:"  # begins the path of a dataset of Hugging Face
_STEMS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


@dataclass(frozen=True)
class Document:
    """A text.

    Attributes:
        text: of it.
        name: how messages call it.
        label: class name, where there is one.
        split: "train", "val" or "test".
    """

    text: str
    name: str
    label: str | None
    split: str


class Source(Protocol):
    """A part of a corpus, whose name messages call it by."""

    @property
    def split(self) -> str | None:
        """That its name fixes."""

    @property
    def measure(self) -> str:
        """Of its size: bytes or rows."""

    def size(self) -> int:
        """How much there is to read."""

    def digest(self) -> str:
        """Names the content."""

    def rows(self, seen: Seen = ignore) -> Iterator[Row]:
        """All texts, blank ones among them; `seen` is told how much more has been read."""


@dataclass(frozen=True)
class _Anew(Iterable[TextFile]):
    """What a function yields, begun anew by each iteration."""

    begin: Callable[[], Iterator[TextFile]]

    def __iter__(self) -> Iterator[TextFile]:
        return self.begin()


@dataclass(frozen=True)
class Corpus:
    """The documents of a file, of all files below a folder, or of a dataset of Hugging Face.

    A folder or file named train, val (valid, validation, dev) or test fixes the split of its documents;
    where none does, or none is val or test, a document's text decides, so that a text that occurs twice is on
    one side. Splits of a dataset are taken by the same names.

    Where labels are wanted, a .txt file has the class of the folder that it lies in: train/pos/1.txt, or
    pos/1.txt. One beside tables, or outside of such folders, has none: it is named and left out.

    Args:
        path: a folder, or a file: .txt, .csv, .tsv, .jsonl. "hf:PATH" is a dataset of Hugging Face on disk,
            "hf:NAME" or "hf:NAME:CONFIG" one of the Hub; see `ssl_ebm.data.hugging_face`. A folder of shards
            that `ssl-ebm shard` has made of files stands for these.
        unit: what is a document of a .txt file: the file, a paragraph (up to an empty line), a line.
        text_column, label_column: of tables, JSON lines and datasets, as the first line of a table names it.
            Of a table whose first line names nothing, its number, from 1; "2+3" joins two. Null: there are no
            labels.
        val_share, test_share: of the documents whose split no name fixes.
        seed: of the same.
        optional: where there are labels, documents without one are read, too.

    Raises:
        UserError: nothing there, a share out of its range.
    """

    path: str
    unit: Unit = "paragraph"
    text_column: str = "text"
    label_column: str | None = None
    val_share: float = 0.05
    test_share: float = 0.05
    seed: int = 0
    optional: bool = False

    def __post_init__(self) -> None:
        if not (min(self.val_share, self.test_share) > 0 and self.val_share + self.test_share < 1):
            raise UserError(
                f"text: val_share {self.val_share} and test_share {self.test_share}: use shares above 0 that "
                "leave some for training"
            )
        if self.unit not in ("file", "paragraph", "line"):
            raise UserError(f"text: unit is {self.unit!r}: use file, paragraph or line")

    def sources(self) -> Iterable[Source]:
        """All files, or all splits of a dataset. Files in shards are listed anew whenever this is iterated,
        so that none is held.

        Raises:
            UserError: nothing there; no labels, where they are wanted.
        """
        columns = (self.text_column, self.label_column)
        if self.path.startswith(HUB):
            name = self.path.removeprefix(HUB)
            return [*hugging_face.sources(name, *columns, optional=self.optional, splits=_STEMS)]
        path = Path(self.path)
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise UserError(f"{path} is no text: use {', '.join(SUFFIXES)}")
            return self._labelled([TextFile(path, None, self.unit, *columns, optional=self.optional)])
        if hugging_face.is_saved(path):
            raise UserError(f"{path} is a dataset of Hugging Face: give hf:{path}")
        shards = self.shards()
        if shards is None:
            return self._labelled([*map(self._file, find_files(path, SUFFIXES, "texts", notes=False))])
        return self._labelled(_Anew(lambda: map(self._file, shards.listings())))

    def _file(self, listing: Listing) -> TextFile:
        first, *inside = listing.name.split("/")
        split = split_of_name(listing.name)
        inside = inside if split is not None else [first, *inside]
        label = inside[0] if len(inside) > 1 and self.label_column is not None else None
        columns = (self.text_column, self.label_column)
        return TextFile(listing.path, split, self.unit, *columns, label, self.optional)

    def _labelled(self, files: Iterable[TextFile]) -> Iterable[Source]:
        """Where labels are wanted, tables alone if there are some; else the files in class folders."""
        if self.label_column is None or self.optional:
            return files
        tables = any(one.is_table for one in files)

        def is_kept(one: TextFile) -> bool:
            return one.is_table if tables else one.folder_label is not None

        if not any(map(is_kept, files)):
            raise UserError(
                f"{self.path} has no labels: give a table, or put the texts in a folder for each class"
            )
        notes = [str(one).removeprefix(f"{self.path}/") for one in files if not is_kept(one)]
        if notes:
            warn_of_skipped(self.path, "file(s) that have no labels", notes)
        return _Anew(lambda: filter(is_kept, files))

    def shards(self) -> ShardFolder | None:
        """Those that hold the files, where the path is a folder of such.

        Raises:
            UserError: as `open_shards`.
        """
        return None if self.path.startswith(HUB) else open_shards(self.path, "texts")

    def _unfiltered_shards(self) -> ShardFolder | None:
        """Those of which every file is a source: their index tells what these have in common."""
        return self.shards() if self.label_column is None or self.optional else None

    def _fixed(self) -> set[str | None]:
        """The splits that the names of the sources fix; None stands for none."""
        if shards := self._unfiltered_shards():
            return set(map(split_of_name, shards.names))
        return {source.split for source in self.sources()}

    def settings(self) -> dict[str, str]:
        """Where the texts are, and which shards, for what is written of a run."""
        shards = self.shards()
        own = {"path": self.path}
        return own if shards is None else {**own, "shards": shards.manifest.fingerprint}

    def content(self) -> Iterator[str]:
        """Lines that name the content of all sources: their own digests, or that of their shards.

        Raises:
            UserError: a file that cannot be read.
        """
        if shards := self.shards():
            yield f"shards {shards.manifest.fingerprint}"
            return
        yield from (source.digest() for source in self.sources())

    def fingerprint(self, content: str | None = None) -> Fingerprint:
        """Of the files, as `ssl_ebm.data.fingerprints` makes it; of a dataset by those of its library.

        Args:
            content: a digest of `content`, where it is known.

        Raises:
            UserError: as `content`.
        """
        if self.path.startswith(HUB):
            digest = hashlib.sha256("\n".join(self.content()).encode()).hexdigest()
            return Fingerprint(
                sha256=digest, of="fingerprints of the library `datasets`, and numbers of rows"
            )
        if shards := self.shards():
            return fingerprints.of_shards(shards)
        path = Path(self.path)
        if path.is_file():
            return fingerprints.of_files(lambda: [(path.name, path)], content=content)
        return fingerprints.of_folder(path, SUFFIXES, content=content)

    def size(self) -> tuple[int, str]:
        """How much there is to read, in bytes or in rows of a dataset."""
        if shards := self._unfiltered_shards():
            return shards.size(), TextFile.measure
        sources = self.sources()
        return sum(source.size() for source in sources), next(iter(sources)).measure

    def documents(self, blank: list[str] | None = None, seen: Seen = ignore) -> Iterator[Document]:
        """All documents that are not blank, without the white space around them.

        Where labels are wanted, rows with none (empty, or null) are left out, which a warning says.

        Args:
            blank: is extended by the files that hold none.
            seen: is told how much more has been read, in the unit of `size`.

        Raises:
            UserError: a file that cannot be read; it says where. No document at all.
        """
        sources, fixed = self.sources(), self._fixed()
        if fixed <= {"val", "test"} and not self.optional:
            raise UserError(
                f"{self.path} has {' and '.join(sorted(map(str, fixed)))} but no train: add it, or give "
                "one file alone"
            )
        empty, count = [], 0
        for source in sources:
            count += 1
            found, without = False, []
            for text, name, label in source.rows(seen):
                if label is None and self.label_column is not None and not self.optional:
                    without.append(name)
                elif text := text.strip():
                    found = True
                    yield Document(text, name, label, self._split(text, source.split, fixed))
            if without:
                warn_of_skipped(str(source), "row(s) that have no label", without)
            if not found:
                empty.append(str(source))
        if len(empty) == count:
            raise UserError(f"{self.path} has no text: its {count} file(s) are empty; give others")
        if blank is not None:
            blank += empty

    def _split(self, text: str, split: str | None, fixed: set[str | None]) -> str:
        """What a name says; of all other documents, shares go to val and test where no name fixes these."""
        if split in ("val", "test"):
            return split
        place = stream_key(self.seed, hashlib.sha256(text.encode()).hexdigest()) / 2**64
        if "test" not in fixed and place < self.test_share:
            return "test"
        if "val" not in fixed and 1 - place <= self.val_share:
            return "val"
        return SPLITS[0]


def split_of_name(name: str) -> str | None:
    """The split that a file's first folder, or its own name, fixes."""
    first = name.split("/")[0]
    dot = first.rfind(".")  # by hand: a Path for each name makes Python's table of interned strings grow
    return _STEMS.get((first[:dot] if 0 < dot < len(first) - 1 else first).lower())


def fingerprint(text: str) -> int:
    """64 bits by which texts are told apart: in a million texts two share them with a chance of 3e-8."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def warn_of_shared(path: str, split: str, count: int, documents: int) -> None:
    """Says that texts of a split that files fix are in train as well."""
    rank_zero_warn(
        f"{path}: {count} of the {documents} documents of {split} are in train as well: figures on them are "
        "too good; leave them out of one of the two"
    )
