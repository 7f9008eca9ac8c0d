"""Files of plain records, of which memory holds what is asked for.

They are read, not mapped: pages of a map stay with a process that has touched them, and a file that is cut
off would end it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ssl_ebm.errors import UserError

AT_ONCE = 8192  # records that are in memory at a time: whole bytes of bits, for `drawing`


class Records:
    """The whole records of a file; none where there is no file.

    Processes and threads may read one object at once; a copy in another process opens the file anew.

    Args:
        path: of the file.
        dtype: of a record.
    """

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._handle = os.open(path, os.O_RDONLY) if path.is_file() else None
        size = 0 if self._handle is None else os.fstat(self._handle).st_size
        self._count = size // self.dtype.itemsize

    def __len__(self) -> int:
        return self._count

    def __reduce__(self) -> tuple[type[Records], tuple[Path, np.dtype[Any]]]:
        return Records, (self.path, self.dtype)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            os.close(self._handle)  # type: ignore[arg-type]

    def __getitem__(self, row: int) -> Any:
        """One record.

        Raises:
            IndexError: there are fewer.
            UserError: it cannot be read.
        """
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of {self._count} in {self.path}")
        return self.some(row, row + 1)[0]

    def some(self, start: int, stop: int) -> NDArray[Any]:
        """The records start..stop - 1, of those that there are.

        Raises:
            UserError: they cannot be read.
        """
        stop = min(stop, self._count)
        if start >= stop or self._handle is None:
            return np.zeros(0, self.dtype)
        first, wanted = start * self.dtype.itemsize, (stop - start) * self.dtype.itemsize
        content = b""
        while len(content) < wanted:  # once, but for more than a system reads at once, 2 GB
            try:
                more = os.pread(self._handle, wanted - len(content), first + len(content))
            except OSError as error:
                raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error
            if not more:
                raise UserError(f"{self.path} was cut off: it must stay as it is while a training runs")
            content += more
        return np.frombuffer(content, self.dtype)

    def blocks(self, at_once: int = AT_ONCE) -> Iterator[NDArray[Any]]:
        """All of them, so many at a time; errors as `some`."""
        for start in range(0, self._count, at_once):
            yield self.some(start, start + at_once)

    def column(self, name: str) -> NDArray[Any]:
        """(N,) one field of all records, in memory; errors as `some`."""
        found, start = np.empty(self._count, self.dtype[name]), 0
        for block in self.blocks():
            found[start : start + len(block)] = block[name]
            start += len(block)
        return found
