"""What all data shares: a loader that resumes, one for evaluation, and their DataModule.

Training batches form one endless stream, and the batch of step s is a pure function of (seed, s). So neither
the number of workers nor the number of processes changes a global batch, and a run resumed from any
checkpoint sees the batches that the uninterrupted run would have seen.
"""

import itertools
import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ssl_ebm.data.randomness import stream_key
from ssl_ebm.data.read_watch import watched
from ssl_ebm.data.sampling import OrderedSampler, StreamSampler
from ssl_ebm.errors import UserError

MEMORY_SHARE = 0.5  # of the machine's memory, at most, for decoded files
IN_A_WORKER = "Caught UserError in DataLoader worker"  # how PyTorch begins
READ_TIMEOUT = 600.0  # seconds
NAMED = 10  # files that a warning names; `describe` lists all
DEFLATED = 1032  # times as large as it lies in a ZIP or gzip file, at most, is what was deflated (zlib.net)


def _message_alone(error: UserError) -> UserError:
    """The message alone: a loader wraps an error of a worker into the worker's traceback."""
    text = str(error)
    if IN_A_WORKER in text:
        text = text.rpartition("ssl_ebm.errors.UserError: ")[2]
    return UserError(text.strip())


class EndingWithParent:
    """What a loader's worker does first: it ends if the process that it works for is dead already.

    PyTorch's worker ends when its parent changes after it has begun to watch. Of a parent killed before that
    it never hears, and waits for work for ever.

    Args:
        before: what else a worker is to do first, such as Lightning's seeding.
    """

    def __init__(self, before: Callable[[int], None] | None) -> None:
        self.before = before

    def __call__(self, worker: int) -> None:
        if self.before is not None:
            self.before(worker)
        parent = multiprocessing.parent_process()
        if parent is None:  # called in no worker
            return
        # Of forked workers, the later ones hold open what would tell the earlier ones of their parent's end.
        forked = multiprocessing.get_start_method() == "fork"
        if (forked and os.getppid() != parent.pid) or not parent.is_alive():
            os._exit(1)


class _Loader(DataLoader[Any]):
    """A loader whose workers do not outlive their process, and whose own reads are `watched`; for workers
    there is `timeout`."""

    def __iter__(self) -> Any:
        # not sooner: Lightning seeds the workers only of a loader that has nothing here
        if not isinstance(self.worker_init_fn, EndingWithParent):
            self.worker_init_fn = EndingWithParent(self.worker_init_fn)
        return super().__iter__()

    def _next_of(self, batches: Iterator[Any]) -> Any:
        """The next batch.

        Raises:
            UserError: the dataset's, without a worker's traceback.
            StopIteration: there is none.
        """
        try:
            with nullcontext() if self.num_workers else watched():
                return next(batches)
        except UserError as error:
            raise _message_alone(error) from error


class StreamLoader(_Loader):
    """Training batches; each iteration hands out the next epoch's worth of the stream.

    Lightning saves and restores the `state_dict` of a loader that has one, in the middle of an epoch. The
    state counts the batches handed out, not those that workers have prepared, and not Lightning's epochs:
    these count one too many after resuming a run limited by `max_steps` from the end of an epoch (Lightning
    2.6).

    With another sampler, such as Lightning puts in for `overfit_batches`, each iteration begins anew.

    One loader serves one training, and whoever iterates it takes batches from that: a Trainer that is given
    the loader of an earlier one goes on where that ended. Ask the DataModule for another.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed_out = 0
        self._ahead = 0  # batches of this size that the stream is ahead of that number
        self._stream: Any = None

    def __iter__(self) -> Any:
        return self._epoch()  # a generator: it starts at the first `next`, when the state has been restored

    def _epoch(self) -> Iterator[Any]:
        if not isinstance(self.sampler, StreamSampler):
            self._stream = None
        for _ in range(len(self)):
            stopped = self.num_workers > 0 and self._iterator is not self._stream  # Lightning ends workers
            if self._stream is None or stopped:
                if isinstance(self.sampler, StreamSampler):
                    self.sampler.start = self.place_of(self._handed_out)
                self._stream = super().__iter__()
            try:
                batch = self._next_of(self._stream)
            except StopIteration:
                self._stream = None
                return
            self._handed_out += 1
            yield batch

    def place_of(self, batch: int) -> int:
        """Where in the stream, in batches of this size, a batch of the training is (counted from 0)."""
        return batch + self._ahead

    def state_dict(self) -> dict[str, int]:
        """How many batches have been handed out since training began, and how many items of the stream that
        is, for all processes together: batches may have had other sizes."""
        state = {"batches": self._handed_out}
        if isinstance(self.sampler, StreamSampler):
            state["items"] = self.place_of(self._handed_out) * self._items_at_once(self.sampler)
        return state

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on after that many batches, with the batch that holds the first item after those (in states of
        old, which know none: with the batch of that number)."""
        self._handed_out = state_dict["batches"]
        self._ahead = 0
        if "items" in state_dict and isinstance(self.sampler, StreamSampler):
            self._ahead = state_dict["items"] // self._items_at_once(self.sampler) - self._handed_out
        self._stream = self._iterator = None

    @staticmethod
    def _items_at_once(sampler: StreamSampler) -> int:
        """Of all processes."""
        return sampler.batch_size * sampler.num_replicas


