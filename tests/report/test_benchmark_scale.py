"""The suite "scale": that it measures what it says."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from ssl_ebm.data.documents import Corpus
from ssl_ebm.data.shards.folder import open_shards
from ssl_ebm.data.shards.manifest import Kind
from ssl_ebm.errors import UserError
from ssl_ebm.report.benchmarks import scale
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.scaling import checkpoints, memory, processes
from ssl_ebm.report.benchmarks.scaling.processes import (
    APART,
    IDEAL,
    ONE,
    TOGETHER,
    UNCONNECTED,
    Times,
    frame_prediction,
    masked_autoencoder,
    process_rows,
)
from ssl_ebm.report.benchmarks.scaling.shards import shard_rows
from ssl_ebm.report.benchmarks.timing import Effort
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import WholeFileIO

ONCE = Effort(repeats=1, seconds=0, device=torch.device("cpu"))
TINY = {"width": 8, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
LINUX = pytest.mark.skipif(not os.access(memory.PEAK, os.W_OK), reason="only Linux tells")


# -- processes -------------------------------------------------------------------------------------------


def test_rates_are_of_the_time_in_which_all_train() -> None:
    # Four steps a second from 10 s to 20 s; two a second from 14 s to 24 s.
    fast, slow = [10 + 0.25 * step for step in range(41)], [14 + 0.5 * step for step in range(21)]
    assert Times(9.0, [fast]).steps_per_second == pytest.approx(4)
    assert Times(9.0, [fast, slow]).steps_per_second == pytest.approx(6)
    assert Times(9.0, [fast, slow]).first == pytest.approx(median([1, 5]))
    paused = [*fast[:3], *(at + 7 for at in fast[3:])]  # what comes before the third step does not count
    assert Times(9.0, [paused]).steps_per_second == pytest.approx(38 / (7 + 9.5))


def test_trainings_that_did_not_run_at_one_time_are_said() -> None:
    one = [10 + 0.25 * step for step in range(9)]
    with pytest.raises(UserError, match="more steps"):
        _ = Times(9.0, [one, [at + 10 for at in one]]).steps_per_second


@pytest.mark.slow
def test_one_process_and_two_are_measured_by_the_command() -> None:
    training = masked_autoencoder(items=2, steps=60, **TINY)
    rows = list(process_rows("scale", training, turns=1))
    by_name = {(row.case.split(", ")[1], row.peer_name): row for row in rows if row.unit == "images/s"}
    assert set(by_name) == {(ONE, None), (APART, IDEAL), (TOGETHER, IDEAL), (TOGETHER, UNCONNECTED)}
    assert by_name[TOGETHER, IDEAL].peer == pytest.approx(2 * by_name[ONE, None].ours)
    assert by_name[TOGETHER, UNCONNECTED].peer == pytest.approx(by_name[APART, IDEAL].ours)
    first = [row.ours for row in rows if row.case.startswith("time to first step")]
    assert len(first) == 2
    assert all(0.5 < one < processes.PATIENCE for one in first)
    assert len(scale.summary(rows)) >= 2


@pytest.mark.slow
def test_a_training_that_fails_is_said() -> None:
    with pytest.raises(Exception, match=r"a training of frame prediction.* failed: .*codes"):
        processes.run_trainings(frame_prediction(steps=1, codes=0), 1)


# -- shards ----------------------------------------------------------------------------------------------


def test_shards_stand_beside_the_folder() -> None:
    rows = list(shard_rows("scale", ONCE, shards=(1, 3), workers=(0, 1), pictures=200))
    cases = [row.case for row in rows]
    assert cases[0] == "load pictures on demand, 1 shard, 0 workers"
    assert [case.split(", ")[2] for case in cases] == ["0 workers"] * 2 + ["1 worker"] * 2
    assert all(int(case.split(", ")[1].split()[0]) in (3, 4) for case in cases[1::2])
    assert all(row.ratio is not None and row.ratio.value > 0 for row in rows)


# -- memory ----------------------------------------------------------------------------------------------


@LINUX
def test_repeated_shards_hold_the_pictures_of_the_first(tmp_path: Path) -> None:
    plan, records = memory.write_one_shard(tmp_path, 20, memory.KINDS[0])
    out = memory.repeat_shard(tmp_path, tmp_path / "many", plan, records, 3)
    shards = open_shards(out, "images")
    assert shards is not None
    assert len(set(shards.names)) == len(shards) == 60
    assert [int(one) for one in np.unique(shards.items.column("shard"))] == [0, 1, 2]
    for row in (0, 19, 20, 59):
        assert shards.names[row] == f"{row // 20:06}/{row % 20:04}.jpg"
        assert shards.read(row) == (tmp_path / "source" / f"{row % 20:04}.jpg").read_bytes()


@LINUX
def test_repeated_pictures_keep_their_splits(tmp_path: Path) -> None:
    plan, records = memory.write_one_shard(tmp_path, 20, memory.KINDS[1])
    shards = open_shards(memory.repeat_shard(tmp_path, tmp_path / "many", plan, records, 3), "images")
    assert shards is not None
    assert shards.manifest.splits == {"train": 21, "val": 21, "test": 18, "any": 0}


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "few", "many"),
    [(0, 1000, 1_000_000), (1, 1000, 1_000_000), (2, 1000, 300_000), (3, 10_000, 60_000)],
)
def test_memory_does_not_grow_with_the_items(kind: int, few: int, many: int) -> None:
    """The index of a million pictures alone has 62 MB, and a list of their names more. A thousand texts do
    not fill the tokenizer's batch."""
    items = memory.KINDS[kind]
    rows = list(memory.memory_rows("scale", items=(few, many), kinds=[items]))
    assert len(rows) == 8 * len(items.names)
    for start, name in enumerate(items.names):
        fewer, more = (rows[at : at + 4] for at in (4 * start, 4 * (start + len(items.names))))
        assert all(row.case.endswith(f", {few:,} {name}") for row in fewer)
        whole, held, peak, seconds = (row.ours for row in more)
        assert held - fewer[1].ours < 6
        assert peak - fewer[2].ours < 12
        assert 0 < held <= peak < whole
        assert seconds > 0


