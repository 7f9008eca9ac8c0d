"""A file inside of shards, with the few methods of a path that readers of files use."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from ssl_ebm.data.shards.folder import ShardFolder


@dataclass(frozen=True)
class StoredFile:
    """A picture, a clip, or a file of text that lies in shards.

    Attributes:
        shards: which.
        row: of its first part in the index.
        parts: how many rows it takes.
        known: its name, where the index need not be asked for it.
    """

    shards: ShardFolder
    row: int
    parts: int = 1
    known: str | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """In the folder that the shards were made of."""
        return self.shards.names[self.row] if self.known is None else self.known

    @property
    def suffix(self) -> str:
        """As of a path: ".jpg"."""
        return os.path.splitext(self.name)[1]

    def __str__(self) -> str:
        return f"{self.shards.folder}/{self.name}"

    def size(self) -> int:
        """In bytes."""
        return int(self.shards.items.some(self.row, self.row + self.parts)["size"].sum())

    def read_bytes(self) -> bytes:
        """The whole content, which has its checksum.

        Raises:
            UserError: a shard that cannot be read, or was changed.
        """
        return b"".join(self.shards.read(row) for row in range(self.row, self.row + self.parts))

    def open(self, mode: str = "rb") -> BinaryIO:
        """The content as a file; nothing of a part is read before the part has its checksum.

        Raises:
            UserError: as `read_bytes`, then or while it is read.
        """
        if mode != "rb":
            raise ValueError(f"a stored file is read in mode rb, not {mode}")
        return cast(BinaryIO, io.BufferedReader(_Parts(self), 2**16))


class _Parts(io.RawIOBase):
    """The parts of a stored file as one."""

    def __init__(self, file: StoredFile) -> None:
        self.shards, self.row = file.shards, file.row
        self.sizes = file.shards.items.some(file.row, file.row + file.parts)["size"].tolist()
        self.size, self.place = sum(self.sizes), 0
        self.name = file.name  # FFmpeg takes hints from its ending

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        self.place = max(0, start + offset)
        return self.place

    def readinto(self, buffer: Any) -> int:
        before = 0
        for part, size in enumerate(self.sizes):
            if self.place < before + size:
                inside = self.place - before
                wanted = min(len(buffer), size - inside)
                buffer[:wanted] = self.shards.read_some(self.row + part, inside, wanted)
                self.place += wanted
                return wanted
            before += size
        return 0
