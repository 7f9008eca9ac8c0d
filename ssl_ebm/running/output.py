"""What a command says goes on where it can: a log on a full disk stops no training."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from ssl_ebm.running.failures import NO_ROOM


class LossyStream:
    """Standard output or error, of which what cannot be written for want of room (or an error of the storage)
    is lost; the first time a warning says so on the other one. When there is room again, lines come again.

    Args:
        stream: a file that the system knows, once a write fails.
        name: of it, for the warning.
        other: where the warning goes.
    """

    def __init__(self, stream: TextIO, name: str, other: TextIO) -> None:
        self.has_lost = False
        self._stream, self._name, self._other = stream, name, other

    def write(self, text: str) -> int:
        """Writes, or loses, a text; returns its length."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Writes, or loses, what waits."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        if error.errno not in (*NO_ROOM, errno.EIO):
            raise error
        before = self._stream
        # What waits in the old one would be tried again and again, and fail when the process ends.
        self._stream = open(  # noqa: SIM115  # it stays open
            before.fileno(), "w", buffering=1, encoding=before.encoding, errors=before.errors, closefd=False
        )
        if not self.has_lost:
            self.has_lost = True
            with suppress(OSError):
                print(
                    f"ssl-ebm: warning: cannot write to {self._name} ({error.strerror}): what does not fit "
                    "is lost, and the command goes on",
                    file=self._other,
                    flush=True,
                )


@contextmanager
def lossy_output() -> Iterator[None]:
    """A block in which standard output and error are a `LossyStream` each; they stay so where something was
    lost, for Python flushes them when it ends."""
    before = sys.stdout, sys.stderr
    if None in before:  # closed, and nothing is said
        yield
        return
    made = LossyStream(before[0], "standard output", before[1])
    errors = LossyStream(before[1], "standard error", before[0])
    sys.stdout, sys.stderr = made, errors
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            made.flush()
            errors.flush()
        if not made.has_lost:
            sys.stdout = before[0]
        if not errors.has_lost:
            sys.stderr = before[1]
