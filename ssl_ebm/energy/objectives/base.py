"""What an objective is: a number that falls as the energy takes the shape of the data."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Objective(Protocol):
    """How an energy is shaped.

    One that differentiates a gradient of the energy says so by an attribute `second_derivatives`, True:
    torch.compile cannot.

    Args of a call:
        model: y (B, *Y) -> F(y) (B,); some objectives need more of it and say so.
        y: (B, *Y), data.
        generator: of all random numbers; None: the global one.
        index: (B,) int64, the place of each y in its data set, for objectives that keep something for each.

    Returns:
        The loss, ().
    """

    def __call__(
        self,
        model: Any,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor: ...
