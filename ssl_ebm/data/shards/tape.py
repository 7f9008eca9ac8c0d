"""One shard while it is written."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.shards.intake import BrokenFileError, Content, blocks
from ssl_ebm.data.shards.plan import Piece
from ssl_ebm.data.shards.tables import CLIP, ITEM
from ssl_ebm.data.splits import SPLITS


class Tape:
    """A tar file that is being written, and what the index is to say of it.

    The headers are those of `tarfile`, without times and owners.

    Args:
        file: to write to.
        number: of the shard.
    """

    def __init__(self, file: BinaryIO, number: int) -> None:
        self.file, self.number, self.place = file, number, 0
        self.sha256 = hashlib.sha256()
        self.items: list[tuple[Any, ...]] = []
        self.clips: list[tuple[Any, ...]] = []
        self.names: list[bytes] = []
        self.groups: list[bytes] = []
        self.labels: list[str] = []
        self.times: list[bytes] = []
        self.broken: list[str] = []

    def _write(self, some: bytes) -> None:
        self.file.write(some)
        self.sha256.update(some)
        self.place += len(some)

    def add(self, piece: Piece, content: Content | BrokenFileError) -> None:
        """Writes a file, or notes why it is left out.

        Raises:
            UserError: the file has changed, or cannot be read.
        """
        listing = piece.listing
        if isinstance(content, BrokenFileError):
            self.broken.append(json.dumps([listing.name, str(content)]))
            return
        info = tarfile.TarInfo(content.member)
        info.size = content.size
        self._write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        offset, crc = self.place, 0
        assert isinstance(listing.path, Path)
        held = content.held
        for block in blocks(listing.path, piece.start, content.size) if held is None else [held]:
            self._write(block)
            crc = zlib.crc32(block, crc)
        self._write(bytes(-self.place % tarfile.BLOCKSIZE))
        split = -1 if listing.split is None else SPLITS.index(listing.split)
        self.names.append(os.fsencode(listing.name))
        self.groups.append(os.fsencode(listing.group))
        self.labels.append(listing.label or "")
        ends = len(self.names[-1]), len(self.groups[-1])  # lengths, until all are put together
        begins = piece.number == 0
        self.items.append((self.number, crc, offset, content.size, *ends, -1, split, begins))
        self._add_times(content)

    def _add_times(self, content: Content) -> None:
        timeline = content.timeline
        if timeline is None:
            self.clips.append((0.0, 0.0, 0, content.frames, 0, False))
            return
        seconds = timeline.seconds.astype("<f8")
        gap = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
        held = seconds.tobytes()
        if timeline.stamps is not None:
            held += timeline.stamps.astype("<i8").tobytes()
        self.times.append(held)
        stamped = timeline.stamps is not None
        self.clips.append((seconds[-1], gap, len(held), content.frames, zlib.crc32(held), stamped))

    def close(self) -> dict[str, Any]:
        """Ends the tar file; the arrays of this shard's part of the index."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.place % tarfile.RECORDSIZE))
        return {
            "size": self.place,
            "sha256": np.array(self.sha256.hexdigest()),
            "items": np.array(self.items, ITEM),
            "clips": np.array(self.clips, CLIP),
            "names": _joined(self.names),
            "groups": _joined(self.groups),
            "times": _joined(self.times),
            "labels": np.array(self.labels, dtype=np.str_),
            "broken": np.array(self.broken, dtype=np.str_),
        }


def _joined(parts: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(parts), np.uint8)
