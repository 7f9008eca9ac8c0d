"""`ssl-ebm shard`: a folder of many files as a few large ones, with how far it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from ssl_ebm.data.broken_files import check_on_broken
from ssl_ebm.data.loading import NAMED, check_least
from ssl_ebm.data.shards.manifest import Kind, Manifest, is_sharded
from ssl_ebm.data.shards.plan import make_plan
from ssl_ebm.data.shards.writing import Progress, write_shards
from ssl_ebm.errors import UserError
from ssl_ebm.progress import Display
from ssl_ebm.running.lock import only_run_in

MEGABYTE = 10**6
SETTLED = 1.0  # seconds after which the rate says how long the rest will take


def shard(
    source: str | Path,
    out: str | Path,
    kind: Kind | None = None,
    shard_mb: int = 256,
    on_broken: Literal["skip", "stop"] = "skip",
    max_broken: float = 1.0,
) -> Manifest:
    """Packs pictures, clips or text into shards, which the data of a training reads like the folder itself.

    Called again after it was broken off, it goes on with the first shard that is not whole.

    Args:
        source: a folder of pictures, clips, or text; or one file of text.
        out: the folder to write to.
        kind: "images", "clips" or "texts"; None: what the files' endings say.
        shard_mb: most megabytes (10^6 bytes) in a shard.
        on_broken: leave files that cannot be read out, or stop at the first.
        max_broken: largest share of the files, in (0, 1], that may be left out.

    Raises:
        UserError: as `make_plan` and `write_shards`; the source holds shards, or is the folder to write to.
    """
    check_least(shard_mb=(shard_mb, 1))
    check_on_broken(on_broken, max_broken)
    if Path(source).resolve() == Path(out).resolve():
        raise UserError(f"{out} is the folder that is read: choose another one to write to")
    if is_sharded(source):
        raise UserError(f"{source} holds shards already: give the original folder")
    with Display() as display:
        display.say(f"listing the files of {source}")
        plan = make_plan(source, kind, shard_mb * MEGABYTE)
        began: float | None = None  # with the first file: before it, all are listed once more

        def report(at: Progress) -> None:
            nonlocal began
            if began is None and at.written:
                began = time.monotonic()
            spent = 0.0 if began is None else time.monotonic() - began
            rate = at.written / spent if spent > SETTLED else 0
            left = (plan.bytes - at.bytes) / rate if rate else None
            detail = f"{at.bytes / MEGABYTE:.0f}/{plan.bytes / MEGABYTE:.0f} MB, {at.broken} broken"
            display.show("packing", at.files, plan.pieces, "files", left, detail)

        with only_run_in(out):
            manifest = write_shards(plan, out, on_broken, report=report, max_broken=max_broken)
        for line in manifest.broken[:NAMED]:
            display.say(f"left out: {line}")
        display.say(summary(manifest, Path(out)))
    return manifest


def summary(manifest: Manifest, out: Path) -> str:
    """What was made, in a line."""
    bytes_ = sum(one.size for one in manifest.shards)
    parts = [f"{manifest.items} {manifest.kind} in {len(manifest.shards)} shards of {out}"]
    parts.append(f"{bytes_ / MEGABYTE:.1f} MB")
    if manifest.classes:
        parts.append(f"{len(manifest.classes)} classes")
    broken = len(manifest.broken)
    parts.append(
        f"{broken} broken file(s) left out" + (", all named in shards.json" if broken > NAMED else "")
    )
    return "; ".join(parts)
