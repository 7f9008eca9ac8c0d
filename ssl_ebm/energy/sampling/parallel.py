"""Chains in parts that run at the same time, each part on processor cores of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_ebm.energy.autograd import frozen, needs_gradients
from ssl_ebm.energy.sampling.chains import Chains, EnergyOfState, Sampler
from ssl_ebm.errors import UserError


@dataclass(frozen=True)
class Parallel:
    """Another sampler, on `parts` shares of the chains at once, in threads.

    Small networks do not keep two cores busy: every operation waits for the slower core, and many are too
    short to be shared. Chains know nothing of each other, so a core can have some for itself. Numbers depend
    on `parts`, and not on the machine: every part draws from a generator of its own, seeded by the given one.
    A sampler with a warm-up adapts a step size for each part; `Chains.step_size` is their mean.

    On a GPU the chains stay together.

    Args:
        sampler: how the chains of a part move.
        parts: 1 or more; best the number of cores. Never more than there are chains.

    Raises:
        UserError: parts is below 1; on a call: as the sampler.
    """

    sampler: Sampler
    parts: int = 2

    def __post_init__(self) -> None:
        if self.parts < 1:
            raise UserError(f"Parallel: parts is {self.parts}: use at least 1")

    @property
    def beta(self) -> float:
        return self.sampler.beta

    def sample(
        self,
        energy: EnergyOfState,
        start: Tensor,
        steps: int,
        generator: torch.Generator | None = None,
        record_every: int = 0,
        check: bool = True,
    ) -> Chains:
        """Moves the chains; see `Sampler.sample`."""
        shares = start.chunk(self.parts) if start.ndim and start.device.type == "cpu" else (start,)
        if len(shares) == 1:
            return self.sampler.sample(energy, start, steps, generator, record_every, check)
        needs_gradients(type(self.sampler).__name__)  # the mode is the calling thread's alone
        origin = "cpu" if generator is None else generator.device
        seeds = torch.randint(2**62, (len(shares),), generator=generator, device=origin).tolist()
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def run(share: Tensor, seed: int) -> Chains:
            own = torch.Generator(origin).manual_seed(seed)
            with torch.autocast("cpu", autocast[1], enabled=autocast[0]):
                return self.sampler.sample(energy, share, steps, own, record_every, check)

        # Frozen here: the first part to end must not thaw what the others still use.
        with frozen(energy), _threads(len(shares)) as pool:
            done = list(pool.map(run, shares, seeds))
        return _together(done)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads that share the cores that torch uses."""
    cores = torch.get_num_threads()
    each = max(1, cores // count)
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(each,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(cores)  # MKL has one number for all threads


def _together(parts: list[Chains]) -> Chains:
    counts = parts[0].energy.new_tensor([len(part.state) for part in parts])
    energy = torch.stack([part.energy for part in parts])
    return Chains(
        torch.cat([part.state for part in parts]),
        torch.cat([part.acceptance for part in parts]),
        (counts / counts.sum()) @ energy,
        torch.stack([part.step_size for part in parts]).mean(),
        torch.cat([part.draws for part in parts], 1),
    )
