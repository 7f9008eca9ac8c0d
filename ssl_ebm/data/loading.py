"""What all sets of clips share: the order of items, a loader that resumes in the middle of an epoch, and
their DataModule.

The order of the items is a pure function of (seed, epoch): neither the number of workers nor the number of
processes changes a global batch, and a run resumed from a checkpoint sees the batches that the uninterrupted
run would have seen.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from ssl_ebm.data.randomness import stream_key
from ssl_ebm.errors import UserError


class EpochSampler(DistributedSampler[Any]):
    """Indices of one process, strided over a global order: process r of N takes r, r + N, r + 2N, ...

    So step s of N processes with batches of B / N holds the same items as step s of one process with batches
    of B. It is a DistributedSampler also for one process, hence Lightning keeps it as it is under DDP.

    Args:
        dataset: only its length is used.
        shuffle: a new permutation in each epoch.
        fresh: offset the indices of epoch e by e * len(dataset), for sets that make new items in each epoch.
        seed: of the permutations.
        processes, rank: of the distributed run.
        drop_last: drop the tail that does not divide among the processes, else repeat items to fill it up.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        shuffle: bool,
        fresh: bool,
        seed: int = 0,
        processes: int = 1,
        rank: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(dataset, processes, rank, shuffle, seed, drop_last)
        self.fresh = fresh
        self.start = 0  # items of this process to leave out, used when resuming

    def __iter__(self) -> Iterator[int]:
        count = len(self.dataset)  # type: ignore[arg-type]
        if self.shuffle:
            generator = torch.Generator().manual_seed(stream_key(self.seed, f"order/{self.epoch}") >> 1)
            order = torch.randperm(count, generator=generator)
        else:
            order = torch.arange(count)
        if self.total_size > count:
            order = order.repeat(-(-self.total_size // count))
        if self.fresh:
            order = order + self.epoch * count
        return iter(order[: self.total_size][self.rank :: self.num_replicas][self.start :].tolist())


class ResumableLoader(DataLoader[Any]):
    """A DataLoader that goes on where a checkpoint left it.

    Lightning saves and restores `state_dict` of a loader that has one (the fit loop's state
    "combined_loader"). The state counts the batches handed out, not those that workers have prepared.
    Iteration begins at the first `next`, because Lightning calls `iter` before it tells the sampler the
    epoch.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._epoch = 0
        self._batches = 0
        self._resume: tuple[int, int] | None = None

    def __iter__(self) -> Any:
        return self._iterate()

    def _iterate(self) -> Iterator[Any]:
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):  # Lightning's overfit_batches puts its own sampler here
            yield from super().__iter__()
            return
        self._epoch, self._batches = sampler.epoch, 0
        if self._resume is not None and self._resume[0] == sampler.epoch:
            self._batches = self._resume[1]
        self._resume = None
        sampler.start = self._batches * (self.batch_size or 1)
        try:
            for batch in super().__iter__():
                sampler.start = 0
                self._batches += 1
                yield batch
        finally:
            sampler.start = 0

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many of its batches have been handed out."""
        if self._resume is not None:
            return {"epoch": self._resume[0], "batches": self._resume[1]}
        return {"epoch": self._epoch, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin the state's epoch after the batches that were handed out; other epochs from their start."""
        self._resume = (state_dict["epoch"], state_dict["batches"])


class ClipData(LightningDataModule, ABC):
    """Loaders over clips in three splits. A batch is a dictionary with at least

        video: (B, T, C, H, W) float32 in [0, 1], T = context_frames + future_frames;
        clip: (B,) int64, the index of the clip within its split (items of one clip are not independent);
        label: (B,) int64, where there are classes.

    Attributes:
        train_dataset, val_dataset, test_dataset: there after `setup`.

    Args:
        context_frames: frames that are seen.
        future_frames: frames that follow them in a training clip.
        eval_future_frames: the same in a validation or test clip; None: as in training.
        batch_size: clips in a batch, per process.
        workers: worker processes of each loader; the batches do not depend on it.
        seed: names all random numbers of the data.
    """

    def __init__(
        self,
        context_frames: int,
        future_frames: int,
        eval_future_frames: int | None,
        batch_size: int,
        workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        if eval_future_frames is None:
            eval_future_frames = future_frames
        for name, value, least in (
            ("context_frames", context_frames, 1),
            ("future_frames", future_frames, 1),
            ("eval_future_frames", eval_future_frames, 1),
            ("batch_size", batch_size, 1),
            ("workers", workers, 0),
        ):
            if value < least:
                raise UserError(f"{name} is {value}: use at least {least}")
        self.context_frames = context_frames
        self.future_frames = future_frames
        self.eval_future_frames = eval_future_frames
        self.batch_size = batch_size
        self.workers = workers
        self.seed = seed
        self.train_dataset: Any = None
        self.val_dataset: Any = None
        self.test_dataset: Any = None

    @property
    @abstractmethod
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every frame."""

    @abstractmethod
    def make_dataset(self, split: str) -> Dataset[Any]:
        """The dataset of "train", "val" or "test"."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What else `describe` reports of this set."""

    def setup(self, stage: str | None = None) -> None:
        """Make the splits that the stage ("fit", "validate", "test", "predict"; None: all) needs, once."""
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for split in stages.get(stage or "", ("train", "val", "test")):
            if getattr(self, f"{split}_dataset") is None:
                setattr(self, f"{split}_dataset", self.make_dataset(split))

    def _loader(self, split: str) -> ResumableLoader:
        self.setup({"train": "fit", "val": "validate", "test": "test"}[split])
        dataset = getattr(self, f"{split}_dataset")
        training = split == "train"
        trainer = getattr(self, "trainer", None)
        processes = trainer.world_size if trainer is not None else 1
        whole = len(dataset) >= self.batch_size * processes  # a set smaller than one batch is one batch
        sampler = EpochSampler(
            dataset,
            shuffle=training,
            fresh=training,
            seed=self.seed,
            processes=processes,
            rank=trainer.global_rank if trainer is not None else 0,
            drop_last=training and whole,
        )
        return ResumableLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            drop_last=training and whole,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )

    def train_dataloader(self) -> ResumableLoader:
        return self._loader("train")

    def val_dataloader(self) -> ResumableLoader:
        return self._loader("val")

    def test_dataloader(self) -> ResumableLoader:
        return self._loader("test")

    def predict_dataloader(self) -> ResumableLoader:
        return self._loader("test")

    def describe(self) -> dict[str, Any]:
        """Name, settings, units and sizes of the splits made so far, as plain values for results.json."""
        splits = {name: getattr(self, f"{name}_dataset") for name in ("train", "val", "test")}
        return {
            "name": type(self).__name__,
            "seed": self.seed,
            "frame_shape": list(self.frame_shape),
            "frame_unit": "intensity in [0, 1]",
            "context_frames": self.context_frames,
            "future_frames": self.future_frames,
            "eval_future_frames": self.eval_future_frames,
            "items": {name: len(dataset) for name, dataset in splits.items() if dataset is not None},
            **self.settings(),
        }
