"""On what a result was made."""

import platform

import torch

from ssl_ebm.report.entries import usable_cores


def describe_device(device: torch.device) -> str:
    """As in ``cpu: x86_64, 2 cores`` or ``cuda: NVIDIA H100``."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {platform.machine()}, {usable_cores()} cores"
