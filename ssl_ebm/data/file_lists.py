"""Many files by their number: on their own in a folder, or inside of shards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.shards.folder import ShardFolder
from ssl_ebm.data.shards.stored import StoredFile
from ssl_ebm.data.shards.tables import Rows


class Files(Protocol):
    """Files by their number."""

    @property
    def source(self) -> str:
        """Where they lie, for messages."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """How messages call a file."""
        ...

    def path(self, index: int) -> Path | StoredFile:
        """What is opened."""
        ...


@dataclass(frozen=True)
class Name:
    """How messages call a file, looked up once a message is made."""

    files: Files
    index: int

    def __str__(self) -> str:
        return self.files.name(self.index)


@dataclass(frozen=True, eq=False)
class FilesOfFolder:
    """Files on their own.

    Attributes:
        folder: of all files.
        names: (N,) paths relative to the folder. (An array: workers would copy a list of strings, page by
            page, as they touch it.)
    """

    folder: Path
    names: NDArray[np.bytes_]

    @property
    def source(self) -> str:
        return str(self.folder)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return os.fsdecode(self.names[index])

    def path(self, index: int) -> Path:
        return self.folder / self.name(index)


@dataclass(frozen=True, eq=False)
class FilesOfShards:
    """Files inside of shards.

    Attributes:
        shards: which.
        rows: of their index.
    """

    shards: ShardFolder
    rows: Rows

    @property
    def source(self) -> str:
        return str(self.shards.folder)

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return self.shards.names[self.rows[index]]

    def path(self, index: int) -> StoredFile:
        return StoredFile(self.shards, self.rows[index])
