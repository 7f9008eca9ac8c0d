"""Rows of text files: plain text, tables, JSON lines. Read one after another, so that memory stays flat."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal, NamedTuple

from ssl_ebm.data.shards.stored import StoredFile
from ssl_ebm.errors import UserError

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
Unit = Literal["file", "paragraph", "line"]
AT_ONCE = 2**16  # bytes of a file in shards that is read as a whole
SHOWN = 80  # characters of a table's first line in a message
Seen = Callable[[int], None]  # is told how much more has been read
_NUMBERS = re.compile(r"\d+(\+\d+)*")


def ignore(_: int) -> None:
    """For nobody who wants to know."""


class Row(NamedTuple):
    """A text, how messages call it, and its class name where there is one."""

    text: str
    name: str
    label: str | None


@dataclass(frozen=True)
class TextFile:
    """A file of texts.

    Args:
        path: ends in .txt, .csv, .tsv or .jsonl; on its own, or inside of shards.
        split: "train", "val" or "test", where its name or its folder fixes that.
        unit: what is a text of a .txt file: the file, a paragraph (up to an empty line), a line.
        text_column, label_column: of tables and JSON lines; see `ssl_ebm.data.documents.Corpus`.
        folder_label: class of all texts of a .txt file.
        optional: a text may have no label.
    """

    measure: ClassVar[str] = "bytes"

    path: Path | StoredFile
    split: str | None
    unit: Unit
    text_column: str
    label_column: str | None
    folder_label: str | None = None
    optional: bool = False

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_table(self) -> bool:
        """Whether labels may stand beside the texts."""
        return self.path.suffix.lower() != ".txt"

    def size(self) -> int:
        """In bytes; 0 where there is no such file."""
        if isinstance(self.path, StoredFile):
            return self.path.size()
        return self.path.stat().st_size if self.path.is_file() else 0

    def digest(self) -> str:
        """Names the content.

        Raises:
            UserError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error
        return f"{self.path.suffix} {self.split} {content}"

    def rows(self, seen: Seen = ignore) -> Iterator[Row]:
        """All texts, blank ones among them; `seen` is told how many more bytes have been read.

        Raises:
            UserError: it cannot be read; it says where.
        """
        kind = self.path.suffix.lower()
        if kind == ".txt":
            yield from (Row(text, name, self.folder_label) for text, name in self._plain(seen))
        elif kind == ".jsonl":
            yield from self._json_lines(seen)
        else:
            yield from self._table("\t" if kind == ".tsv" else ",", seen)

    def _plain(self, seen: Seen) -> Iterator[tuple[str, str]]:
        if self.unit == "line":
            yield from ((line, f"{self.path}:{i}") for i, line in _lines(self.path, seen))
            return
        gathered: list[str] = []
        first = 1
        for i, line in _lines(self.path, seen):
            if self.unit == "paragraph" and not line.strip():
                yield "".join(gathered), f"{self.path}:{first}"
                gathered, first = [], i + 1
            else:
                gathered.append(line)
        yield "".join(gathered), f"{self.path}:{first}"

    def _json_lines(self, seen: Seen) -> Iterator[Row]:
        for i, line in _lines(self.path, seen):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                text = row[self.text_column]
                label = self._label(row)
            except ValueError as error:
                raise UserError(f"{self.path}, line {i}: this is no JSON: {error}") from error
            except (KeyError, TypeError) as error:
                raise UserError(
                    f"{self.path}, line {i}: no entry {self.text_column!r} or {self.label_column!r}: "
                    "set text_column or label_column, or mend the line"
                ) from error
            if not isinstance(text, str) or not is_unicode(text):
                raise UserError(
                    f"{self.path}, line {i}: {self.text_column} is no text: mend it, or leave it out"
                )
            yield Row(text, f"{self.path}:{i}", label)

    def _label(self, row: dict[str, object]) -> str | None:
        """The class that stands in a line, if any."""
        if self.label_column is None:
            return None
        found = row.get(self.label_column) if self.optional else row[self.label_column]
        return None if found is None else _class(str(found))

    def _table(self, between: str, seen: Seen) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)
        lines = (line for _, line in _lines(self.path, seen))
        if between == "\t":  # a quote in a text is one
            rows = csv.reader(lines, delimiter=between, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(lines, strict=True)
        width, text = 0, [0]
        label: list[int] | None = None
        try:
            for row in rows:
                if not row:  # a blank line
                    continue
                if not width:
                    width = len(row)
                    text = self._places("text_column", self.text_column, row)
                    label = self._label_places(row)
                    by_number = _NUMBERS.fullmatch(self.text_column) is not None
                    if not by_number or self.text_column in row or self.label_column in row:
                        continue  # the names of the columns
                if len(row) != width:
                    raise UserError(
                        f"{self.path}, line {rows.line_num}: {len(row)} columns in place of {width}: "
                        "mend it (quote a text that holds the separator)"
                    )
                named = None if label is None else " ".join(row[place] for place in label)
                joined = " ".join(row[place] for place in text)
                yield Row(joined, f"{self.path}:{rows.line_num}", _class(named or ""))
        except csv.Error as error:
            raise UserError(
                f"{self.path}, line {rows.line_num}: {error}: mend it, or leave it out"
            ) from error

    def _label_places(self, first: list[str]) -> list[int] | None:
        """Columns of the label; None where there is none, and need not be."""
        column = self.label_column
        if column is None:
            return None
        if self.optional and column not in first and _NUMBERS.fullmatch(column) is None:
            return None
        return self._places("label_column", column, first)

    def _places(self, setting: str, column: str, first: list[str]) -> list[int]:
        """Which columns are meant, given the first line."""
        if column in first:
            return [first.index(column)]
        numbers = [int(one) for one in column.split("+")] if _NUMBERS.fullmatch(column) else [0]
        if not all(1 <= number <= len(first) for number in numbers):
            shown = ", ".join(first)
            shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
            raise UserError(
                f"{self.path} has no column {column!r}, its first line names {shown}: set {setting} to one "
                f"of these, or to a number up to {len(first)} if they are no names"
            )
        return [number - 1 for number in numbers]


def _class(name: str) -> str | None:
    """A blank name is none."""
    return name if name.strip() else None


def is_unicode(text: str) -> bool:
    """Whether it has no halves of surrogate pairs, which JSON and a command's arguments may hold."""
    return not any("\ud800" <= one <= "\udfff" for one in text) if not text.isascii() else True


def _open(path: Path | StoredFile) -> BinaryIO:
    """A small file in shards is read at once: to open millions of them piece by piece takes twice as long."""
    if isinstance(path, StoredFile) and path.size() <= AT_ONCE:
        return io.BytesIO(path.read_bytes())
    return path.open("rb")


def _lines(path: Path | StoredFile, seen: Seen) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without a byte-order mark.

    Raises:
        UserError: a file that cannot be read, or is not UTF-8: it says at which byte, from 0.
    """
    start = 0
    try:
        with _open(path) as file:
            for i, line in enumerate(file, 1):
                text = line.decode("utf-8")
                yield i, text.removeprefix("\ufeff") if i == 1 else text
                start += len(line)
                seen(len(line))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8, at byte {start + error.start}: convert it, or leave it out"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
