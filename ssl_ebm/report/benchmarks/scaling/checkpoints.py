"""How fast checkpoints are saved and loaded, against their size, beside the bare disk in the same run.

Saved as a training saves them: written beside the place, brought to the disk, renamed. Loaded as every
command loads them: all checksums looked at, no code run.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.timing import Effort, repeated
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import WholeFileIO

SIZES = (1, 10, 100, 400)  # MB
LAYER = 2**18  # weights of a layer at most: a checkpoint has many tensors
BLOCK = 2**20  # bytes that are read at a time
SAVE_PEER, LOAD_PEER = "bare write and fsync", "bare read"


def checkpoint_rows(suite: str, effort: Effort, sizes: Sequence[float] = SIZES) -> Iterator[Row]:
    """MB per second of saving and loading a checkpoint of so many MB, each beside a plain file as long.

    Files are in the folder for temporary files (``TMPDIR``). What is read has just been written, so it comes
    from the system's memory.
    """
    for size in sizes:
        yield from _rows_of(suite, effort, size)


def _rows_of(suite: str, effort: Effort, size: float) -> Iterator[Row]:
    content = trained(size)
    with tempfile.TemporaryDirectory() as name:
        path, plain = Path(name) / "last.ckpt", Path(name) / "plain"
        WholeFileIO().save_checkpoint(content, path)
        held = path.read_bytes()
        plain.write_bytes(held)
        save = {
            "ours": repeated(lambda: WholeFileIO().save_checkpoint(content, path)),
            SAVE_PEER: repeated(lambda: _write(plain, held)),
        }
        load = {"ours": repeated(lambda: read_checkpoint(path)), LOAD_PEER: repeated(lambda: _read(plain))}
        for verb, peer, works in (("save", SAVE_PEER, save), ("load", LOAD_PEER, load)):
            rates = effort.rates(works)
            ours, bare = (rates[one] * len(held) / 1e6 for one in ("ours", peer))
            case = f"{verb} a checkpoint of {size:g} MB"
            yield Row(suite, case, "float32", ours, "MB/s", bare, peer, rates.ratio("ours", peer))


def trained(size: float) -> dict[str, Any]:
    """What a checkpoint of about so many MB holds: weights, and AdamW's two averages of each."""
    weights = int(size * 1e6 / 4 / 3)
    side = max(1, int(min(weights, LAYER) ** 0.5))
    network = nn.ModuleList(nn.Linear(side, side, bias=False) for _ in range(max(1, weights // side**2)))
    optimizer = torch.optim.AdamW(network.parameters())
    for weight in network.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    return {"state_dict": network.state_dict(), "optimizer_states": [optimizer.state_dict()]}


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(BLOCK):
            pass


def summary(rows: Sequence[Row]) -> list[str]:
    """Seconds of each."""
    lines = []
    for row in rows:
        if row.unit == "MB/s":
            size = float(row.case.rpartition(" of ")[2].removesuffix(" MB"))
            lines.append(f"{row.case}: {size / row.ours:.3g} s")
    return lines
