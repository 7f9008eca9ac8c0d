"""How long a command that trains nothing waits for its data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ssl_ebm.data.read_watch import ReadWatch
from ssl_ebm.errors import UserError
from ssl_ebm.running.failures import AGAIN, HANGING_READ, TIMED_OUT, give_up_hanging_read


@contextlib.contextmanager
def limited_reads(seconds: float) -> Iterator[None]:
    """A block in which a read of data may last so long.

    Raises:
        UserError: no time above 0; a read of a worker has lasted longer. (Of this process: see
            `give_up_hanging_read`.)
    """
    if not seconds > 0:
        raise UserError(f"read_timeout is {seconds:g}: use a number of seconds above 0")
    try:
        with ReadWatch(seconds).giving_up(give_up_hanging_read(seconds, lambda: AGAIN)):
            yield
    except RuntimeError as error:
        if TIMED_OUT.search(str(error)) is None:
            raise
        raise UserError(HANGING_READ.format(seconds, AGAIN)) from error
