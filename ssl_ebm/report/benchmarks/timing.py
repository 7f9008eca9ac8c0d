"""Rates that can be compared: everything is measured in turns, again and again, in one process.

What disturbs a machine (other programs, its temperature) comes and goes over seconds. Short blocks of work in
turn suffer from it alike: blocks of one turn are compared with each other, and the median over the turns
leaves out those that it hit.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch

from ssl_ebm.evaluation.statistics import Interval
from ssl_ebm.networks.onednn import HAS_ONEDNN, multiply
from ssl_ebm.tasks.precision import emulates_bfloat16

MATMUL_SIDE = 2048  # of the square matrices whose product is the machine's ceiling
MOST_UNITS = 1000  # of work in a block

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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


def repeated(once: Callable[[], object]) -> Work:
    """A unit of work is one call."""

    def run(units: int) -> None:
        for _ in range(units):
            once()

    return Work(run)


@dataclass(frozen=True)
class Rates:
    """Units per second of each work, a figure for each turn: figures of one turn are neighbours in time.

    Attributes:
        turns: by name of the work; as many figures for each.
    """

    turns: Mapping[str, Sequence[float]]

    def __getitem__(self, name: str) -> float:
        """The median over the turns."""
        return median(self.turns[name])

    def __contains__(self, name: object) -> bool:
        return name in self.turns

    def ratio(self, name: str, peer: str) -> Interval:
        """How many times the peer's rate: the median over the turns of the ratio within a turn, with its 95 %
        interval.

        Both halves of a ratio met the same machine, so it scatters less than the ratio of two medians.
        """
        return median_interval([a / b for a, b in zip(self.turns[name], self.turns[peer], strict=True)])


def ratio_over_processes(found: Sequence[Rates], name: str, peer: str) -> Interval:
    """How many times the peer's rate, over processes that measured both.

    The median over the processes, with its 95 % interval. All turns of a process share its luck with where
    its memory lies, of which an interval over turns says nothing.
    """
    return median_interval([rates.ratio(name, peer).value for rates in found])


def median_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The median and its interval between two order statistics, which assumes no distribution.

    Of n independent values, the number below the true median is binomial (n, 1/2): the k lowest and the k
    highest are left out, for the largest k with P(at most k below) <= (1 - level) / 2. Up to 5 values are too
    few for 95 %, and the interval is their range.

    Source: Conover, "Practical nonparametric statistics" (1999), section 3.2.
    """
    n, left_out, tail = len(values), 0, 0.5 ** len(values)
    while (tail := tail + math.comb(n, left_out + 1) * 0.5**n) <= (1 - level) / 2:
        left_out += 1
    ordered = sorted(values)
    return Interval(median(ordered), ordered[left_out], ordered[n - 1 - left_out])


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

    def rates(self, works: Mapping[str, Work]) -> Rates:
        """A block of each work in every turn, every second turn in reverse order."""
        blocks = {name: self.block(work) for name, work in works.items()}
        found: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(self.repeats):
            for name in list(works) if turn % 2 == 0 else reversed(list(works)):
                found[name].append(self.rate(works[name], blocks[name]))
        return Rates(found)


def matmul(dtype: torch.dtype, device: torch.device) -> Work:
    """Products of two square matrices, the rate that no network exceeds; `matmul_flops` each.

    float32 on a processor: by the faster of the two libraries that PyTorch has for it.
    """
    fast = dtype == torch.float32 and device.type == "cpu" and _onednn_is_faster()
    product: Product = multiply if fast else torch.matmul
    return _products(product, dtype, device)


def _products(product: Product, dtype: torch.dtype, device: torch.device) -> Work:
    a, b = (torch.rand(MATMUL_SIDE, MATMUL_SIDE, device=device).to(dtype) for _ in range(2))

    def run(units: int) -> None:
        for _ in range(units):
            product(a, b)

    return Work(run)


@cache
def _onednn_is_faster() -> bool:
    if not HAS_ONEDNN:
        return False
    cpu = torch.device("cpu")
    both: dict[str, Product] = {"usual": torch.matmul, "onednn": multiply}
    works = {name: _products(product, torch.float32, cpu) for name, product in both.items()}
    rates = Effort(repeats=3, seconds=0.05, device=cpu).rates(works)
    return rates["onednn"] > rates["usual"]


def matmul_flops() -> int:
    """Multiplications and additions of one unit of `matmul`."""
    return 2 * MATMUL_SIDE**3


@cache
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has arithmetic for bfloat16: others emulate it, more slowly than float32."""
    if device.type == "cpu" and emulates_bfloat16():  # large products would take minutes
        return False
    rates = Effort(repeats=3, seconds=0.05, device=device).rates(
        {"float32": matmul(torch.float32, device), "bfloat16": matmul(torch.bfloat16, device)}
    )
    return rates["bfloat16"] > 1.2 * rates["float32"]  # 2 in theory; emulation is below 1
