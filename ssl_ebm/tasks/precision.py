"""Mixed precision on processors that have no arithmetic for bfloat16.

They emulate it: one core of an AMD EPYC with AVX2 alone multiplies matrices at 70 GFLOP/s in float32 and at 1
in bfloat16 (torch 2.14).
"""

from __future__ import annotations

import time
from functools import cache

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

MIXED = ("bf16-mixed", "bf16", "16-mixed", "16")  # on a processor Lightning takes the first for all of them
SIDE = 192  # of the matrices that are multiplied: about a millisecond
REPEATS = 3
EMULATED = (
    3  # times as slow as float32; by AVX-512 without instructions for it, it may be below, which is bearable
)


def bearable(precision: str | int | None, accelerator: str) -> str | int | None:
    """The precision of a Trainer: float32 in place of a mixed one that this processor can only emulate.

    A config for bfloat16 then trains everywhere, with another rounding. What is seen of it is a warning.

    Args:
        precision, accelerator: as the Trainer takes them.
    """
    if str(precision) not in MIXED or not trains_on_processor(accelerator) or not emulates_bfloat16():
        return precision
    rank_zero_warn(
        f"this processor has no arithmetic for bfloat16, which would take many times as long as float32: "
        f"training in float32 in place of trainer.precision {precision}"
    )
    return "32-true"


def trains_on_processor(accelerator: str) -> bool:
    """Whether a Trainer with this accelerator uses no GPU."""
    return accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())


@cache
def emulates_bfloat16() -> bool:
    """Whether a product of matrices takes over `EMULATED` times as long in bfloat16 as in float32."""
    return _seconds_of_product(torch.bfloat16) > EMULATED * _seconds_of_product(torch.float32)


def _seconds_of_product(dtype: torch.dtype) -> float:
    """The best of a few, on one thread and in its own time: other work does not count."""
    a = torch.ones(4 * SIDE, SIDE, dtype=dtype)
    b = torch.ones(SIDE, SIDE, dtype=dtype)

    def once() -> float:
        began = time.thread_time()
        _: Tensor = a @ b
        return time.thread_time() - began

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        once()
        return min(once() for _ in range(REPEATS))
    finally:
        torch.set_num_threads(threads)
