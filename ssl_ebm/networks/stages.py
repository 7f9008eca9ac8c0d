"""Layers in a row, as stages."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ssl_ebm.energy.stages import Staged


class Stage(Staged, nn.Sequential):
    """`torch.nn.Sequential` that is one stage as a whole."""


class PairedStages(Staged, nn.Sequential):
    """`torch.nn.Sequential` of which two layers at a time, one with weights and its units, are a stage.

    Of an odd number the last layer is in none.
    """

    def __init__(self, *layers: Any) -> None:
        super().__init__(*layers)
        self.stages = ("pair",) if len(self) > 1 else ()

    def forward(self, x: Tensor, count: int | None = None) -> Tensor:
        """What comes out of the first `count` layers; of all, where that is None."""
        layers = list(self)[:count]
        for first, second in zip(layers[::2], layers[1::2], strict=False):
            x = self.pair(first, second, x)
        return layers[-1](x) if len(layers) % 2 else x

    def pair(self, first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
        """second(first(x))."""
        made: Tensor = second(first(x))
        return made