@LINUX
def test_a_million_texts_would_not_be_held(tmp_path: Path) -> None:
    plan, records = memory.write_one_shard(tmp_path, 500, memory.KINDS[3])
    peaks = []
    for times in (20, 80):  # an index is read 8,192 rows at a time
        folder = memory.repeat_shard(tmp_path, tmp_path / str(times), plan, records, times)
        corpus = Corpus(str(folder), "file")
        assert sum(1 for _ in corpus.documents()) == 500 * times  # Python's own tables grow to their size
        tracemalloc.start()
        assert sum(1 for _ in corpus.documents()) == 500 * times
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1e6  # bytes; 30,000 listings alone have 8e6


@LINUX
@pytest.mark.slow
def test_rows_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both counts are tokenised, at their first start alone, after a thousand that are not counted."""
    left: list[list[tuple[str, int]]] = []  # after each start: the token files, and when they were written
    measured = memory.first_batch

    def start(kind: Kind, folder: Path, warm_up: Path, cache: Path) -> list[float]:
        figures = measured(kind, folder, warm_up, cache)
        left.append([(str(one), one.stat().st_mtime_ns) for one in sorted(cache.rglob("*.bin"))])
        return figures

    monkeypatch.setattr(memory, "first_batch", start)
    rows = list(memory.memory_rows("scale", items=(1000, 3000), kinds=[memory.KINDS[3]]))
    whole, held, peak, seconds = (row.ours for row in rows[8:12])
    assert rows[3].ours < seconds
    assert held < peak
    assert 0 < peak < whole
    assert [row.case for row in rows[4:8]] == [f"{row.case}, {memory.AGAIN}" for row in rows[:4]]
    assert [len(files) for files in left] == [3] * 4
    assert left[0] == left[1] != left[2] == left[3]


def test_the_least_and_the_most_items_of_a_kind_are_summed_up() -> None:
    kinds = ["pictures", "pictures in fixed splits", "texts"]
    figures = {("1,000", kinds[0]): 871.2, ("100,000", kinds[0]): 873.0, ("1,000,000", kinds[0]): 875.7}
    figures |= {("1,000", kinds[1]): 870.0, ("1,000,000", kinds[1]): 1234.5, ("1,000", kinds[2]): 875.0}
    rows = [
        Row("scale", f"{what}, {count} {kind}", "uint8", figure if what == memory.WHOLE else 1.0, "MB")
        for (count, kind), figure in figures.items()
        for what in (memory.WHOLE, "memory held for the items")
    ]
    assert memory.summary(rows) == [
        "memory (RSS), 1,000 pictures: 871 MB; 1,000,000 pictures: 876 MB",
        "memory (RSS), 1,000 pictures in fixed splits: 870 MB; 1,000,000 pictures in fixed splits: 1,234 MB",
    ]


# -- checkpoints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.1, 3.0])
def test_checkpoints_are_as_large_as_is_said(tmp_path: Path, size: float) -> None:
    WholeFileIO().save_checkpoint(checkpoints.trained(size), tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").stat().st_size / 1e6 == pytest.approx(size, rel=0.1)
    held = read_checkpoint(tmp_path / "a.ckpt")
    weights = sum(one.numel() for one in held["state_dict"].values())
    state = held["optimizer_states"][0]["state"].values()
    assert sum(one["exp_avg"].numel() + one["exp_avg_sq"].numel() for one in state) == 2 * weights


def test_checkpoints_stand_beside_the_disk() -> None:
    rows = list(checkpoints.checkpoint_rows("scale", ONCE, sizes=(0.5,)))
    assert [row.peer_name for row in rows] == [checkpoints.SAVE_PEER, checkpoints.LOAD_PEER]
    save, load = checkpoints.summary(rows)
    assert save == f"save a checkpoint of 0.5 MB: {0.5 / rows[0].ours:.3g} s"
    assert load.startswith("load a checkpoint of 0.5 MB")
