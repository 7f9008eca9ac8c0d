"""Documents from files: plain text, tables, JSON lines. Read one after another, so that memory stays flat."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssl_ebm.data.listings import SPLITS, find_files
from ssl_ebm.data.randomness import stream_key
from ssl_ebm.errors import UserError

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
_STEMS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
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
    one side.

    Args:
        path: a folder, or a file: .txt, .csv or .tsv with a header, .jsonl.
        unit: what is a document of a .txt file: the file, a paragraph (up to an empty line), a line.
        text_column, label_column: of tables and JSON lines. Null: there are no labels.
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

    def files(self) -> list[tuple[Path, str | None]]:
        """All files, and the splits that their names fix.

        Raises:
            UserError: nothing there.
        """
        path = Path(self.path)
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise UserError(f"{path} is no text: use {', '.join(SUFFIXES)}")
            return [(path, None)]
        found = []
        for listing in find_files(path, SUFFIXES, "texts"):
            first = listing.path.relative_to(path).parts[0]
            found.append((listing.path, _STEMS.get(Path(first).stem.lower())))
        return found

    def documents(self) -> Iterator[Document]:
        """All documents that are not blank.

        Raises:
            UserError: a file that cannot be read; it says where.
        """
        files = self.files()
        fixed = {split for _, split in files}
        for path, split in files:
            for text, name, label in self._read(path):
                if text.strip():
                    yield Document(text, name, label, self._split(text, split, fixed))

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

    def _read(self, path: Path) -> Iterator[tuple[str, str, str | None]]:
        kind = path.suffix.lower()
        if kind == ".txt":
            yield from ((text, name, None) for text, name in self._plain(path))
        elif kind == ".jsonl":
            yield from self._json_lines(path)
        else:
            yield from self._table(path, "\t" if kind == ".tsv" else ",")

    def _plain(self, path: Path) -> Iterator[tuple[str, str]]:
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

    def _json_lines(self, path: Path) -> Iterator[tuple[str, str, str | None]]:
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
                    f"{path}, line {i}: no entry {error}: set text_column or label_column"
                ) from error
            if not isinstance(text, str):
                raise UserError(f"{path}, line {i}: {self.text_column} is no text")
            yield text, f"{path}:{i}", label

    def _table(self, path: Path, between: str) -> Iterator[tuple[str, str, str | None]]:
        csv.field_size_limit(sys.maxsize)
        lines = (line for _, line in _lines(path))
        if between == "\t":  # a quote in a text is one
            rows = csv.reader(lines, delimiter=between, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(lines)
        header = next(rows, None)
        if header is None:
            return
        places = []
        for column in (self.text_column, self.label_column):
            if column is not None and column not in header:
                raise UserError(
                    f"{path} has no column {column!r}, its first line names {', '.join(header)}: set "
                    f"{'text_column' if column == self.text_column else 'label_column'}"
                )
            places.append(None if column is None else header.index(column))
        text, label = places
        assert text is not None
        for row in rows:
            if len(row) != len(header):
                raise UserError(
                    f"{path}, line {rows.line_num}: {len(row)} columns in place of {len(header)}: "
                    "mend it (quote a text that holds the separator)"
                )
            yield row[text], f"{path}:{rows.line_num}", None if label is None else row[label]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers.

    Raises:
        UserError: a file that cannot be read, or is not UTF-8: it says at which byte.
    """
    start = 0
    try:
        with path.open("rb") as file:
            for i, line in enumerate(file, 1):
                yield i, line.decode("utf-8-sig" if i == 1 else "utf-8")
                start += len(line)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8, at byte {start + error.start}: convert it, or leave it out"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
