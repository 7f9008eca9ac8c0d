"""Noticing a read that hangs in the training's own process, where the system may let nothing interrupt it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOKS = 10  # at a fetch, before it has lasted too long
LONGEST_PAUSE = 1.0  # seconds from one look to the next


class ReadWatch:
    """Counts how long a batch is being fetched, and gives up when that takes too long.

        with watch.giving_up(end):  # around the training
            ...
            with watch:  # around each fetch, which costs two assignments
                batch = next(batches)

    A thread looks now and then. Counted is the time in which it can look, so that a process that was
    suspended for an hour has not waited for an hour; what is computed between two fetches is not counted.

    Args:
        seconds: that a fetch may last.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.pause = min(seconds / LOOKS, LONGEST_PAUSE)
        self._fetch: object | None = None  # of each fetch another one
        self._begin()

    def __enter__(self) -> None:
        self._fetch = object()

    def __exit__(self, *_: object) -> None:
        self._fetch = None

    @contextmanager
    def giving_up(self, end: Callable[[], object]) -> Iterator[None]:
        """Calls `end`, in another thread and at most once, when a fetch inside lasts too long."""
        over = threading.Event()

        def look_on() -> None:
            while not over.wait(self.pause):
                if self.too_long(time.monotonic()):
                    end()
                    return

        self._begin()
        threading.Thread(target=look_on, name="read watch", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _begin(self) -> None:
        self._seen: object | None = None
        self._waited = 0.0
        self._looked = time.monotonic()

    def too_long(self, now: float) -> bool:
        """A look: whether the fetch that is being made has lasted too long.

        Args:
            now: on the clock of `time.monotonic`.
        """
        passed = min(now - self._looked, 2 * self.pause)  # more: the process was suspended
        same = self._fetch is not None and self._fetch is self._seen
        self._waited = self._waited + passed if same else 0.0
        self._seen, self._looked = self._fetch, now
        return self._waited >= self.seconds
