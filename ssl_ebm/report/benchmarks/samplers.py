"""Suite "samplers": steps of Markov chains on a small network over the plane, and on images.

- Langevin dynamics, and HMC with 5 leapfrog steps: chain-steps per second, a step of one chain each.
- Beside a bare loop whose parameters are frozen: both in each of several processes, for the two are so close
  that a process' luck with its memory decides.
- Beside torchebm where it is installed: on the same energy, and on the same network in torch's own layers, as
  its user would write it. All in one process, which keeps freed memory as all commands do; torchebm also as
  it comes, in fresh processes that do not.
- Ours from a `CompiledEnergy`, beside torchebm as it is and with its network compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_ebm.energy import CompiledEnergy
from ssl_ebm.energy.autograd import frozen
from ssl_ebm.energy.sampling import Hmc, Langevin, Sampler
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.statistics import Interval
from ssl_ebm.networks import ImageEnergy, PointEnergy
from ssl_ebm.networks.few_channels import FewChannelConv2d
from ssl_ebm.networks.linear import Linear
from ssl_ebm.report.benchmarks.neighbour import Neighbour, in_processes
from ssl_ebm.report.benchmarks.rows import Row, with_interval
from ssl_ebm.report.benchmarks.suites import Part
from ssl_ebm.report.benchmarks.timing import (
    Effort,
    Rates,
    Work,
    matmul,
    matmul_flops,
    ratio_over_processes,
    repeated,
)
from ssl_ebm.tasks.memory import keep_freed_memory

SUITE = "samplers"
PEER = "torchebm"
BARE = "bare loop, frozen parameters"
ON_OURS = ", on this package's layers"
AS_IT_COMES = ", as it comes"
COMPILED = ", compiled"
NOT_COMPILED = "the same, not compiled"
PROCESS_SECONDS = 5.0  # to start one
COMPILER_SECONDS = 15.0  # for one energy
GAIN = 1.5  # times the rate of torchebm
LEAPFROG_STEPS = 5
SHORTER = 5  # times, than the blocks of other suites
GRADIENTS = 20  # of each chain in a unit of work


@dataclass(frozen=True)
class Chain:
    """A way to move chains, as this package has it and as its peers have it.

    Attributes:
        name: for the rows.
        step_size: of the sampler, in its own unit.
        gradients: of the energy in a step.
    """

    name: str
    step_size: float
    gradients: int

    @property
    def steps(self) -> int:
        """In a unit of work."""
        return GRADIENTS // self.gradients

    def ours(self) -> Sampler:
        if self == LANGEVIN:
            return Langevin(self.step_size)
        return Hmc(self.step_size, leapfrog_steps=self.gradients, jitter=0.0)  # as the peers': no jitter


LANGEVIN = Chain("Langevin", 0.01, 1)
HMC = Chain(f"HMC, {LEAPFROG_STEPS} leapfrog steps", 0.05, LEAPFROG_STEPS)


@dataclass(frozen=True)
class Target:
    """An energy, and chains that begin somewhere.

    Attributes:
        name: for the rows.
        make: the energy.
        shape: of the chains' state.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def energy(self, device: torch.device) -> nn.Module:
        torch.manual_seed(0)
        return self.make().to(device)

    def start(self, device: torch.device) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0)).to(device)


TARGETS = (
    Target("2-128-128-1 network, 4,096 chains", partial(PointEnergy, 2, 128, 2), (4096, 2)),
    Target("convolutional energy, 64 images of 28x28", ImageEnergy, (64, 1, 28, 28)),
)


def parts(effort: Effort) -> list[Part]:
    """What the suite measures, in order."""
    keep_freed_memory()
    seconds = 2 + COMPILER_SECONDS + 4 * (effort.repeats * effort.seconds + 0.5)
    seconds += effort.repeats * (PROCESS_SECONDS + 2 * effort.repeats * effort.seconds / SHORTER)
    if find_spec(PEER):
        seconds += effort.repeats / 2 * (PROCESS_SECONDS + 2 * effort.seconds)
        seconds += COMPILER_SECONDS + 2 * effort.repeats * effort.seconds
    return [
        Part(f"{chain.name}, {target.name}", seconds, partial(sampler_rows, effort, target, chain))
        for target in TARGETS
        for chain in (LANGEVIN, HMC)
    ]


