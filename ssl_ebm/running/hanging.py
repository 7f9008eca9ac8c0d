"""Ending a process whose own read hangs: no exception reaches a thread that the system does not let go."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from lightning.pytorch import Trainer

from ssl_ebm.running.failures import HANGING_READ

LAST_WORDS = 10.0  # seconds for logs to be written: their storage may be the one that hangs


def end_for_hanging_read(trainer: Trainer, seconds: float) -> NoReturn:
    """Ends the process with the line and the exit status, 2, of a mistake of the user, from another thread.

    The last checkpoint is whole, and the system releases the folder's lock; of several processes torchrun or
    srun ends the others.

    Args:
        trainer: whose loggers hold what is not written yet.
        seconds: that the read has lasted.
    """
    print(f"ssl-ebm: error: {HANGING_READ.format(seconds)}", file=sys.__stderr__, flush=True)
    writing = threading.Thread(target=_write_logs, args=(trainer,), daemon=True)
    writing.start()
    writing.join(LAST_WORDS)
    os._exit(2)


def _write_logs(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        with suppress(Exception):
            logger.finalize("failed")
    with suppress(Exception):
        sys.stdout.flush()
