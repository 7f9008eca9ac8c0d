"""Random numbers of a training step: a function of seed, process, step and batch of the step."""

from types import SimpleNamespace
from typing import Any, cast

import torch

from ssl_ebm.tasks.seeding import SeededSteps


def draws(steps: list[int], seed: int = 0, rank: int = 0, disturb: bool = False) -> list[float]:
    """The first number drawn in each batch, where ``steps`` are the optimizer steps of the batches."""
    callback = SeededSteps(seed)
    numbers = []
    for step in steps:
        trainer = SimpleNamespace(global_step=step, global_rank=rank)
        callback.on_train_batch_start(cast(Any, trainer), cast(Any, None))
        numbers.append(torch.rand(()).item())
        if disturb:
            torch.rand(7)
    return numbers


def test_nothing_that_ran_before_matters() -> None:
    assert draws([0, 1, 2, 3]) == draws([0, 1, 2, 3], disturb=True)
    assert draws([0, 1, 2, 3])[2:] == draws([2, 3])


def test_seeds_processes_steps_and_batches_differ() -> None:
    accumulated = draws([0, 0, 1, 1])  # two batches in a step
    all_numbers = accumulated + draws([0, 1], seed=1) + draws([0, 1], rank=1)
    assert len(set(all_numbers)) == len(all_numbers)
