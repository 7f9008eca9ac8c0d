"""What a user can do about an error of torch, where one line can say it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

import ssl_ebm
from ssl_ebm.errors import in_one_line

OUT_OF_MEMORY = (
    "out of memory: lower data.batch_size (with configs/strategies/accumulate.yaml a step stays as it was), "
    "or add configs/strategies/bf16.yaml or checkpointing.yaml; then {}"
)
DEAD_WORKER = (
    "a worker that loads data was ended from outside, most often for want of memory: lower data.workers or "
    "data.batch_size, and {}"
)
NO_SECOND_DERIVATIVES = (
    "what --compile has compiled has no second derivatives, which this objective needs: leave --compile out"
)
HANGING_READ = (
    "the data loader gave no batch for {:g} s: the storage hangs, or is slower than --read_timeout; "
    "look at it, and {}"
)
GO_ON, AGAIN = "go on with --ckpt_path last", "give the command again"
TIMED_OUT = re.compile(r"DataLoader timed out after ([\d.]+) seconds")  # of torch's workers
LAST_WORDS = 10.0  # seconds, at most
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ENDS = ContextVar("whether a hanging read ends the process", default=False)
DEATH_BY_SIGNAL = re.compile(r"DataLoader worker \(pid")  # what torch's handler of SIGCHLD raises
SIGNAL_DELAY = 5.0  # seconds between the end of a worker's pipe and that signal, at most
IN_A_WORKER = re.compile(r"in DataLoader worker process \d")  # torch's words for what a dataset raised there
OF_ARITHMETIC = re.compile(r"math range error|Numerical result out of range")
# What Python, NumPy and torch say of numbers that no memory or integer holds.
TOO_LARGE = re.compile(
    r"Unable to allocate|Maximum allowed|array is too big|too large to convert|size calculation overflowed|"
    r"could not create a primitive"  # oneDNN
)


def remedy_for(error: BaseException | None, ckpt_path: str | None, then: str = GO_ON) -> str | None:
    """One line for an error, or for one that it comes from; None where there is nothing to say.

    Args:
        error: what a Trainer raised.
        ckpt_path: the checkpoint that was to be loaded.
        then: what to do when the cause is removed.
    """
    for one in _chain(error):
        text = str(one)
        if type(one).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
            return OUT_OF_MEMORY.format(then)
        if "does not currently support double backward" in text:
            return NO_SECOND_DERIVATIVES
        if timeout := TIMED_OUT.search(text):
            return HANGING_READ.format(float(timeout[1]), then)
        # The news of a worker's death comes by a signal, which can interrupt anything, or by its pipe.
        if DEATH_BY_SIGNAL.search(text) or _of_a_workers_pipe(one):
            return DEAD_WORKER.format(then)
        if isinstance(one, OSError) and one.errno in (*NO_ROOM, errno.EIO):
            what, remedy = "write", "make room"
            if one.errno == errno.EIO:
                what, remedy = "read or write", "look at the storage"
            file = one.filename or "a file"
            return f"cannot {what} {file} ({one.strerror}): {remedy}, and {then}"
        if ckpt_path is not None and "loading state_dict" in text:
            return f"{ckpt_path} was written with other settings of the model: use those"
        if isinstance(one, MemoryError) or TOO_LARGE.search(text) or _overflows_by_settings(one):
            return f"a setting is too large for this machine ({in_one_line(one) or 'no memory'}): lower it"
        if ckpt_path is not None and "number of parameter groups" in text:
            return (
                f"{ckpt_path} was written with another optimizer: use that, or begin with its weights alone "
                f"(--start_from {ckpt_path})"
            )
        if isinstance(one, Exception) and ckpt_path is not None and _in_restored(one):
            return f"{ckpt_path} does not hold what this training goes on from ({in_one_line(one)})"
    return None


def take_late_signal(error: BaseException) -> None:
    """Waits for the signal of a worker's death, for SIGNAL_DELAY at most, where its pipe told of it first.

    torch answers that signal with a RuntimeError, which would interrupt whatever is done by then.

    Args:
        error: what a Trainer raised.
    """
    with contextlib.suppress(RuntimeError):
        errors = list(_chain(error))
        by_pipe = any(map(_of_a_workers_pipe, errors))
        if by_pipe and _answers_signals() and not any(DEATH_BY_SIGNAL.search(str(one)) for one in errors):
            time.sleep(SIGNAL_DELAY)  # cut short by the error


@contextlib.contextmanager
def ending_for_hanging_reads() -> Iterator[None]:
    """A block, that of a command, in which `give_up_hanging_read` ends the process."""
    before = _ENDS.set(True)
    try:
        yield
    finally:
        _ENDS.reset(before)


def give_up_hanging_read(seconds: float, then: Callable[[], str] = lambda: GO_ON) -> Callable[[], None]:
    """What to do, from another thread, when a read lasts too long: a command ends its process; to a script or
    notebook, whose process it is, a warning says so.

    Args:
        seconds: that the read has lasted.
        then: says what to do when the storage is there again.
    """
    ends = _ENDS.get()  # a thread of its own does not know

    def give_up() -> None:
        said = HANGING_READ.format(seconds, then())
        if ends:
            _end_for_hanging_read(said)
        else:
            warnings.warn(said, stacklevel=1)

    return give_up


def _end_for_hanging_read(said: str) -> NoReturn:
    """Ends the process as a mistake of the user does, with a line and exit status 2, from another thread than
    the one that the system holds.

    The last checkpoint is whole, metrics are written when they are logged, and the system releases the
    folder's lock; of several processes torchrun or srun ends the others.

    Args:
        said: of what was read.
    """
    last = threading.Timer(LAST_WORDS, os._exit, (2,))  # what is said may go to the storage that hangs
    last.daemon = True
    last.start()
    with contextlib.suppress(OSError, ValueError):  # it is full, or closed
        print(f"ssl-ebm: error: {said}", file=sys.__stderr__, flush=True)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(2)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it comes from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _answers_signals() -> bool:
    """Whether torch has had workers in this process, and is told of their ends."""
    return callable(signal.getsignal(signal.SIGCHLD))


def _of_a_workers_pipe(error: BaseException) -> bool:
    """Whether it may tell that a worker's pipe has ended, and not a file or pipe of what was called."""
    if not isinstance(error, ConnectionResetError | EOFError) or IN_A_WORKER.search(str(error)):
        return False
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    in_loader = any(file.endswith("torch/utils/data/dataloader.py") for file in files)
    in_dataset = any(file.endswith("torch/utils/data/_utils/fetch.py") for file in files)
    return (in_loader or _answers_signals()) and not in_dataset


def _overflows_by_settings(error: BaseException) -> bool:
    """Whether it is an overflow that a setting leads to: of arithmetic, one in this package."""
    if not isinstance(error, OverflowError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    own = bool(frames) and frames[-1].filename.startswith(str(Path(ssl_ebm.__file__).parent))
    return own or not OF_ARITHMETIC.search(str(error))


def _in_restored(error: Exception) -> bool:
    """Whether Lightning raised it as it restored loops and optimizers, or used what it had restored."""
    frames = traceback.extract_tb(error.__traceback__)
    restoring = (
        frame.filename.endswith("checkpoint_connector.py") and frame.name.lstrip("_").startswith("restore")
        for frame in frames
    )
    in_loops = bool(frames) and "/lightning/pytorch/loops/" in frames[-1].filename
    # A step of the optimizer calls that of the task, whose own errors are raised outside of torch.
    innermost = itertools.takewhile(lambda frame: "/torch/" in frame.filename, reversed(frames))
    in_optimizer = any("/torch/optim/" in frame.filename for frame in innermost)
    return in_loops or in_optimizer or any(restoring)
