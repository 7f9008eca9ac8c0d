"""Chains in parts: the same numbers as each part alone, whatever the number of threads."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy.sampling import Hmc, Langevin, Parallel, Sampler
from ssl_ebm.errors import UserError
from ssl_ebm.networks import PointEnergy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start() -> Tensor:
    return torch.randn(11, 2, generator=seeded(5))


@pytest.mark.parametrize("sampler", [Langevin(0.01), Hmc(0.1, warmup=20)])
def test_parts_are_what_each_is_alone(sampler: Sampler) -> None:
    energy = PointEnergy(width=16, confine=1.0)
    found = Parallel(sampler, 2).sample(energy, start(), 6, seeded(), record_every=2)
    seeds = torch.randint(2**62, (2,), generator=seeded()).tolist()
    alone = [
        sampler.sample(energy, share, 6, seeded(seed), record_every=2)
        for share, seed in zip((start()[:6], start()[6:]), seeds, strict=True)
    ]
    torch.testing.assert_close(found.state, torch.cat([one.state for one in alone]))
    torch.testing.assert_close(found.draws, torch.cat([one.draws for one in alone], 1))
    torch.testing.assert_close(found.acceptance, torch.cat([one.acceptance for one in alone]))
    torch.testing.assert_close(found.energy, (6 * alone[0].energy + 5 * alone[1].energy) / 11)
    torch.testing.assert_close(found.step_size, (alone[0].step_size + alone[1].step_size) / 2)


def test_numbers_do_not_depend_on_the_threads_and_are_those_of_the_seed() -> None:
    energy, threads = PointEnergy(width=16), torch.get_num_threads()
    try:
        states = []
        for count in (1, 4):
            torch.set_num_threads(count)
            states.append(Parallel(Langevin(0.01), 3).sample(energy, start(), 5, seeded()).state)
            assert torch.get_num_threads() == count
        torch.testing.assert_close(*states)
    finally:
        torch.set_num_threads(threads)
    torch.manual_seed(3)
    first = Parallel(Langevin(0.01)).sample(energy, start(), 5).state
    torch.manual_seed(3)
    assert torch.equal(first, Parallel(Langevin(0.01)).sample(energy, start(), 5).state)
    assert not torch.equal(first, Parallel(Langevin(0.01)).sample(energy, start(), 5).state)


class Watched(nn.Module):
    """|y|^2 times a weight; remembers in which thread, and how, it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.threads: set[int] = set()
        self.modes: set[tuple[bool, bool, torch.dtype]] = set()

    def forward(self, y: Tensor) -> Tensor:
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        self.threads.add(threading.get_ident())
        self.modes.add((self.weight.requires_grad, *autocast))
        time.sleep(0.001)  # an executor gives a part to a thread that is done with another
        return self.weight * y.square().sum(1)


def test_parts_have_threads_frozen_weights_and_the_callers_precision() -> None:
    energy = Watched()
    with torch.autocast("cpu", torch.bfloat16):
        Parallel(Langevin(0.01), 2).sample(energy, start(), 20)
    assert len(energy.threads - {threading.get_ident()}) == 2
    assert energy.modes == {(False, True, torch.bfloat16)}
    assert energy.weight.requires_grad


def test_an_error_of_a_part_is_the_samplers_own_and_leaves_all_as_it_was() -> None:
    energy, threads = Watched(), torch.get_num_threads()
    with pytest.raises(UserError, match=r"Langevin.*not finite.*smaller step_size"):
        Parallel(Langevin(1e30)).sample(energy, start(), 50)
    assert energy.weight.requires_grad
    assert torch.get_num_threads() == threads
    with torch.inference_mode(), pytest.raises(UserError, match="inference_mode"):
        Parallel(Langevin(0.1)).sample(energy, start(), 5)
    with pytest.raises(UserError, match="a state is"):
        Parallel(Langevin(0.1)).sample(energy, torch.zeros(()), 5)
    with pytest.raises(UserError, match="parts is 0"):
        Parallel(Langevin(0.1), 0)


def test_fewer_chains_than_parts() -> None:
    found = Parallel(Langevin(0.1), 8).sample(Watched(), start()[:3], 2, seeded())
    assert found.state.shape == (3, 2)
    assert Parallel(Langevin(0.1), 8).beta == 1
