"""The index of all shards, put together from those of each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ssl_ebm.data.shards.manifest import Manifest, Stored, digest
from ssl_ebm.data.shards.plan import Plan
from ssl_ebm.data.shards.tables import CLIPS, GROUPS, ITEMS, NAMES, TIMES
from ssl_ebm.data.splits import SPLITS
from ssl_ebm.errors import UserError
from ssl_ebm.files import whole


def finish(out: Path, parts: Path, plan: Plan, names: list[str]) -> Manifest:
    """Writes the index, part after part, and tells what the manifest is to say.

    Args:
        out: folder of the shards.
        parts: folder of the parts of the index, one for each shard.
        plan: of the shards.
        names: of the shards' files.

    Raises:
        UserError: no whole file at all, no room, or a shard that has gone.
    """
    broken: dict[str, str] = {}
    labels: set[str] = set()
    shards = []
    own_groups = False
    for name, part in zip(names, _parts(parts, len(names)), strict=True):
        broken.update(json.loads(str(one)) for one in part["broken"])
        own_groups |= not np.array_equal(part["names"], part["groups"])
        size = int(part["size"])
        if not (out / name).is_file() or (out / name).stat().st_size != size:
            raise UserError(f"{out / name} was changed: remove {out}, and run the same command again")
        shards.append(Stored(name, size, str(part["sha256"])))
    for part in _parts(parts, len(names)):
        kept = _whole_files(part, broken)
        labels |= set(part["labels"][kept].tolist())
    classes = sorted(labels - {""})
    tables = [ITEMS, NAMES]
    tables += [GROUPS] if own_groups else []
    tables += [CLIPS, TIMES] if plan.kind == "clips" else []
    counts = dict.fromkeys((*SPLITS, "any"), 0)
    items = names_end = groups_end = times_end = 0
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(stack.enter_context(whole(out / name)).open("wb")) for name in tables
        }
        for part in _parts(parts, len(names)):
            kept = _whole_files(part, broken)
            records, clips = part["items"], part["clips"][kept]
            bytes_of = {
                NAMES: _rows(part["names"], records["name_end"], kept),
                GROUPS: _rows(part["groups"], records["group_end"], kept),
                TIMES: _rows(part["times"], part["clips"]["times_end"], kept),
            }
            records = records[kept]
            records["name_end"] = names_end + np.cumsum(records["name_end"])
            records["group_end"] = groups_end + np.cumsum(records["group_end"]) if own_groups else 0
            clips["times_end"] = times_end + np.cumsum(clips["times_end"])
            number = {name: place for place, name in enumerate(classes)}
            records["label"] = [number.get(name, -1) for name in part["labels"][kept].tolist()]
            names_end += len(bytes_of[NAMES])
            groups_end += len(bytes_of[GROUPS])
            times_end += len(bytes_of[TIMES])
            content = {**bytes_of, ITEMS: records.tobytes(), CLIPS: clips.tobytes()}
            for name, file in files.items():
                file.write(content[name])
            items += len(records)
            for name, split in zip((*SPLITS, "any"), (0, 1, 2, -1), strict=True):
                counts[name] += int((records["split"] == split).sum())
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    if not items:
        reason = next(iter(broken.values()), "nothing is left")
        raise UserError(f"no whole file in {plan.source} ({reason}): check the files")
    stored = [Stored(name, (out / name).stat().st_size, digest(out / name)) for name in tables]
    reasons = list(broken.values())
    return Manifest(plan.kind, items, counts, classes, shards, stored, reasons, plan.digest)


def _parts(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        with np.load(folder / f"{number:06}.npz", allow_pickle=False) as part:
            yield dict(part)


def _whole_files(part: dict[str, Any], broken: dict[str, str]) -> Any:
    """Which items stay: of a text that was cut, none if one of its parts is broken."""
    ends = np.cumsum(part["items"]["name_end"].astype(np.int64))
    if not broken or not len(ends):
        return np.ones(len(ends), bool)
    names = np.split(part["names"], ends[:-1])
    return np.array([os.fsdecode(name.tobytes()) not in broken for name in names])


def _rows(joined: Any, lengths: Any, kept: Any) -> bytes:
    """The strings of the rows that stay, of all that are joined."""
    stays = np.repeat(kept, lengths.astype(np.int64))
    return bytes(joined[stays].tobytes())
