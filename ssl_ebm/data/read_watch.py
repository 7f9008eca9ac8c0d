"""Noticing a read that hangs in a command's own process, where the system may let nothing interrupt it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

LOOKS = 10  # at a fetch, before it has lasted too long
LONGEST_PAUSE = 1.0  # seconds from one look to the next


Item = TypeVar("Item")


class ReadWatch:
    """Counts how long a batch is being fetched, and gives up when that takes too long.

        with watch.giving_up(end):  # around the training
            ...
            with watched():  # around each fetch, wherever it is
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
        around = _WATCH.set(self)
        try:
            yield
        finally:
            _WATCH.reset(around)
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


_WATCH: ContextVar[ReadWatch | None] = ContextVar("the watch that gives up", default=None)


def read_limit() -> float | None:
    """Seconds that a fetch may last, by the watch that would give up; None: there is none."""
    watch = _WATCH.get()
    return None if watch is None else watch.seconds


def watched() -> AbstractContextManager[None]:
    """A block that is a fetch to the watch that would give up, if there is one; within another, a part of
    that."""
    watch = _WATCH.get()
    return nullcontext() if watch is None or watch._fetch is not None else watch


def each_watched(items: Iterable[Item]) -> Iterator[Item]:
    """Items, each of which is a fetch of its own, together with what is done with it until the next one."""
    watch = watched()
    with watch:
        for item in items:
            if isinstance(watch, ReadWatch):
                watch.__enter__()
            yield item
