"""When a fetch has lasted too long; processes that are ended for it are in test_cli."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_ebm.data import MovingDigits
from ssl_ebm.data.listings import file_names
from ssl_ebm.data.read_watch import ReadWatch, read_limit, watched
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.probing.features import RawInputs, extract


class Clock:
    """Looks at a watch, each `pause` after the one before."""

    def __init__(self, watch: ReadWatch) -> None:
        self.watch = watch
        self.now = 0.0
        watch._looked = 0.0

    def look(self, after: float | None = None) -> bool:
        self.now += self.watch.pause if after is None else after
        return self.watch.too_long(self.now)


@pytest.mark.parametrize("seconds", [0.5, 6.0, 600.0])
def test_a_fetch_that_lasts_is_given_up_after_its_time_and_not_before(seconds: float) -> None:
    watch = ReadWatch(seconds)
    clock = Clock(watch)
    with watch:
        while not clock.look():
            assert clock.now < 2 * seconds
    # It may have begun anywhere between two looks.
    assert seconds <= clock.now <= seconds + 2 * watch.pause


def test_neither_a_long_step_nor_many_short_fetches_are() -> None:
    watch = ReadWatch(6.0)
    clock = Clock(watch)
    for _ in range(100):
        with watch:
            found = [clock.look() for _ in range(5)]  # half of its time
        found += [clock.look() for _ in range(50)]
        assert not any(found)
    for _ in range(100):  # one after the other, with no look between them
        with watch:
            assert not clock.look()


def test_the_time_in_which_a_process_was_suspended_is_not_counted() -> None:
    watch = ReadWatch(6.0)
    clock = Clock(watch)
    with watch:
        assert not clock.look()
        for _ in range(3):
            assert not clock.look(after=3600.0)
    with watch:
        assert not clock.look(after=3600.0)


def test_the_thread_gives_up_once_while_it_is_asked_to() -> None:
    given_up, ended = list[str](), threading.Event()

    def end() -> None:
        given_up.append(threading.current_thread().name)
        ended.set()

    watch = ReadWatch(0.05)
    with watch.giving_up(end), watch:
        assert ended.wait(60)
    assert given_up == ["read watch"]
    with watch.giving_up(end):
        threads = [thread for thread in threading.enumerate() if thread.name == "read watch"]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()  # it holds no model of a training that is over
    assert len(given_up) == 1


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_loaders_without_workers_are_watched(split: str, workers: int) -> None:
    """While they fetch, and not while what asked for a batch is computing; also those of a copy."""

    class Seen(ReadWatch):
        fetches = 0

        def __enter__(self) -> None:
            super().__enter__()
            self.fetches += 1

    data = MovingDigits(train_clips=8, val_clips=8, test_clips=8, batch_size=4, workers=workers)
    data = copy.deepcopy(data)
    watch = Seen(600.0)
    batches = 0
    with watch.giving_up(lambda: None):
        for batch in getattr(data, f"{split}_dataloader")():
            assert watch._fetch is None
            assert isinstance(batch["video"], torch.Tensor)
            batches += 1
    assert batches == 2
    assert watch.fetches == (0 if workers else batches + (split != "train"))  # the last finds no more
    assert watch._fetch is None


class Items(torch.utils.data.Dataset[Any]):
    """Numbers, and whether the watch around was watching when each was read."""

    def __init__(self, watch: ReadWatch) -> None:
        self.watch, self.seen = watch, list[bool]()

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.seen.append(self.watch._fetch is not None)
        return {"image": torch.full((1, 2, 2), float(index)), "label": torch.tensor(index)}


def test_what_probes_read_is_watched() -> None:
    """In batches, and one by one; their computing is not."""
    watch = ReadWatch(600.0)
    items = Items(watch)

    class Task(torch.nn.Module):
        def inputs(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            assert watch._fetch is None
            return batch["image"]

    task: Any = Task()
    assert read_limit() is None
    with watch.giving_up(lambda: None):
        assert read_limit() == 600.0
        extract(RawInputs(task), items, range(6), batch_size=3)
        load_items(items, [0, 1])  # type: ignore[arg-type]
        assert watch._fetch is None
    assert items.seen == [True] * 8
    load_items(items, [0])  # type: ignore[arg-type]
    assert items.seen[-1] is False


def test_a_fetch_within_another_is_a_part_of_it() -> None:
    watch = ReadWatch(600.0)
    with watch.giving_up(lambda: None), watched():
        outer = watch._fetch
        with watched():
            assert watch._fetch is outer
        assert watch._fetch is outer
    assert watch._fetch is None


def test_each_entry_of_a_listing_is_a_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long listing is many; one that hangs at an entry is given up."""
    for number in range(9):
        (tmp_path / f"{number}.png").touch()
    watch, real, given_up = ReadWatch(0.2), os.scandir, threading.Event()
    fetches: list[object] = []

    class Slow:
        """Entries, of which the last hangs until it is given up."""

        def __init__(self, folder: Path) -> None:
            self.entries = list(real(folder))

        def __enter__(self) -> Slow:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> Iterator[Any]:
            for entry in self.entries:
                fetches.append(watch._fetch)
                assert entry is not self.entries[-1] or given_up.wait(60)
                yield entry

    monkeypatch.setattr(os, "scandir", Slow)
    with watch.giving_up(given_up.set):
        names = list(file_names(tmp_path, [".png"]))
        assert watch._fetch is None
    assert len(names) == 9
    assert None not in fetches
    assert len(set(map(id, fetches))) == 9