def sampler_rows(effort: Effort, target: Target, chain: Chain) -> Iterator[Row]:
    """Rows of one sampler on one energy, beside every peer."""
    device = effort.device
    energy, start = target.energy(device), target.start(device)
    ours = our_work(energy, start, chain)
    works = {"ours": ours, "ceiling": matmul(torch.float32, device)}
    if compiles := _compiles(energy, start):
        works[COMPILED] = our_work(CompiledEnergy(energy), start, chain)
    if peer := _peer():
        works[peer] = peer_work(target, chain, device)
        works[ON_OURS] = peer_work(target, chain, device, ours=True)
        if compiles:
            works[peer + COMPILED] = peer_work(target, chain, device, compiled=True)
    # Some ratios are close to 1, and only many turns tell: they are as much shorter.
    rates = Effort(SHORTER * effort.repeats, effort.seconds / SHORTER, device).rates(works)
    ceiling = rates["ceiling"] * matmul_flops()
    unit = len(start) * chain.steps  # chain-steps in a unit of work
    flops = chain.steps * chain.gradients * flops_of_gradient(energy, start)

    def row(ours: float, other: float, name: str, ratio: Interval, how: str = "") -> Row:
        return Row(
            SUITE,
            f"{chain.name}{how}, {target.name}",
            "float32",
            ours * unit,
            "chain-steps/s",
            other * unit,
            name,
            ratio,
            ours * flops / ceiling,
        )

    def row_of(rates: Rates, other: str, name: str, how: str = "") -> Row:
        of = how or "ours"
        return row(rates[of], rates[other], name, rates.ratio(of, other), how)

    brief = Effort(effort.repeats, effort.seconds / SHORTER, device)
    beside = list(in_processes(partial(beside_bare_loop, brief, target, chain), effort.repeats))
    our_rate, bare_rate = (median(rates[name] for rates in beside) for name in ("ours", BARE))
    yield row(our_rate, bare_rate, BARE, ratio_over_processes(beside, "ours", BARE))
    if peer:
        yield row_of(rates, peer, peer)
        yield row_of(rates, ON_OURS, f"{peer}{ON_OURS}")
        apart = Neighbour(partial(peer_work, target, chain, device))
        few = Effort(max(1, effort.repeats // 2), effort.seconds, device)
        yield row_of(few.rates({"ours": ours, "apart": apart.work}), "apart", f"{peer}{AS_IT_COMES}")
    if compiles:
        yield row_of(rates, "ours", NOT_COMPILED, COMPILED)
    if compiles and peer:
        yield row_of(rates, peer, peer, COMPILED)
        yield row_of(rates, peer + COMPILED, peer + COMPILED, COMPILED)


def our_work(energy: nn.Module, start: Tensor, chain: Chain) -> Work:
    """A unit of work of this package's sampler."""
    sampler = chain.ours()
    return repeated(lambda: sampler.sample(energy, start, chain.steps))


def beside_bare_loop(effort: Effort, target: Target, chain: Chain) -> Rates:
    """Our sampler and the bare loop in turn, to be run in a process of its own."""
    keep_freed_memory()
    energy, start = target.energy(effort.device), target.start(effort.device)
    bare = repeated(partial(bare_loop(chain), energy, start, chain.steps))
    return effort.rates({"ours": our_work(energy, start, chain), BARE: bare})


def _compiles(energy: nn.Module, start: Tensor) -> bool:
    """Whether this machine has what a compiler needs."""
    try:
        CompiledEnergy(energy).with_gradient(start)
    except UserError:
        return False
    return True


def _peer() -> str | None:
    """The peer with its version, where it is installed."""
    return f"{PEER} {version(PEER)}" if find_spec(PEER) else None


def flops_of_gradient(energy: nn.Module, start: Tensor) -> int:
    """Arithmetic of the matrix products and convolutions of dE/dy, for all chains.

    Twice that of E: a layer's gradient in its input costs what the layer does.
    """
    plain = in_torchs_layers(energy)  # the counter knows no product of oneDNN
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        plain(start)
    return 2 * int(counter.get_total_flops())


# -- bare loops ------------------------------------------------------------------------------------------


def bare_loop(chain: Chain) -> Callable[[nn.Module, Tensor, int], Tensor]:
    """The same steps with nothing around them, as one would write them for one energy."""
    return partial(bare_langevin if chain == LANGEVIN else bare_hmc, size=chain.step_size)


def bare_langevin(energy: nn.Module, y: Tensor, steps: int, size: float) -> Tensor:
    with frozen(energy):
        for _ in range(steps):
            y = y.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(energy(y).sum(), y)
            y = y.detach() - size * gradient + math.sqrt(2 * size) * torch.randn_like(y)
    return y


def bare_hmc(energy: nn.Module, y: Tensor, steps: int, size: float) -> Tensor:
    def at(y: Tensor) -> tuple[Tensor, Tensor]:
        y = y.detach().requires_grad_()
        found = energy(y)
        return found.detach(), torch.autograd.grad(found.sum(), y)[0]

    def kinetic(p: Tensor) -> Tensor:
        return 0.5 * p.flatten(1).square().sum(1)

    with frozen(energy):
        low, gradient = at(y)
        for _ in range(steps):
            p = torch.randn_like(y)
            new, total = y, low + kinetic(p)
            slope = gradient
            p = p - 0.5 * size * slope
            for i in range(LEAPFROG_STEPS):
                new = new + size * p
                high, slope = at(new)
                p = p - (size if i < LEAPFROG_STEPS - 1 else 0.5 * size) * slope
            taken = torch.rand_like(low).log() < total - high - kinetic(p)
            wide = taken.reshape(-1, *(1,) * (y.ndim - 1))
            low = torch.where(taken, high, low)
            y, gradient = torch.where(wide, new, y), torch.where(wide, slope, gradient)
    return y


# -- torchebm --------------------------------------------------------------------------------------------


def in_torchs_layers(energy: nn.Module) -> nn.Module:
    """A copy with torch's own layers and order of memory in place of this package's faster ones; same
    weights."""
    copied = deepcopy(energy).to(memory_format=torch.contiguous_format)
    for parent in list(copied.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, Linear):
                plain: nn.Module = nn.Linear(layer.in_features, layer.out_features)
            elif isinstance(layer, FewChannelConv2d):
                sizes: Any = (layer.kernel_size, layer.stride, layer.padding)
                plain = nn.Conv2d(layer.in_channels, layer.out_channels, *sizes)
            else:
                continue
            plain.load_state_dict(layer.state_dict())
            parent.add_module(name, plain.to(next(layer.parameters())))
    return copied


def peer_work(
    target: Target, chain: Chain, device: torch.device, ours: bool = False, compiled: bool = False
) -> Work:
    """The same steps by torchebm, on the same network: in torch's layers, or in `ours`; `compiled` or not."""
    energy, start = target.energy(device), target.start(device).flatten(1)
    energy = energy if ours else in_torchs_layers(energy)
    if compiled:
        energy.compile()
    sampler = peer_sampler(energy, target.shape, chain, device)
    return repeated(lambda: sampler.sample(x=start.clone(), n_steps=chain.steps))


def peer_sampler(energy: nn.Module, shape: tuple[int, ...], chain: Chain, device: torch.device) -> Any:
    """torchebm's sampler. States are flat: its HMC (0.8.9) takes no other ones."""
    core, samplers = (import_module(f"{PEER}.{name}") for name in ("core", "samplers"))
    base: Any = core.BaseModel

    class Flat(base):
        def __init__(self) -> None:
            super().__init__()
            self.energy = energy

        def forward(self, y: Tensor) -> Tensor:
            found: Tensor = self.energy(y.reshape(-1, *shape[1:]))
            return found

    if chain == LANGEVIN:
        return samplers.LangevinDynamics(Flat(), step_size=chain.step_size, device=device)
    return samplers.HamiltonianMonteCarlo(
        Flat(), step_size=chain.step_size, n_leapfrog_steps=chain.gradients, device=device
    )


def summary(rows: Sequence[Row]) -> list[str]:
    """What is promised of this suite, and what was measured."""
    lines = []
    for row in rows:
        if row.ratio is None or row.peer_name is None:
            continue
        promised = f" (promised: at least {1 if row.peer_name == BARE else GAIN})"
        told = "" if row.peer_name == NOT_COMPILED else promised
        lines.append(f"{row.case}: {with_interval(row.ratio)} times {row.peer_name}{told}")
    if not find_spec(PEER):
        lines.append(f"{PEER} is not installed, so it was not measured: pip install 'ssl_ebm[bench]'")
    return lines
