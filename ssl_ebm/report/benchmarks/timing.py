"""Rates that can be compared: everything is measured in turns, again and again, in one process.

What disturbs a machine (other programs, its temperature) comes and goes over seconds. Short blocks of work in
turn suffer from it alike, and the median over the turns leaves out the blocks that it hit.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch

MATMUL_SIDE = 2048  # of the square matrices whose product is the machine's ceiling
MOST_UNITS = 1000  # of work in a block


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Work:
    """Something to measure.

    Attributes:
        run: does so many units of work.
        before, after: around every block, outside of its time.
    """

    run: Callable[[int], object]
    before: Callable[[], object] = _nothing
    after: Callable[[], object] = _nothing


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        repeats: blocks of each work.
        seconds: length of a block, about; 0: one unit of work.
        device: whose clock it is: on a GPU a block ends when the GPU is done.
    """

    repeats: int
    seconds: float
    device: torch.device

    def clock(self) -> float:
        """Now, seconds; waits until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def block(self, work: Work) -> int:
        """Units of work that make a block. The first unit, which sets up and allocates, does not count."""
        work.before()
        work.run(1)
        began = self.clock()
        work.run(1)
        took = self.clock() - began
        work.after()
        return max(1, min(MOST_UNITS, round(self.seconds / took)))

    def rate(self, work: Work, units: int) -> float:
        """Units of work per second, of one block; a unit goes before, untimed."""
        work.before()
        work.run(1)
        began = self.clock()
        work.run(units)
        took = self.clock() - began
        work.after()
        return units / took

    def rates(self, works: Mapping[str, Work]) -> dict[str, float]:
        """Units per second of each work: medians of blocks in turn, every second turn in reverse order."""
        blocks = {name: self.block(work) for name, work in works.items()}
        found: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(self.repeats):
            for name in list(works) if turn % 2 == 0 else reversed(list(works)):
                found[name].append(self.rate(works[name], blocks[name]))
        return {name: median(values) for name, values in found.items()}


def matmul(dtype: torch.dtype, device: torch.device) -> Work:
    """Products of two square matrices, the rate that no network exceeds; `matmul_flops` each."""
    a, b = (torch.rand(MATMUL_SIDE, MATMUL_SIDE, device=device).to(dtype) for _ in range(2))

    def run(units: int) -> None:
        for _ in range(units):
            a @ b

    return Work(run)


def matmul_flops() -> int:
    """Multiplications and additions of one unit of `matmul`."""
    return 2 * MATMUL_SIDE**3


@cache
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has arithmetic for bfloat16: others emulate it, more slowly than float32."""
    rates = Effort(repeats=3, seconds=0.05, device=device).rates(
        {"float32": matmul(torch.float32, device), "bfloat16": matmul(torch.bfloat16, device)}
    )
    return rates["bfloat16"] > 1.2 * rates["float32"]  # 2 in theory; emulation is below 1
