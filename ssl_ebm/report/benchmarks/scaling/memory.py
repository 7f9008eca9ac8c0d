"""Time until a first batch, and memory after some, against the number of items: each in a process of its own.

The shards are real, written by `ssl-ebm shard`'s own code; beyond a thousand items they are the same shard
under further names, so that an index of a million items takes seconds to make and 60 to 200 MB of disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_ebm.data.shards.intake import BrokenFileError, take_in
from ssl_ebm.data.shards.manifest import Kind
from ssl_ebm.data.shards.merging import finish
from ssl_ebm.data.shards.plan import Plan, make_plan
from ssl_ebm.data.shards.tape import Tape
from ssl_ebm.data.shards.writing import name_of
from ssl_ebm.data.splits import SPLITS
from ssl_ebm.report.benchmarks.corpus_memory import write_documents
from ssl_ebm.report.benchmarks.inpainting import write_pictures
from ssl_ebm.report.benchmarks.loading_rates import write_clips
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.rows import number as rounded

ITEMS = (1_000, 10_000, 100_000, 1_000_000)
SHARD = 1000  # items in each
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WORDS = 12  # in a text
BATCHES = 50  # after which memory is looked at
WHOLE = "memory (RSS)"
AGAIN = "tokenised before"
SCRIPT = f"""
import ctypes, re, sys, tempfile, time
from itertools import islice
from pathlib import Path
from ssl_ebm.data import ImageFolder, Text, VideoFolder

kind, opened, warm_up, cache = sys.argv[1:]
make = {{
    "images": lambda folder, cache: ImageFolder(folder, size=32, in_memory=False, batch_size=64),
    "clips": lambda folder, cache: VideoFolder(folder, size=32, cache=False, batch_size=8),
    "texts": lambda folder, cache: Text(folder, "file", vocabulary=1000, cache=cache, batch_size=64),
}}[kind]

def megabytes(*names):
    status = Path("{STATUS}").read_text()
    return sum(int(re.search(name + r":\\s+(\\d+) kB", status)[1]) for name in names) * 1024 / 1e6

def first_batch(folder, cache):
    data = make(folder, cache)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    next(batches)
    return batches

def held():  # of its own: without what the C library keeps for later, having been given it back
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    return megabytes("RssAnon", "RssShmem")

first_batch(warm_up, tempfile.mkdtemp(dir=opened))  # imports what a first batch needs
before, resident = held(), megabytes("VmRSS")
Path("{PEAK}").write_text("5")  # the peak is that of from now on
began = time.monotonic()
batches = first_batch(opened, cache)
seconds, peak = time.monotonic() - began, megabytes("VmHWM")
for _ in islice(batches, {BATCHES} - 1):
    pass
