"""What a task's `representation` takes, said so that other programs can feed it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_ebm.data.special_tokens import PAD, SPECIAL
from ssl_ebm.errors import UserError

INTENSITY = "intensity in [0, 1]"
SIZE = 32  # pixels a side, where any size will do


@dataclass(frozen=True)
class Inputs:
    """(B, *shape) of what is represented.

    Attributes:
        name: "image", "video", "tokens" or "point": the entry of a batch.
        axes: what the axes of `shape` are.
        shape: as in training; None where that is not known, and any size will do.
        free: those of the axes that may have another size; tokens may be fewer, not more.
        unit: of the values.
        vocabulary: number of tokens; None where values are not tokens.
        padding: the token that stands where a text has ended.

    Raises:
        ValueError: sizes that are no positive numbers, or not one for each axis.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int | None, ...]
    free: tuple[str, ...] = ()
    unit: str = INTENSITY
    vocabulary: int | None = None
    padding: int = PAD

    def __post_init__(self) -> None:
        sizes = all(size is None or (type(size) is int and size > 0) for size in self.shape)
        if len(self.shape) != len(self.axes) or not sizes:
            raise ValueError(f"{self.name} cannot have the shape {self.shape} of {', '.join(self.axes)}")

    def describe(self) -> str:
        """As in ``image (B, channels 3, height 32, width 32) float32, intensity in [0, 1]``."""
        sides = [self._side(axis, size) for axis, size in zip(self.axes, self.shape, strict=True)]
        kind = "float32" if self.vocabulary is None else "int64"
        return f"{self.name} (B, {', '.join(sides)}) {kind}, {self.unit}"

    def _side(self, axis: str, size: int | None) -> str:
        if size is None:
            return f"any {axis}"
        at_most = axis in self.free and self.vocabulary is not None
        return f"{axis} {'up to ' if at_most else ''}{size}"

    def example(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Random values of this kind: (count, *shape), in [0, 1], or tokens without padding."""
        shape = (count, *(SIZE if size is None else size for size in self.shape))
        if self.vocabulary is None:
            return torch.rand(shape, generator=generator)
        drawn = torch.randint(len(SPECIAL), self.vocabulary, shape, generator=generator)
        return torch.where(drawn == self.padding, (drawn + 1) % self.vocabulary, drawn)

    def check(self, given: Tensor) -> None:
        """Raises UserError unless the tensor has this kind of values, and sizes that go with it; tokens may
        come in windows, (B, W, *shape)."""
        if not isinstance(given, Tensor):
            how = " (of texts: what `tokenize` makes)" if self.vocabulary is not None else ""
            raise UserError(f"this encoder takes {self.describe()}{how}; got {type(given).__name__}")
        of_kind = given.is_floating_point() if self.vocabulary is None else given.dtype == torch.int64
        sizes = given.shape[1:]
        if self.vocabulary is not None and len(sizes) == 1 + len(self.shape):
            sizes = sizes[1:]
        fits = len(sizes) == len(self.shape) and all(
            axis in self.free or wanted is None or wanted == size
            for axis, wanted, size in zip(self.axes, self.shape, sizes, strict=True)
        )
        if not (of_kind and fits):
            raise UserError(f"this encoder takes {self.describe()}; got {tuple(given.shape)} {given.dtype}")
