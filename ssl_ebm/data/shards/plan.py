"""Which files of a folder go into which shard: decided before anything is written, so that a command which
was broken off can go on."""

from __future__ import annotations

import hashlib
import itertools
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ssl_ebm.data import decoding, documents, picture_files
from ssl_ebm.data.clips import scan_clips
from ssl_ebm.data.documents import split_of_name
from ssl_ebm.data.listings import Listing, file_names, scan_files, suffix_of
from ssl_ebm.data.shards.manifest import VERSION, Kind
from ssl_ebm.errors import UserError

SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "images": picture_files.SUFFIXES,
    "clips": (*decoding.SUFFIXES, ".npz"),
    "texts": documents.SUFFIXES,
}
_LONGEST_LINE = 2**20  # bytes that are read at a time in search of the end of a line


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or a part of a long text.

    Attributes:
        listing: the file.
        start, size: of the part, in bytes; of an array of clips the size is estimated.
        changed: when the file was, in nanoseconds.
        number: of the part, from 0.
        of_several: the file was cut into parts.
    """

    listing: Listing
    start: int
    size: int
    changed: int
    number: int = 0
    of_several: bool = False


@dataclass
class Share:
    """What is to go into one shard.

    Attributes:
        pieces, size: how many there are, and their bytes together.
        files: that begin here.
        digest: names the pieces, with all that a shard and its index say of them.
    """

    pieces: int = 0
    size: int = 0
    digest: bytes = b""
    files: int = 0

    def add(self, piece: Piece) -> None:
        """Counts one more."""
        self.pieces += 1
        self.size += piece.size
        self.files += piece.number == 0
        one = piece.listing
        told = (one.name, piece.start, piece.size, piece.changed, one.label, one.split, one.group)
        self.digest = hashlib.sha256(self.digest + f"{told}".encode(errors="surrogateescape")).digest()


@dataclass(frozen=True)
class Plan:
    """All shards to be written. Holds none of the files' names: they are listed again as they are packed, so
    memory does not grow with their number (but with that of one folder's own files, and with images.csv).

    Attributes:
        source: the folder or file.
        kind: of its files.
        shard_bytes: most bytes of a shard.
        shares: what goes into each.
        digest: names the files, their sizes, times of change, classes and splits, and the settings.
    """

    source: str
    kind: Kind
    shard_bytes: int
    shares: list[Share]
    digest: str

    @cached_property
    def pieces(self) -> int:
        return sum(share.pieces for share in self.shares)

    @cached_property
    def files(self) -> int:
        return sum(share.files for share in self.shares)

    @cached_property
    def bytes(self) -> int:
        return sum(share.size for share in self.shares)

    def shards(self, out: str | Path) -> Iterator[Iterator[Piece]]:
        """The pieces of each shard, to be taken in order.

        Args:
            out: where they are written, for the message.

        Raises:
            UserError: they are not those of the plan any more: files have come, gone or changed.
        """
        changed = UserError(
            f"{self.source} changed after it was listed: remove {out}, and run the same command again"
        )
        pieces = _all_pieces(Path(self.source), self.kind, self.shard_bytes, hashlib.sha256())
        for share in self.shares:
            yield self._checked(itertools.islice(pieces, share.pieces), share, changed)
        if next(pieces, None) is not None:
            raise changed

    @staticmethod
    def _checked(pieces: Iterable[Piece], share: Share, changed: UserError) -> Iterator[Piece]:
        seen = Share()
        for piece in pieces:
            seen.add(piece)
            if seen.pieces == share.pieces and seen != share:
                break
            yield piece
        if seen != share:
            raise changed


def make_plan(source: str | Path, kind: Kind | None, shard_bytes: int) -> Plan:
    """Lists the files and shares them out among shards, in their order.

    Args:
        source: a folder of pictures, clips, or text; or one file of text.
        kind: of the files; None: what their endings say.
        shard_bytes: a shard is closed before the file that would take it beyond. A longer file has a shard
            of its own, but long text is cut into parts, at the end of a line.

    Raises:
        UserError: nothing there, or files of several kinds.
    """
    source = Path(source)
    kind = kind or _kind_of(source)
    digest = hashlib.sha256(f"{VERSION} {kind} {shard_bytes}\n".encode())
    shares: list[Share] = []
    filled = 0
    for piece in _all_pieces(source, kind, shard_bytes, digest):
        # a header, and zeros up to a whole block
        taken = tarfile.BLOCKSIZE + -(-piece.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if not shares or filled + taken > shard_bytes:
            shares.append(Share())
            filled = 0
        shares[-1].add(piece)
        filled += taken
    return Plan(str(source), kind, shard_bytes, shares, digest.hexdigest())


def _all_pieces(source: Path, kind: Kind, most: int, digest: hashlib._Hash) -> Iterator[Piece]:
    for listing in _listings(source, kind):
        yield from _pieces(listing, kind, most, digest)


def _kind_of(source: Path) -> Kind:
    if not source.exists():
        raise UserError(f"no folder {source}: give a folder of pictures, clips, or text")
    suffixes = set(map(suffix_of, file_names(source) if source.is_dir() else [source.name]))
    for notes in ("images.csv", "clips.csv"):  # which are no text
        if (source / notes).is_file() and ".txt" not in suffixes:
            suffixes.discard(".csv")
    found: list[Kind] = [kind for kind, endings in SUFFIXES.items() if suffixes & set(endings)]
    if not found:
        known = ", ".join(ending for endings in SUFFIXES.values() for ending in endings)
        raise UserError(f"no pictures, clips or text in {source}: put some there ({known})")
    if len(found) > 1:
        raise UserError(f"{source} may hold {' or '.join(found)}: say which, with --kind")
    return found[0]


def _listings(source: Path, kind: Kind) -> Iterator[Listing]:
    if kind == "clips":
        yield from scan_clips(source)
    elif kind == "images":
        yield from scan_files(source, SUFFIXES[kind], kind)
    elif source.is_file():
        if source.suffix.lower() not in SUFFIXES[kind]:
            raise UserError(f"{source} is no text: use {', '.join(SUFFIXES[kind])}")
        yield Listing(source, source.name, source.name)
    else:
        for one in scan_files(source, SUFFIXES[kind], kind, notes=False):
            yield Listing(one.path, one.name, one.name, None, split_of_name(one.name))


def _pieces(listing: Listing, kind: Kind, most: int, digest: hashlib._Hash) -> Iterator[Piece]:
    """The parts of a file, which the digest takes in."""
    assert isinstance(listing.path, Path)
    try:
        state = listing.path.stat()
        size = state.st_size
        if listing.row is not None:
            size = _array_bytes(listing.path)
        described = (listing.name, size, state.st_mtime_ns, listing.label, listing.split, listing.group)
        digest.update(f"{described}\n".encode(errors="surrogateescape"))
        if kind != "texts" or size <= most:
            yield Piece(listing, 0, size, state.st_mtime_ns)
            return
        with listing.path.open("rb") as file:
            start = number = 0
            while start < size:
                end = _line_end(file, start + most, size)
                yield Piece(listing, start, end - start, state.st_mtime_ns, number, of_several=True)
                start, number = end, number + 1
    except OSError as error:
        raise UserError(f"cannot read {listing.path}: {error.strerror or error}") from error


def _line_end(file: BinaryIO, place: int, size: int) -> int:
    """Where the line that holds the byte before a place ends; a UTF-8 character never goes beyond."""
    if place >= size:
        return size
    file.seek(place - 1)
    while block := file.read(_LONGEST_LINE):
        if (found := block.find(b"\n")) >= 0:
            return file.tell() - len(block) + found + 1
    return size


def _array_bytes(path: Path) -> int:
    """Bytes of one clip of a file of arrays; of a broken one, those of the file."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("video.npy") as file:
            np.lib.format.read_magic(file)
            shape = np.lib.format.read_array_header_1_0(file)[0]
        return int(np.prod(shape[1:]))
    except Exception:  # of another type for each way in which a file can be wrong; reading it will say
        return path.stat().st_size
