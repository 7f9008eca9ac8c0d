"""Time until a first batch, and memory after some, against the number of items: each in a process of its own.

The shards are real, written by `ssl-ebm shard`'s own code; beyond a thousand pictures they are the same shard
under further names, so that an index of a million items takes seconds to make and no room.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_ebm.data.shards.intake import BrokenFileError, take_in
from ssl_ebm.data.shards.merging import finish
from ssl_ebm.data.shards.plan import Plan, make_plan
from ssl_ebm.data.shards.tape import Tape
from ssl_ebm.data.shards.writing import name_of
from ssl_ebm.report.benchmarks.inpainting import write_pictures
from ssl_ebm.report.benchmarks.rows import Row

ITEMS = (1_000, 10_000, 100_000, 1_000_000)
SHARD = 1000  # pictures in each
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
BATCHES = 50  # of 64, after which memory is looked at
SCRIPT = f"""
import ctypes, re, sys, time
from itertools import islice
from pathlib import Path
from ssl_ebm.data import ImageFolder

def megabytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("{STATUS}").read_text())[1]) * 1024 / 1e6

def first_batch(folder):
    data = ImageFolder(folder, size=32, in_memory=False)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    next(batches)
    return batches

def held():  # without what the C library keeps for later, having been given it back
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    return megabytes("VmRSS")

first_batch(sys.argv[2])  # imports what a first batch needs
before = held()
Path("{PEAK}").write_text("5")  # the peak is that of from now on
began = time.monotonic()
batches = first_batch(sys.argv[1])
seconds, peak = time.monotonic() - began, megabytes("VmHWM")
for _ in islice(batches, {BATCHES} - 1):
    pass
whole = megabytes("VmRSS")
print(seconds, whole, held() - before, peak - before)
"""


def memory_rows(suite: str, items: Sequence[int] = ITEMS, shard: int = SHARD) -> Iterator[Row]:
    """For each number of items: seconds from opening to the first batch; the process's memory (RSS) after
    some batches; how much of it came with the items and is still held (the C library keeps some more for
    later); and how much had come at most, as splits were drawn. Nothing where the system is no Linux or
    does not tell.
    """
    if not (STATUS.is_file() and os.access(PEAK, os.W_OK)):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan, records = write_one_shard(folder, shard)
        few = repeat_shard(folder, folder / "few", plan, records, 1)
        for count in items:
            many = repeat_shard(folder, folder / str(count), plan, records, count // shard)
            seconds, whole, more, peak = first_batch(many, few)
            figures = (
                ("memory (RSS)", whole, "MB"),
                ("memory held for the items", more, "MB"),
                ("memory at most for them, while opening", peak, "MB"),
                ("until the first batch", seconds, "s"),
            )
            for what, figure, unit in figures:
                yield Row(
                    suite,
                    f"{what}, {len(records['items']) * (count // shard):,} items",
                    "uint8",
                    figure,
                    unit,
                )


def write_one_shard(folder: Path, pictures: int) -> tuple[Plan, dict[str, Any]]:
    """A shard of generated pictures, ``folder/shard-000000.tar``, and its part of the index."""
    source = folder / "pictures"
    source.mkdir()
    write_pictures(source, pictures)
    plan = make_plan(source, "images", sys.maxsize)
    with (folder / name_of(0)).open("wb") as file:
        tape = Tape(file, 0)
        for piece in next(plan.shards(folder)):
            content = take_in(piece, plan.kind)
            assert not isinstance(content, BrokenFileError)
            tape.add(piece, content)
        return plan, tape.close()


def repeat_shard(folder: Path, out: Path, plan: Plan, records: dict[str, Any], times: int) -> Path:
    """So many shards of the same pictures under other names: links to the first one, with an index of all."""
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


def first_batch(folder: Path, warm_up: Path) -> list[float]:
    """Of a process that opens a folder after another: seconds, MB of the process, MB held for the folder,
    and MB at most for it."""
    command = [sys.executable, "-c", SCRIPT, str(folder), str(warm_up)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()[-4:]]
