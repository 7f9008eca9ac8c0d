"""What goes into a shard: each file looked at once, so that no broken one gets in."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_ebm.data.clip_arrays import load_row
from ssl_ebm.data.decoding import BrokenClipError, Timeline, read_timeline
from ssl_ebm.data.picture_files import BrokenPictureError, decode
from ssl_ebm.data.shards.manifest import Kind
from ssl_ebm.data.shards.plan import Piece
from ssl_ebm.errors import UserError

_BLOCK = 2**20  # bytes that are copied at a time


class BrokenFileError(Exception):
    """A file that would be of no use; the message names it and says why."""


@dataclass(frozen=True)
class Content:
    """What is written of a piece.

    Attributes:
        member: name in the tar file.
        size: in bytes.
        held: the bytes, where they are in memory; None: they are copied from the file.
        frames: of a clip.
        timeline: of a clip that is a video file.
    """

    member: str
    size: int
    held: bytes | None = None
    frames: int = 0
    timeline: Timeline | None = None


def take_in(piece: Piece, kind: Kind) -> Content:
    """Looks at a piece: a picture is decoded whole; of a clip the packets are counted and the first frame is
    decoded; text must be UTF-8.

    Raises:
        BrokenFileError: it cannot be read.
        UserError: it has changed after it was listed.
    """
    listing = piece.listing
    assert isinstance(listing.path, Path)
    try:
        if kind == "images":
            held = listing.path.read_bytes()
            decode(io.BytesIO(held), listing.name, grayscale=False)
            return Content(listing.name, len(held), held)
        if kind == "texts":
            _check_utf8(listing.path, piece)
            part = f".part{piece.number:05}" if piece.of_several else ""
            return Content(f"{listing.name}{part}", piece.size)
        if listing.row is None:
            timeline = read_timeline(listing.path)
            if listing.path.stat().st_size != piece.size:
                raise _changed(listing.path)
            return Content(listing.name, piece.size, None, len(timeline.seconds), timeline)
        array, file = load_row(listing), io.BytesIO()
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        return Content(f"{listing.name}.npy", file.tell(), file.getvalue(), len(array))
    except BrokenPictureError as error:
        raise BrokenFileError(str(error)) from error
    except BrokenClipError as error:
        raise BrokenFileError(f"{listing.name} cannot be read ({error})") from error
    except OSError as error:
        raise BrokenFileError(f"{listing.name} cannot be read ({error.strerror or error})") from error


def _check_utf8(path: Path, piece: Piece) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    place = piece.start
    try:
        for block in blocks(path, piece.start, piece.size):
            decoder.decode(block)
            place += len(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise BrokenFileError(
            f"{piece.listing.name} is not UTF-8, near byte {place + error.start}: convert it"
        ) from error


def blocks(path: Path, start: int, size: int) -> Iterator[bytes]:
    """A stretch of a file, block by block.

    Raises:
        UserError: the file has become shorter, or cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while size > 0:
                block = file.read(min(_BLOCK, size))
                if not block:
                    raise _changed(path)
                yield block
                size -= len(block)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _changed(path: Path) -> UserError:
    return UserError(
        f"{path} changed after it was listed: remove what was written, and run the command again"
    )
