"""What names the files that data are made of: other files have another fingerprint."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from ssl_ebm.data.listings import file_names
from ssl_ebm.data.shards.folder import ShardFolder
from ssl_ebm.files import sha256_of

MOST_BYTES, MOST_FILES = 2**28, 10_000  # of whose content is read
MOST_SIZES = 100_000  # that are asked for, each a question to a file system that may be far away
NamedFiles = Iterable[tuple[str, Path]]


class Fingerprint(TypedDict):
    """Attributes:
    sha256: 64 hexadecimal digits.
    of: what it covers, in words.
    """

    sha256: str
    of: str


def of_files(
    begin: Callable[[], NamedFiles], tables: Sequence[Path] = (), content: str | None = None
) -> Fingerprint:
    """SHA-256 over names and sizes of files, in their order; of up to `MOST_FILES` with `MOST_BYTES` in all
    over their content, too. Of more than `MOST_SIZES` files only every second, third, ... has its size asked
    for. It takes no memory. Times do not count: a copy has the fingerprint of what it was made of.

    Args:
        begin: begins a pass over the files: the name of each in any copy of the data, and its place. There
            may be three.
        tables: files that say what the others are; their content counts always, where they are there.
        content: a digest of their content, where there is one: they are not read for it again.
    """
    digest, total = hashlib.sha256(), 0
    count = sum(1 for _ in begin())
    every = max(math.ceil(count / MOST_SIZES), 1)
    for number, (name, path) in enumerate(begin()):
        size = 0 if number % every else _size(path)
        digest.update(f"{size} ".encode() + os.fsencode(name) + b"\0")
        total += size
    for path in tables:
        digest.update(_content(path))
    if content is not None:
        digest.update(content.encode())
    elif count > MOST_FILES or total > MOST_BYTES:
        sizes = "sizes" if every == 1 else f"one in {every} of the sizes"
        return Fingerprint(sha256=digest.hexdigest(), of=f"names and {sizes} of {count} files")
    else:
        for _, path in begin():
            digest.update(_content(path))
    return Fingerprint(sha256=digest.hexdigest(), of=f"names, sizes and content of {count} files")


def of_folder(
    folder: Path,
    suffixes: Collection[str] | None = None,
    tables: Sequence[Path] = (),
    content: str | None = None,
) -> Fingerprint:
    """The same of all files below a folder that have one of these suffixes, as `file_names` finds them.

    Raises:
        UserError: a folder cannot be read.
    """

    def begin() -> Iterator[tuple[str, Path]]:
        return ((name, folder / name) for name in file_names(folder, suffixes))

    return of_files(begin, tables, content)


def of_paths(paths: Sequence[Path]) -> Fingerprint:
    """The same of some files, by their own names; of those that are there."""
    there = [path for path in paths if path.exists()]
    return of_files(lambda: ((path.name, path) for path in there))


def of_shards(shards: ShardFolder) -> Fingerprint:
    """That of the shards, which their index says."""
    return Fingerprint(sha256=shards.manifest.fingerprint, of="classes, and checksums of shards and index")


def _size(path: Path) -> int:
    """In bytes; -1 of what is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _content(path: Path) -> bytes:
    try:
        return sha256_of(path).encode()
    except OSError:
        return b"none"
