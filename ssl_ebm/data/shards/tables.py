"""The index of a folder of shards: plain records in files that are mapped, not read.

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
_AT_ONCE = 65_536  # names that are in memory at a time


def map_records(path: Path, dtype: Any) -> NDArray[Any]:
    """The whole records of a file, mapped for reading."""
    count = path.stat().st_size // np.dtype(dtype).itemsize if path.is_file() else 0
    return np.memmap(path, dtype, "r", shape=(count,)) if count else np.zeros(0, dtype)  # mmap takes no 0


class Strings:
    """Names one after another in a file.

    Args:
        path: of the bytes.
        ends: (N,) where each name ends.
    """

    def __init__(self, path: Path, ends: NDArray[np.uint64]) -> None:
        self.bytes, self.ends = map_records(path, np.uint8), ends

    def __getitem__(self, row: int) -> str:
        start = int(self.ends[row - 1]) if row else 0
        return os.fsdecode(self.bytes[start : int(self.ends[row])].tobytes())

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, self.as_bytes())

    def as_bytes(self) -> Iterator[bytes]:
        """All of them, some thousands read at a time."""
        start = 0
        for first in range(0, len(self.ends), _AT_ONCE):
            ends = self.ends[first : first + _AT_ONCE].tolist()
            some, offset = self.bytes[start : ends[-1]].tobytes(), start
            for end in ends:
                yield some[start - offset : end - offset]
                start = end
