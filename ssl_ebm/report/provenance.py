"""On what a result was made: device and versions."""

import importlib.metadata
import platform

import torch

from ssl_ebm import __version__
from ssl_ebm.report.entries import usable_cores

VERSIONS_OF = ("torch", "lightning", "torchvision", "torchmetrics", "numpy")


def describe_device(device: torch.device) -> str:
    """As in ``cpu: x86_64, 2 cores`` or ``cuda: NVIDIA H100``."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {platform.machine()}, {usable_cores()} cores"


def versions() -> dict[str, str]:
    """Of Python, this package, and what the figures depend on."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    return {"python": platform.python_version(), "ssl_ebm": __version__, **found}
