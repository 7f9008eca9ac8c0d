"""Random numbers for the items of a batch, whether one process holds it or several share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class ItemGenerator(torch.Generator):
    """Draws for all items of a batch that several processes share; each process keeps those of its own.

    Item i of process r is item i * processes + r of the whole batch. So, with the same seed everywhere, what
    is drawn for an item does not depend on how many processes share the batch. `normal`, `uniform` and
    `for_items` know of it; their first dimension counts items. A draw costs as many random numbers as the
    whole batch has.

    Args:
        device: where it draws.
        processes, rank: how many share the batch, and which of them this is.
    """

    def __new__(cls, device: torch.device | str = "cpu", *_: Any, **__: Any) -> ItemGenerator:
        return super().__new__(cls, device)  # type: ignore[call-arg]

    def __init__(self, device: torch.device | str = "cpu", processes: int = 1, rank: int = 0) -> None:
        self.processes, self.rank = processes, rank


def fresh_generator(device: torch.device) -> torch.Generator:
    """A generator whose seed the global one of the CPU draws: new numbers at each call, without a wait for a
    GPU."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**63 - 1, ())))


def for_items(count: int, generator: torch.Generator | None, draw: Callable[[int], Tensor]) -> Tensor:
    """draw(count), or this process's share of draw(count * processes)."""
    if not isinstance(generator, ItemGenerator):
        return draw(count)
    return draw(count * generator.processes)[generator.rank :: generator.processes]


def normal(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Standard normal numbers, drawn on the generator's device and moved, or where they stay without one."""
    return _drawn(torch.randn, shape, dtype, device, generator)


def uniform(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str, generator: torch.Generator | None
) -> Tensor:
    """Uniform numbers in [0, 1), drawn as those of `normal` are."""
    return _drawn(torch.rand, shape, dtype, device, generator)


def _drawn(
    draw: Callable[..., Tensor],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device | str,
    generator: torch.Generator | None,
) -> Tensor:
    if generator is None:  # in every step of a chain: without a detour
        return draw(shape, dtype=dtype, device=device)

    def of(*sizes: int) -> Tensor:
        return draw(sizes, generator=generator, device=generator.device, dtype=dtype)

    made = for_items(shape[0], generator, lambda count: of(count, *shape[1:])) if shape else of()
    return made.to(device)
