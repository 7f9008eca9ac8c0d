"""The order of items, a pure function of the seed and the step, and how processes share them."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from ssl_ebm.data.randomness import permuted, stream_key
from ssl_ebm.errors import UserError

AT_ONCE = 4096  # items whose places are Python numbers at a time: a million of these take 36 MB
SPREAD_KEY = stream_key(0, "order of validation")  # of no run's seed: their validations are alike
HELD = 2**17  # items of which an epoch's order is held in memory: any permutation, all equally likely


def _check_place(processes: int) -> None:
    """Raises UserError where a loader made for so many processes hands out items in a run of others."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    if (have := distributed.get_world_size()) != processes:
        raise UserError(
            f"this loader shares its items out among {processes} process(es), and {have} read it: pass the "
            "DataModule to the Trainer, not its loaders"
        )


def _permutation(key: int, items: int) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    """Tells the items at some places of a random order. Of more than `HELD` items that is a cipher's
    (`randomness.permuted`), so memory does not grow with them.
    """
    if items > HELD:
        return partial(permuted, key, items)
    generator = torch.Generator().manual_seed(key >> 1)
    order: NDArray[np.int64] = torch.randperm(items, generator=generator).numpy()
    return order.__getitem__


class StreamSampler(DistributedSampler[Any]):
    """One process's share of an endless order of items: epoch after epoch, each in a permutation of its own.

    Of the global order, process r of N takes the places r, r + N, r + 2N, ... So step s of N processes with
    batches of B / N holds the same items as step s of one process with batches of B.

    The item at place p of epoch e has index e * len(dataset) + permutation_e[p]: a dataset that makes fresh
    items in each epoch uses all of it, another one the remainder by its length.

    It is a DistributedSampler, also for a single process, because Lightning leaves such a one in place.

    Args:
        dataset: only its length is used.
        batch_size: items in a batch of this process.
        seed: of the permutations.
        processes, rank: of the distributed run.

    Raises:
        UserError: it is iterated in a run of another number of processes.
    """

    def __init__(
        self, dataset: Dataset[Any], batch_size: int, seed: int = 0, processes: int = 1, rank: int = 0
    ) -> None:
        super().__init__(dataset, processes, rank, shuffle=True, seed=seed)
        self.items = len(dataset)  # type: ignore[arg-type]
        self.batch_size = batch_size
        self.start = 0  # steps to leave out, when resuming

    def __len__(self) -> int:
        """Items of this process in an epoch: whole batches, at least one."""
        return max(self.items // (self.batch_size * self.num_replicas), 1) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        _check_place(self.num_replicas)
        place = self.start * self.batch_size * self.num_replicas + self.rank
        while True:
            epoch, inside = divmod(place, self.items)
            order = _permutation(stream_key(self.seed, f"order/{epoch}"), self.items)
            places = range(inside, self.items, self.num_replicas)
            for first in range(0, len(places), AT_ONCE):
                some = order(np.array(places[first : first + AT_ONCE]))
                yield from (some + epoch * self.items).tolist()
            place += len(places) * self.num_replicas


class OrderedSampler(DistributedSampler[Any]):
    """All items, which processes share; the first ones are repeated for equal shares. As its parent without
    shuffling, which makes a list of all items first, 36 MB for a million.

    Args:
        dataset: only its length is used.
        processes, rank: of the distributed run.
        spread: in a random order, always the same, so that the first ones are of the whole set; else in
            their own.

    Raises:
        UserError: as `StreamSampler`.
    """

    def __init__(
        self, dataset: Dataset[Any], processes: int = 1, rank: int = 0, spread: bool = False
    ) -> None:
        super().__init__(dataset, processes, rank, shuffle=False)
        self.items = len(dataset)  # type: ignore[arg-type]
        self.spread = spread

    def __iter__(self) -> Iterator[int]:
        _check_place(self.num_replicas)
        places = range(self.rank, self.total_size, self.num_replicas)
        order = _permutation(SPREAD_KEY, self.items) if self.spread else np.asarray
        for first in range(0, len(places), AT_ONCE):
            yield from order(np.array(places[first : first + AT_ONCE]) % self.items).tolist()
