"""Very many items: an index of 10^5 of them starts at once, in a few megabytes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sharded_folders import pack, write_pictures

from ssl_ebm.data.listings import Listing, assign_splits
from ssl_ebm.data.shards import drawing
from ssl_ebm.data.shards.folder import open_shards
from ssl_ebm.data.shards.manifest import digest, read_manifest
from ssl_ebm.data.shards.tables import ITEM

MANY = 100_000
START = """
import os, re, sys, time
from ssl_ebm.data import ImageFolder
def kept():  # MB that are this process's own, unlike pages of its libraries
    return int(re.search(r"^Anonymous: +(\\d+)", open("/proc/self/smaps_rollup").read(), re.M)[1]) / 1024
before, began = kept(), time.monotonic()
data = ImageFolder(sys.argv[1], size=8, in_memory=False)
data.setup("fit")
next(iter(data.train_dataloader()))
print(time.monotonic() - began, kept() - before)
"""


def repeat_items(folder: Path, count: int) -> None:
    """Names for many items that share the content of a few."""
    manifest = read_manifest(folder)
    items = np.resize(np.fromfile(folder / "items.bin", ITEM), count)
    names = [f"class{row % 3}/{row}.png".encode() for row in range(count)]
    items["name_end"] = np.cumsum([len(name) for name in names])
    items.tofile(folder / "items.bin")
    (folder / "names.bin").write_bytes(b"".join(names))
    tables = [
        replace(one, size=(folder / one.name).stat().st_size, sha256=digest(folder / one.name))
        for one in manifest.tables
    ]
    replace(manifest, items=count, splits={"any": count}, tables=tables).write(folder)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells")
def test_a_hundred_thousand_items_start_at_once(tmp_path: Path) -> None:
    """Splits are drawn. A list of as many paths takes 100 MB."""
    found = {}
    for count in (1000, MANY):
        folder = tmp_path / str(count)
        pack(write_pictures(tmp_path / "pictures"), folder)
        repeat_items(folder, count)
        made = subprocess.run(
            [sys.executable, "-c", START, str(folder)], check=True, capture_output=True, text=True
        )
        found[count] = [float(word) for word in made.stdout.split()[-2:]]
    seconds, memory = found[MANY]
    assert seconds < 10  # 0.3 on a free processor
    assert memory - found[1000][1] < 15


@pytest.mark.parametrize("held", [0, 2**18])  # keys are made again for each pass, or not
@pytest.mark.parametrize("left_out", [None, 3])  # every third item, as if it could not be used
def test_splits_of_an_index_are_those_of_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, left_out: int | None
) -> None:
    monkeypatch.setattr(drawing, "HELD", held)
    folder = tmp_path / "shards"
    pack(write_pictures(tmp_path / "pictures"), folder)
    repeat_items(folder, 20_001)
    shards = open_shards(folder, "images")
    assert shards is not None
    names = list(shards.names)
    assert names[::100] == [shards.names[row] for row in range(0, 20_001, 100)]
    kept = [one for row, one in enumerate(names) if left_out is None or row % left_out]
    listed = assign_splits([Listing(Path(one), one, one) for one in kept], {None}, "", 0.1, 0.2, seed=7)

    def usable(start: int, stop: int) -> NDArray[np.bool_]:
        return np.arange(start, stop) % left_out > 0

    found = drawing.rows_of_splits(shards, 0.1, 0.2, seed=7, usable=usable if left_out else None)
    for split, rows in found.items():
        assert [names[row] for row in np.asarray(rows)] == [one.name for one in listed if one.split == split]
    assert len(found["test"]) == -(-len(kept) // 5)  # the first number that is no less than a fifth
