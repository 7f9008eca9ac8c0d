"""Training steps that are measured: forward and loss, backward, AdamW."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.timing import Effort, Work, matmul, matmul_flops

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


class Products(TorchDispatchMode):
    """Counts the arithmetic of matrix products and convolutions, a multiplication and an addition being two.

    By the formulas of PyTorch's own counter, whose hooks on modules take no gradient of a module's input, as
    samplers ask for.

    Attributes:
        flops: so far.
    """

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=found)
        return found


def flops_of_passes(loss: Loss) -> tuple[int, int]:
    """Arithmetic of computing a loss, with all the gradients that are taken for that, and of its backward
    pass."""
    with _known_operators(), Products() as counter:
        value = loss()
        forward = counter.flops
        value.backward()
    return forward, counter.flops - forward


@contextmanager
def _known_operators() -> Iterator[None]:
    """Those that the counter knows: the usual linear layer, and attention spelled out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32")  # of Intel's GPUs, by oneDNN's switch
        with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
            yield


def flops_of_step(loss: Loss) -> int:
    """Arithmetic of the matrix products of a forward and a backward pass."""
    return sum(flops_of_passes(loss))


def step_row(
    row: Callable[..., Row],
    effort: Effort,
    dtype: torch.dtype,
    ours: tuple[nn.Module, Loss],
    peer: tuple[nn.Module, Loss] | None,
    peer_name: str | None,
    items: int,
    unit: str,
) -> Row:
    """Rate of our training step beside a peer's, and its share of the machine's rate of matrix products.

    Args:
        row: a `Row` with suite, case and dtype filled in.
        ours, peer: networks and their losses; the peer is None where it is not installed.
        items: in a step.
        unit: of the rate.
    """
    works = {"ours": stepping(*ours, dtype), "ceiling": matmul(dtype, effort.device)}
    if peer is not None:
        works["peer"] = stepping(*peer, dtype)
    rates = effort.rates(works)
    return row(
        rates["ours"] * items,
        unit,
        None if peer is None else rates["peer"] * items,
        peer_name,
        None if peer is None else rates.ratio("ours", "peer"),
        rates["ours"] * flops_of_step(ours[1]) / (rates["ceiling"] * matmul_flops()),
    )


def promises(rows: Sequence[Row], case: str, gains: Mapping[str, float], peer: str) -> list[str]:
    """What is promised of training steps and loaders, and what was measured.

    Args:
        case: of the training steps; all others promise to be no slower than what they stand beside.
        gains: times the rate of the peer, for each dtype.
        peer: a package.
    """
    lines = []
    for row in rows:
        if (r := row.ratio) is None:
            continue
        least = gains[row.dtype] if row.case == case else 1.0
        lines.append(
            f"{row.case}, {row.dtype}: {r.value:.2f} ({r.low:.2f} to {r.high:.2f}) times {row.peer_name} "
            f"(promised: at least {least:g})"
        )
    if not find_spec(peer):
        lines.append(f"{peer} is not installed, so it was not measured: pip install 'ssl_ebm[bench]'")
    return lines
