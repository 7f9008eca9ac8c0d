"""How fast a loader reads pictures from shards: against their number, and the number of workers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ssl_ebm.data import ImageFolder
from ssl_ebm.data.shards.plan import make_plan
from ssl_ebm.data.shards.writing import write_shards
from ssl_ebm.report.benchmarks.inpainting import write_pictures
from ssl_ebm.report.benchmarks.loading_rates import Loading
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.timing import Effort

PICTURES, BATCH = 4096, 64
SHARDS = (1, 16, 64)
WORKERS = (0, 1, 2)
PEER = "folder of the files"


def shard_rows(
    suite: str,
    effort: Effort,
    shards: Sequence[int] = SHARDS,
    workers: Sequence[int] = WORKERS,
    pictures: int = PICTURES,
) -> Iterator[Row]:
    """Pictures per second, decoded on demand; the peer is the folder that the shards were made of, with as
    many workers. All files are in the system's memory.

    Args:
        shards: about how many; a shard holds whole files, so there may be one more.
        workers: processes of the loader; 0: the training's own.
        pictures: JPEG files of 32x32 noise, 2 kB each.
    """
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "pictures"
        source.mkdir()
        write_pictures(source, pictures)
        made = {}
        for count in shards:
            out = Path(name) / f"shards{count}"
            made[out] = len(write_shards(make_plan(source, "images", -(-_size(source) // count)), out).shards)
        for several in workers:
            works = {str(place): Loading(_reader(place), several).work for place in (source, *made)}
            rates = effort.rates(works)
            for place, count in made.items():
                yield Row(
                    suite,
                    f"load pictures on demand, {count} shard{'s' * (count > 1)}, {several} "
                    f"worker{'s' * (several != 1)}",
                    "uint8",
                    rates[str(place)] * BATCH,
                    "images/s",
                    rates[str(source)] * BATCH,
                    PEER,
                    rates.ratio(str(place), str(source)),
                )


def _reader(folder: Path) -> Callable[..., ImageFolder]:
    return partial(ImageFolder, str(folder), size=32, in_memory=False, batch_size=BATCH)


def _size(source: Path) -> int:
    """Bytes of one tar file of all: a header of 512 before each file, and zeros up to a whole block."""
    return sum(512 + -(-path.stat().st_size // 512) * 512 for path in source.iterdir())
