"""The machine that a benchmark ran on: its figures mean nothing without it."""

import platform
import time
from typing import Any

import lightning
import torch

from ssl_ebm import __version__
from ssl_ebm.networks.processor import this_processor
from ssl_ebm.report.entries import usable_cores


def measured_device() -> torch.device:
    """The GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_machine() -> dict[str, Any]:
    """Processor, GPU and versions, and the date, as plain values."""
    return {
        "cpu": str(this_processor()),
        "cores": usable_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "ssl_ebm": __version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
