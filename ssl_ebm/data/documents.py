"""Documents from files: plain text, tables, JSON lines. Read one after another, so that memory stays flat."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ssl_ebm.data.listings import SPLITS, find_files
from ssl_ebm.data.loading import warn_of_skipped
from ssl_ebm.data.randomness import stream_key
from ssl_ebm.data.shards.folder import ShardFolder, open_shards
from ssl_ebm.data.shards.stored import StoredFile
from ssl_ebm.errors import UserError

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
_STEMS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
_NUMBERS = re.compile(r"\d+(\+\d+)*")
SHOWN = 80  # characters of a table's first line in a message
Unit = Literal["file", "paragraph", "line"]


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


@dataclass(frozen=True)
class Corpus:
    """The documents of a file, or of all files below a folder.

    A folder or file named train, val (valid, validation, dev) or test fixes the split of its documents;
    where none does, or none is val or test, a document's text decides, so that a text that occurs twice is on
    one side. Where labels are wanted, a .txt beside tables has none: it is named and left out.

    Args:
        path: a folder, or a file: .txt, .csv, .tsv, .jsonl; or a folder of shards that `ssl-ebm shard` has
            made of one of these.
        unit: what is a document of a .txt file: the file, a paragraph (up to an empty line), a line.
        text_column, label_column: of tables and JSON lines, as the first line of a table names it. Of a table
            whose first line names nothing, its number, from 1; "2+3" joins two. Null: there are no labels.
        val_share, test_share: of the documents whose split no name fixes.
        seed: of the same.

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

    def __post_init__(self) -> None:
        if not (min(self.val_share, self.test_share) > 0 and self.val_share + self.test_share < 1):
            raise UserError(
                f"text: val_share {self.val_share} and test_share {self.test_share}: use shares above 0 that "
                "leave some for training"
            )
        if self.unit not in ("file", "paragraph", "line"):
            raise UserError(f"text: unit is {self.unit!r}: use file, paragraph or line")

    def files(self) -> list[tuple[Path | StoredFile, str | None]]:
        """All files, and the splits that their names fix.

        Raises:
            UserError: nothing there.
        """
        path = Path(self.path)
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise UserError(f"{path} is no text: use {', '.join(SUFFIXES)}")
            return [(path, None)]
        shards = self.shards()
        if shards is not None:
            listings = shards.listings()
        else:
            found = find_files(path, SUFFIXES, "texts")
            listings = [replace(one, split=split_of_name(one.name)) for one in found]
        if self.label_column is not None:
            tables = [one for one in listings if one.path.suffix.lower() != ".txt"]
            if tables and len(tables) < len(listings):
                notes = [one.name for one in listings if one not in tables]
                warn_of_skipped(self.path, "file(s) that have no labels", notes)
                listings = tables
        return [(one.path, one.split) for one in listings]

    def shards(self) -> ShardFolder | None:
        """Those that hold the files, where the path is a folder of such.

        Raises:
            UserError: as `open_shards`.
        """
        return open_shards(self.path, "texts")

    def content(self) -> Iterator[str]:
        """Lines that name the content of all files: their checksums, or those of their shards.

        Raises:
            UserError: a file that cannot be read.
        """
        shards = self.shards()
        if shards is not None:
            yield f"shards {shards.manifest.fingerprint}"
            return
        for path, split in self.files():
            try:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror or error}") from error
            yield f"{path.suffix} {split} {content}"

    def documents(self, blank: list[str] | None = None) -> Iterator[Document]:
        """All documents that are not blank, without the white space around them.

        Args:
            blank: is extended by the files that hold none.

        Raises:
            UserError: a file that cannot be read; it says where. No document at all.
        """
        files = self.files()
        fixed = {split for _, split in files}
        if fixed <= {"val", "test"}:
            raise UserError(
                f"{self.path} has {' and '.join(sorted(map(str, fixed)))} but no train: add it, or give "
                "one file alone"
            )
        empty = []
        for path, split in files:
            found = False
            for text, name, label in self._read(path):
                if text := text.strip():
                    found = True
                    yield Document(text, name, label, self._split(text, split, fixed))
            if not found:
                empty.append(str(path))
        if len(empty) == len(files):
            raise UserError(f"{self.path} has no text: its {len(files)} file(s) are empty; give others")
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

    def _read(self, path: Path | StoredFile) -> Iterator[tuple[str, str, str | None]]:
        kind = path.suffix.lower()
        if kind == ".txt":
            yield from ((text, name, None) for text, name in self._plain(path))
        elif kind == ".jsonl":
            yield from self._json_lines(path)
        else:
            yield from self._table(path, "\t" if kind == ".tsv" else ",")

    def _plain(self, path: Path | StoredFile) -> Iterator[tuple[str, str]]:
        if self.unit == "line":
            yield from ((line, f"{path}:{i}") for i, line in _lines(path))
            return
        gathered: list[str] = []
        first = 1
        for i, line in _lines(path):
            if self.unit == "paragraph" and not line.strip():
                yield "".join(gathered), f"{path}:{first}"
                gathered, first = [], i + 1
            else:
                gathered.append(line)
        yield "".join(gathered), f"{path}:{first}"

    def _json_lines(self, path: Path | StoredFile) -> Iterator[tuple[str, str, str | None]]:
        for i, line in _lines(path):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                text = row[self.text_column]
                label = None if self.label_column is None else str(row[self.label_column])
            except ValueError as error:
                raise UserError(f"{path}, line {i}: this is no JSON: {error}") from error
            except (KeyError, TypeError) as error:
                raise UserError(
                    f"{path}, line {i}: no entry {self.text_column!r} or {self.label_column!r}: "
                    "set text_column or label_column, or mend the line"
                ) from error
            if not isinstance(text, str) or not _is_unicode(text):
                raise UserError(f"{path}, line {i}: {self.text_column} is no text: mend it, or leave it out")
            yield text, f"{path}:{i}", label

    def _table(self, path: Path | StoredFile, between: str) -> Iterator[tuple[str, str, str | None]]:
        csv.field_size_limit(sys.maxsize)
        lines = (line for _, line in _lines(path))
        if between == "\t":  # a quote in a text is one
            rows = csv.reader(lines, delimiter=between, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(lines, strict=True)
        width, text, label = 0, [0], [0]
        try:
            for row in rows:
                if not row:  # a blank line
                    continue
                if not width:
                    width = len(row)
                    text = self._places(path, "text_column", self.text_column, row)
                    if self.label_column is not None:
                        label = self._places(path, "label_column", self.label_column, row)
                    if _NUMBERS.fullmatch(self.text_column) is None or self.text_column in row:
                        continue  # the names of the columns
                if len(row) != width:
                    raise UserError(
                        f"{path}, line {rows.line_num}: {len(row)} columns in place of {width}: "
                        "mend it (quote a text that holds the separator)"
                    )
                joined = [" ".join(row[place] for place in places) for places in (text, label)]
                yield joined[0], f"{path}:{rows.line_num}", None if self.label_column is None else joined[1]
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num}: {error}: mend it, or leave it out") from error

    def _places(self, path: Path | StoredFile, setting: str, column: str, first: list[str]) -> list[int]:
        """Which columns are meant, given the first line."""
        if column in first:
            return [first.index(column)]
        numbers = [int(one) for one in column.split("+")] if _NUMBERS.fullmatch(column) else [0]
        if not all(1 <= number <= len(first) for number in numbers):
            shown = ", ".join(first)
            shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
            raise UserError(
                f"{path} has no column {column!r}, its first line names {shown}: set {setting} to one "
                f"of these, or to a number up to {len(first)} if they are no names"
            )
        return [number - 1 for number in numbers]


def split_of_name(name: str) -> str | None:
    """The split that a file's first folder, or its own name, fixes."""
    return _STEMS.get(Path(name.split("/")[0]).stem.lower())


def _is_unicode(text: str) -> bool:
    """JSON may hold halves of surrogate pairs, which are no characters."""
    return not any("\ud800" <= one <= "\udfff" for one in text) if not text.isascii() else True


def _lines(path: Path | StoredFile) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without a byte-order mark.

    Raises:
        UserError: a file that cannot be read, or is not UTF-8: it says at which byte, from 0.
    """
    start = 0
    try:
        with path.open("rb") as file:
            for i, line in enumerate(file, 1):
                text = line.decode("utf-8")
                yield i, text.removeprefix("\ufeff") if i == 1 else text
                start += len(line)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8, at byte {start + error.start}: convert it, or leave it out"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
