"""Files that cannot be read: left out or replaced, up to a share of all, or a reason to stop at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from ssl_ebm.data.loading import NAMED, found_in
from ssl_ebm.errors import UserError


def check_on_broken(on_broken: str, max_broken: float) -> None:
    """Raises UserError unless on_broken is "skip" or "stop" and max_broken a share in (0, 1]."""
    if on_broken not in ("skip", "stop"):
        raise UserError(f"on_broken is {on_broken!r}: use skip or stop")
    if not 0 < max_broken <= 1:
        raise UserError(
            f"max_broken is {max_broken}: use a share of the files above 0 and up to 1, or on_broken stop"
        )


def check_share(broken: int, files: int, names: Iterable[str], max_broken: float, source: str) -> None:
    """Raises UserError, which names the first ones, where more than a share of the files are broken.

    Args:
        broken, files: how many are broken, of how many.
        names: of the broken ones; the first are told.
        max_broken: largest share that may be.
        source: where they lie.
    """
    if not broken or broken / files <= max_broken:
        return
    more = f"; and {broken - NAMED} more" if broken > NAMED else ""
    raise UserError(
        f"{broken} of {files} files in {source} cannot be read, more than max_broken ({max_broken:g}) "
        f"allows: {'; '.join(islice(names, NAMED))}{more}: see whether their disk can be read, copy them "
        "again, or raise max_broken"
    )


class BrokenFiles:
    """The files of a split that were found broken so far, by this process and by its workers; in a training
    by several processes also by the others, as of the last time that they were asked (`share`).

    Attributes:
        met: (N,) bool, in memory that workers share: which files they are.
        decides: (), bool, likewise: whether this process stops by its own count.

    Args:
        files: N.
        name: of a file, by its number.
        max_broken: largest share of the files that may be broken.
        source: where they lie.
    """

    def __init__(self, files: int, name: Callable[[int], str], max_broken: float, source: str) -> None:
        self.met = torch.zeros(files, dtype=torch.bool).share_memory_()
        self.decides = torch.ones((), dtype=torch.bool).share_memory_()
        self.name, self.max_broken, self.source = name, max_broken, source

    @property
    def names(self) -> list[str]:
        """Of those found so far."""
        return [*self._names(self.met)]

    def _names(self, met: torch.Tensor) -> Iterator[str]:
        return (self.name(index) for index in met.nonzero()[:, 0].tolist())

    def add(self, index: int, said: str) -> None:
        """Counts a file, and warns of it, the first time that it is met.

        Raises:
            UserError: that is one too many, and this process `decides`.
        """
        if self.met[index]:
            return
        self.met[index] = True
        warnings.warn(said, stacklevel=3)  # not by the first process alone: each meets others
        if self.decides:
            self.check(self.met)

    def share(self, device: torch.device) -> torch.Tensor:
        """Counts what any process has met; all must call it.

        Args:
            device: on which they speak to each other.

        Returns:
            (N,) bool, the same for all processes: what workers add meanwhile is not in it.
        """
        every = self.met.to(device, torch.uint8)
        torch.distributed.all_reduce(every, torch.distributed.ReduceOp.MAX)
        shared = every.cpu().bool()
        self.met[shared] = True
        return shared

    def check(self, met: torch.Tensor) -> None:
        """Raises UserError where those, (N,) bool, are more than `max_broken` allows."""
        check_share(int(met.sum()), len(met), self._names(met), self.max_broken, self.source)


def counts_of(data: Any) -> list[BrokenFiles]:
    """Those of the splits of a DataModule, where files are read on demand."""
    datasets = (getattr(data, f"{split}_dataset", None) for split in ("train", "val", "test"))
    asked = (found_in(dataset, "broken_files") for dataset in datasets)
    counts = (count_of() for count_of in asked if count_of is not None)
    return [one for one in counts if one is not None]