whole = megabytes("VmRSS")
print(seconds, whole, held() - before, peak - resident)
"""


@dataclass(frozen=True)
class Items:
    """Items of one kind.

    Attributes:
        what: in plural, for the page.
        kind: of their shards.
        write: so many of them into a folder.
        splits: the folders that they are in, if these fix the splits.
        dtype: of their numbers, as they are kept.
        starts: what each start on the same items is called, after `what`.
    """

    what: str
    kind: Kind
    write: Callable[[Path, int], object]
    splits: tuple[str, ...] = ("",)
    dtype: str = "uint8"
    starts: tuple[str, ...] = ("",)

    @property
    def names(self) -> list[str]:
        """Of the items at each start, for the page."""
        return [f"{self.what}, {start}" if start else self.what for start in self.starts]


def write_notes(folder: Path, count: int) -> None:
    """Files of some made-up words."""
    write_documents(folder / "all.txt", count)
    texts = (folder / "all.txt").read_text().split("\n\n")
    (folder / "all.txt").unlink()
    for number, text in enumerate(texts[:count]):
        (folder / f"{number:04}.txt").write_text(" ".join(text.split()[:WORDS]))


KINDS = (
    Items("pictures", "images", write_pictures),
    Items("pictures in fixed splits", "images", write_pictures, SPLITS),
    Items("clips", "clips", partial(write_clips, frames=10, height=40, width=60)),
    Items("texts", "texts", write_notes, dtype="uint16", starts=("", AGAIN)),
)


def memory_rows(
    suite: str, items: Sequence[int] = ITEMS, shard: int = SHARD, kinds: Sequence[Items] = KINDS
) -> Iterator[Row]:
    """For each number of items: seconds from opening to the first batch; the process's memory (RSS) after
    some batches; how much came with the items and is still held (its own: neither pages of files, nor what
    the C library keeps for later); and how much had come at most, until the first batch. Texts are tokenised
    at their first start; a second process then starts on the same texts, as every later training does.
    Nothing where the system is no Linux or does not tell.
    """
    if not (STATUS.is_file() and os.access(PEAK, os.W_OK)):
        return
    for one in kinds:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            plan, records = write_one_shard(folder, shard, one)
            few = repeat_shard(folder, folder / "few", plan, records, 1)
            for count in items:
                many = repeat_shard(folder, folder / str(count), plan, records, count // shard)
                total = len(records["items"]) * (count // shard)
                for name in one.names:
                    seconds, whole, more, peak = first_batch(one.kind, many, few, folder / f"cache{count}")
                    figures = (
                        (WHOLE, whole, "MB"),
                        ("memory held for the items", more, "MB"),
                        ("memory at most for them, while opening", peak, "MB"),
                        ("until the first batch", seconds, "s"),
                    )
                    for what, figure, unit in figures:
                        yield Row(suite, f"{what}, {total:,} {name}", one.dtype, figure, unit)


def summary(rows: Sequence[Row]) -> list[str]:
    """Memory with the fewest and with the most items of each kind, at each start."""
    lines = []
    for name in (name for items in KINDS for name in items.names):
        found = [row for row in rows if row.case.startswith(WHOLE) and row.case.endswith(f" {name}")]
        if len(found) > 1:
            few, most = found[0], found[-1]
            total = most.case.removeprefix(f"{WHOLE}, ")
            lines.append(f"{few.case}: {rounded(few.ours)} MB; {total}: {rounded(most.ours)} MB")
    return lines


def write_one_shard(folder: Path, count: int, items: Items) -> tuple[Plan, dict[str, Any]]:
    """A shard of generated items, ``folder/shard-000000.tar``, and its part of the index."""
    source = folder / "source"
    for number, split in enumerate(items.splits):
        (source / split).mkdir(parents=True)
        items.write(source / split, len(range(number, count, len(items.splits))))
    plan = make_plan(source, items.kind, sys.maxsize)
    with (folder / name_of(0)).open("wb") as file:
        tape = Tape(file, 0)
        for piece in next(plan.shards(folder)):
            content = take_in(piece, plan.kind)
            assert not isinstance(content, BrokenFileError)
            tape.add(piece, content)
        return plan, tape.close()


def repeat_shard(folder: Path, out: Path, plan: Plan, records: dict[str, Any], times: int) -> Path:
    """So many shards of the same items under other names: links to the first one, with an index of all."""
    parts = out / "parts"
    parts.mkdir(parents=True)
    lengths = records["items"]["name_end"].astype(int)
    starts = np.cumsum(lengths) - lengths
    for number in range(times):
        prefix = np.frombuffer(f"{number:06}/".encode(), np.uint8)
        names = np.insert(records["names"], np.repeat(starts, len(prefix)), np.tile(prefix, len(lengths)))
        items = records["items"].copy()
        items["shard"] = number
        items["name_end"] += len(prefix)
        items["group_end"] = items["name_end"]
        part = {**records, "items": items, "names": names, "groups": names}
        np.savez(parts / f"{number:06}.npz", **part)
        os.link(folder / name_of(0), out / name_of(number))
    finish(out, parts, plan, [name_of(number) for number in range(times)]).write(out)
    return out


def first_batch(kind: Kind, folder: Path, warm_up: Path, cache: Path) -> list[float]:
    """Of a process that opens a folder after another: seconds, MB of the process, MB held for the folder,
    and MB at most for it. What is tokenised in it stays in the cache."""
    command = [sys.executable, "-c", SCRIPT, kind, str(folder), str(warm_up), str(cache)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()[-4:]]
