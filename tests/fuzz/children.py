"""Child processes, with a limit to their time and their memory."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60  # seconds that a case may last
NO_END = "no end"
MEMORY = 3 * 2**30  # bytes of address space that a child may take beside what it begins with


def in_a_child(work: Callable[[], None], patience: Callable[[], float] | None = None) -> str | None:
    """Runs it in a fork; says how the child ended, unless it was by itself.

    Args:
        patience: seconds since the child last gave a sign of life.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return None if code == 0 else f"the process ended with {code}"
        if patience is not None and patience() > PATIENCE:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"{NO_END} after {PATIENCE} s"
        time.sleep(0.02)


def address_space() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def limit_memory() -> int:
    """Lets this process have `MEMORY` bytes more than it has now, and returns those."""
    begun_with = address_space()
    resource.setrlimit(resource.RLIMIT_AS, (begun_with + MEMORY, begun_with + MEMORY))
    return begun_with


def silence(log: Path) -> None:
    """What C and Rust print goes to a new file; warnings go nowhere."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    os.dup2(file, 2)
    warnings.simplefilter("ignore")


def tell_crashes() -> None:
    """A crash prints where it was. To be called again after a training: Lightning puts the handlers of all
    signals back to those that Python knows of, and those of faulthandler are none of them."""
    faulthandler.disable()  # else it takes them for installed
    faulthandler.enable(2, all_threads=False)
