"""The index of a folder of shards: plain records in files, of which memory holds a block at a time.

items.bin   a record for each item, see `ITEM`
names.bin   the items' names, one after another, as bytes of the file system
groups.bin  the names of their groups, where these are others
clips.bin   of clips: a record for each item, see `CLIP`
times.bin   of clips: seconds of all frames (float64), then their stamps (int64), if there are any

Numbers are little-endian. Records hold no objects, so reading them runs no code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.shards.records import Records

ITEM = np.dtype(
    [
        ("shard", "<u4"),  # number of the tar file
        ("crc", "<u4"),  # CRC-32 of the content
        ("offset", "<u8"),  # of the content in the tar file
        ("size", "<u8"),  # bytes of the content
        ("name_end", "<u8"),  # in names.bin
        ("group_end", "<u8"),  # in groups.bin
        ("label", "<i4"),  # place in the list of classes; -1: none
        ("split", "i1"),  # place in SPLITS; -1: none is fixed
        ("begins", "?"),  # a file; false: a part that goes on with the file of the item before
    ]
)
CLIP = np.dtype(
    [
        ("last", "<f8"),  # seconds at which the last frame is shown, from the first
        ("gap", "<f8"),  # median of the seconds between two frames
        ("times_end", "<u8"),  # in times.bin
        ("frames", "<u4"),
        ("crc", "<u4"),  # CRC-32 of the times
        ("stamped", "?"),
    ]
)
ITEMS, NAMES, GROUPS, CLIPS, TIMES = "items.bin", "names.bin", "groups.bin", "clips.bin", "times.bin"
_BLOCK = 512  # rows of the index between which `Rows` counts


class Strings:
    """Names one after another in a file.

    Args:
        path: of the bytes.
        items: records that tell where each name ends.
        end: the name of their field.
    """

    def __init__(self, path: Path, items: Records, end: str) -> None:
        self.bytes, self.items, self.end = Records(path, np.uint8), items, end

    def __getitem__(self, row: int) -> str:
        if not 0 <= row < len(self.items):
            raise IndexError(f"row {row} of {len(self.items)} in {self.bytes.path}")
        ends = self.items.some(max(row - 1, 0), row + 1)[self.end].tolist()
        start = ends[0] if row else 0
        return os.fsdecode(self.bytes.some(start, ends[-1]).tobytes())

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, self.as_bytes())

    def as_bytes(self) -> Iterator[bytes]:
        """All of them, some thousands read at a time."""
        start = 0
        for block in self.items.blocks():
            ends = block[self.end].tolist()
            some, offset = self.bytes.some(start, ends[-1]).tobytes(), start
            for end in ends:
                yield some[start - offset : end - offset]
                start = end


class Rows:
    """Some rows of an index in their order, held as a bit for each row of the index.

    Args:
        bits: (ceil(N / 8),) uint8, a bit for each row of the index, as `np.packbits` packs them.
    """

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self._bits = bits
        blocks = np.arange(0, len(bits), _BLOCK // 8)
        counts = np.add.reduceat(np.bitwise_count(bits), blocks, dtype=np.int64)
        self._before = np.concatenate([[0], counts.cumsum()])  # of each block of the index, and of all

    def __len__(self) -> int:
        return int(self._before[-1])

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < len(self):
            raise IndexError(f"place {place} of {len(self)} rows")
        return int(self.some(place, place + 1)[0])

    def some(self, start: int, stop: int) -> NDArray[np.int64]:
        """(n,) those at the places start..stop - 1, of those that there are."""
        stop = min(stop, len(self))
        if start >= stop:
            return np.zeros(0, np.int64)
        first, last = (self._before.searchsorted([start, stop - 1], side="right") - 1).tolist()
        held = self._bits[first * _BLOCK // 8 : (last + 1) * _BLOCK // 8]
        (near,) = held.nonzero()  # where rows are few, most bytes have none
        byte, bit = np.unpackbits(held[near]).reshape(-1, 8).nonzero()
        before = int(self._before[first])
        return (first * _BLOCK + near[byte] * 8 + bit)[start - before : stop - before]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """(n,) all of them, in memory."""
        return np.flatnonzero(np.unpackbits(self._bits)).astype(
            np.int64 if dtype is None else dtype, copy=False
        )
