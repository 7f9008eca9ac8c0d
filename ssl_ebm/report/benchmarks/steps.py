"""Training steps that are measured: forward and loss, backward, AdamW."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ssl_ebm.report.benchmarks.timing import Work

Loss = Callable[[], Tensor]


def dtype_name(dtype: torch.dtype) -> str:
    """As rows call it."""
    return str(dtype).removeprefix("torch.")


def stepping(network: nn.Module, loss: Loss, dtype: torch.dtype) -> Work:
    """Training steps: forward and loss, backward, AdamW; in bfloat16 by autocast."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    device = next(network.parameters()).device.type

    def run(units: int) -> None:
        for _ in range(units):
            optimizer.zero_grad()
            with nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype):
                value = loss()
            value.backward()
            optimizer.step()

    return Work(run)


def flops_of_step(loss: Loss) -> int:
    """Arithmetic of the matrix products of a forward and a backward pass."""
    # Operators that the counter knows: the usual linear layer, and attention spelled out.
    with (
        torch.backends.mkldnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        loss().backward()
    return int(counter.get_total_flops())
