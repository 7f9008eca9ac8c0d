"""Random numbers of a training step: a function of seed, process, step and batch of the step."""

from types import SimpleNamespace
from typing import Any, cast

import torch

from ssl_ebm.energy.draws import ItemGenerator, normal, uniform
from ssl_ebm.tasks.seeding import SeededSteps

ITEMS = 12


def draws(
    steps: list[int], seed: int = 0, rank: int = 0, processes: int = 1, disturb: bool = False
) -> list[tuple[float, torch.Tensor]]:
    """What each batch draws first from torch's generator, and then for its items; steps[i] is batch i's."""
    callback = SeededSteps(seed)
    numbers = []
    for step in steps:
        trainer = SimpleNamespace(global_step=step, global_rank=rank, world_size=processes)
        task = SimpleNamespace(_trainer=trainer, draws=None, device="cpu")
        callback.on_train_batch_start(cast(Any, trainer), cast(Any, task))
        items = uniform((ITEMS // processes, 5), torch.float64, "cpu", cast(Any, task.draws))
        numbers.append((torch.rand(()).item(), items))
        if disturb:
            torch.rand(7)
        callback.on_train_batch_end(cast(Any, trainer), cast(Any, task))
        assert task.draws is None
    return numbers


def first(numbers: list[tuple[float, torch.Tensor]]) -> list[float]:
    return [number for number, _ in numbers]


def test_nothing_that_ran_before_matters() -> None:
    assert first(draws([0, 1, 2, 3])) == first(draws([0, 1, 2, 3], disturb=True))
    assert first(draws([0, 1, 2, 3]))[2:] == first(draws([2, 3]))


def test_seeds_processes_steps_and_batches_differ() -> None:
    accumulated = draws([0, 0, 1, 1])  # two batches in a step
    others = draws([0, 1], seed=1) + draws([0, 1], processes=2) + draws([0, 1], rank=1, processes=2)
    all_numbers = first(accumulated + others)
    assert len(set(all_numbers)) == len(all_numbers)


def test_what_is_drawn_for_an_item_does_not_depend_on_the_processes() -> None:
    whole = draws([3, 3])
    for processes in (2, 3, 4):
        for rank in range(processes):
            for (_, part), (_, all_items) in zip(draws([3, 3], 0, rank, processes), whole, strict=True):
                assert torch.equal(part, all_items[rank::processes])


def test_a_generator_for_items_alone_in_its_batch_is_torchs() -> None:
    mine, torchs = (made.manual_seed(3) for made in (ItemGenerator(), torch.Generator()))
    found = normal((4, 2), torch.float32, torch.device("cpu"), mine)
    assert torch.equal(found, torch.randn(4, 2, generator=torchs))
