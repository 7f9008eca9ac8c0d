"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ssl_ebm.errors import UserError
from ssl_ebm.files import make_folder

try:
    import fcntl
except ImportError:  # Windows has none, and no lock
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def only_run_in(run_dir: str | Path) -> Iterator[None]:
    """Holds the folder's lock, a POSIX record lock on its file `.lock`.

    It belongs to the process, not to the file: the system releases it when the process ends, however it ends,
    and workers do not inherit it.

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    folder = make_folder(run_dir)
    try:
        file = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): choose another folder") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise UserError(
                    f"{folder} is in use by another run ({file.read().strip()}): wait for its end, or choose "
                    "another folder"
                ) from error
            except OSError as error:  # a file system without locks
                rank_zero_warn(
                    f"the file system of {folder} has no locks ({error.strerror or error}): no second run in "
                    "this folder would be refused"
                )
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