class OrderedLoader(_Loader):
    """Evaluation batches, always the same."""

    def __iter__(self) -> Any:
        batches = super().__iter__()
        while True:
            try:
                batch = self._next_of(batches)
            except StopIteration:
                return
            yield batch


def found_in(dataset: Any, name: str) -> Any:
    """An attribute of a dataset, or of the one that it is a part of; None: neither has it."""
    while dataset is not None:
        if hasattr(dataset, name):
            return getattr(dataset, name)
        dataset = getattr(dataset, "dataset", None)
    return None


def collate_of(dataset: Any) -> Callable[[list[Any]], Any]:
    """What makes a batch of items: the `collate` of a dataset; else as PyTorch does it."""
    return found_in(dataset, "collate") or default_collate


class StreamData(LightningDataModule, ABC):
    """Loaders over three splits: an endless training stream that resumes, and evaluation in order.

    The order of a validation is a random one, always the same: few of its batches are of the whole split.

    Attributes:
        train_dataset, val_dataset, test_dataset: there after `setup`.
        read_timeout: seconds that a loader waits for its workers before it gives up; `ssl-ebm` sets it.

    Args:
        batch_size: items in a batch, per process.
        workers: worker processes of each loader; the batches do not depend on it.
        seed: names all random numbers of the data.
    """

    read_timeout = READ_TIMEOUT

    def __init__(self, batch_size: int, workers: int, seed: int) -> None:
        super().__init__()
        check_least(batch_size=(batch_size, 1), workers=(workers, 0))
        self.batch_size = batch_size
        self.workers = workers
        self.seed = seed
        self._train_loader: StreamLoader | None = None
        self._resume: dict[str, int] | None = None
        self.train_dataset: Any = None
        self.val_dataset: Any = None
        self.test_dataset: Any = None

    @abstractmethod
    def make_dataset(self, split: str) -> Dataset[Any]:
        """The dataset of "train", "val" or "test". Item i of epoch e of the training is asked for by the
        index e * len(dataset) + i: one that does not make fresh items takes the remainder. One that does says
        so by an attribute `fresh_items` that is True: `LabelledShare` then keeps to the first epoch's, as
        those of a later one have labels of their own.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What else `describe` reports of this set."""

    def fingerprint(self) -> Mapping[str, object] | None:
        """Names the files that the data are made of, and says what of them it covers (see
        `ssl_ebm.data.fingerprints`). None where there are none: the settings say all."""
        return None

    def without_class(self) -> str | None:
        """The file for whose sake none has a class, though others lie in folders for classes; None: there is
        no such file."""
        return None

    def how_to_label(self) -> str:
        """What to do where there are no classes, for messages."""
        file = self.without_class()
        if file is None:
            return "put the files in a folder for each class"
        return f"{file} lies in no folder of a class, and so no file has one: move it into one, or away"

    def setup(self, stage: str | None = None) -> None:
        """Make the splits that the stage ("fit", "validate", "test", "predict"; None: all) needs, once."""
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for split in stages.get(stage or "", ("train", "val", "test")):
            if getattr(self, f"{split}_dataset") is None:
                setattr(self, f"{split}_dataset", self.make_dataset(split))

    def _options(self, dataset: Dataset[Any]) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "collate_fn": collate_of(dataset),
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "timeout": self.read_timeout if self.workers else 0,
            "pin_memory": torch.cuda.is_available(),
            # a loader draws a seed for its workers: not from the generator that the model draws from
            "generator": torch.Generator().manual_seed(stream_key(self.seed, "workers") >> 1),
        }

    def _place(self) -> tuple[int, int]:
        """Number of processes, and which of them this is."""
        trainer = getattr(self, "trainer", None)
        return (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)

    def train_dataloader(self) -> StreamLoader:
        trainer = getattr(self, "trainer", None)
        if trainer is not None and trainer.reload_dataloaders_every_n_epochs:
            raise UserError(
                "reload_dataloaders_every_n_epochs would repeat the first epoch's data: leave it at 0"
            )
        self.setup("fit")
        sampler = StreamSampler(self.train_dataset, self.batch_size, self.seed, *self._place())
        options = self._options(self.train_dataset)
        loader = StreamLoader(self.train_dataset, sampler=sampler, drop_last=True, **options)
        if self._resume is not None:
            loader.load_state_dict(self._resume)
            self._resume = None
        self._train_loader = loader
        return loader

    def items_of_batch(self, batch: int) -> list[int]:
        """This process's items in a training batch (counted from 0), as `StreamSampler` names them."""
        sampler = StreamSampler(self.train_dataset, self.batch_size, self.seed, *self._place())
        sampler.start = batch if self._train_loader is None else self._train_loader.place_of(batch)
        return list(itertools.islice(sampler, self.batch_size))

    def names_of_items(self, items: Sequence[int]) -> list[str] | None:
        """What the files of training items are called, as `items_of_batch` counts these; None: they come from
        no files, or from many."""
        names = getattr(self.train_dataset, "item_names", None)
        return None if names is None else names(items)

    def names_in_batch(self, split: str, batch: Mapping[str, Tensor]) -> list[str] | None:
        """The same of the items in a batch of "train", "val" or "test"."""
        names = found_in(getattr(self, f"{split}_dataset"), "names_in_batch")
        return None if names is None else names(batch)

    def state_dict(self) -> dict[str, int]:
        """Where the training stream is.

        Checkpoints hold it twice, because Lightning does not restore the loader's own state at the end of an
        epoch.
        """
        return {"batches": 0} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """The next training loader goes on there."""
        self._resume = state_dict

    def _evaluation_loader(self, stage: str, split: str, spread: bool = False) -> OrderedLoader:
        """All items, as `OrderedSampler` orders and shares them."""
        self.setup(stage)
        dataset = getattr(self, f"{split}_dataset")
        sampler = OrderedSampler(dataset, *self._place(), spread)
        return OrderedLoader(dataset, sampler=sampler, **self._options(dataset))

    def val_dataloader(self) -> OrderedLoader:
        return self._evaluation_loader("validate", "val", spread=True)

    def test_dataloader(self) -> OrderedLoader:
        return self._evaluation_loader("test", "test")

    def predict_dataloader(self) -> OrderedLoader:
        return self._evaluation_loader("predict", "test")

    def describe(self) -> dict[str, Any]:
        """Name, settings, units and sizes of the splits made so far, as plain values for results.json."""
        splits = {name: getattr(self, f"{name}_dataset") for name in ("train", "val", "test")}
        return {
            "name": type(self).__name__,
            "seed": self.seed,
            "items": {name: len(dataset) for name, dataset in splits.items() if dataset is not None},
            **self.settings(),
        }


def check_least(**settings: tuple[int, int]) -> None:
    """Raises UserError for the first setting, given as name=(value, least), that is below its least value."""
    for name, (value, least) in settings.items():
        if value < least:
            raise UserError(f"{name} is {value}: use at least {least}")


def check_memory(need: int, what: str, remedy: str, share: float | None = None) -> None:
    """Raises UserError where so many bytes are more than a share of this machine's memory (None: half)."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > (MEMORY_SHARE if share is None else share) * have:
        raise UserError(f"{what} need {need / 2**30:.1f} GiB of this machine's {have / 2**30:.1f}: {remedy}")


def warn_of_skipped(source: str, why: str, names: Sequence[str]) -> None:
    """Names the first files that are left out, and says how many there are."""
    more = f"; and {len(names) - NAMED} more" if len(names) > NAMED else ""
    rank_zero_warn(f"{source}: skipped {len(names)} {why}: {'; '.join(names[:NAMED])}{more}")
