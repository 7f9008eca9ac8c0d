"""Damaged shards, and shards of damaged files."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.bases import SHARDED
from fuzz.mutations import changed, damaged
from fuzz.outcomes import Place, WrongError, run
from sharded_folders import equal, sign

from ssl_ebm.data import ImageFolder, Text, VideoFolder
from ssl_ebm.data.shards.manifest import FILE, _from_json, read_manifest


def shards(place: Place, rng: random.Random) -> None:
    """What can be read of shards with a damaged file is what was packed."""
    kind = rng.choice(SHARDED)
    folder = _copy(place, kind)
    path = rng.choice([one for one in sorted(folder.iterdir()) if one.name != "SHA256SUMS"])
    path.write_bytes(damaged(path.read_bytes(), rng)[0])
    in_memory = rng.random() < 0.5
    found = _items(kind, folder, in_memory, place.here)
    if not equal(found, _items(kind, place.bases / "shards" / kind, in_memory, place.here)):
        raise WrongError(f"other {kind} than those that were packed, after damage of {path.name}")


def shards_of_a_stranger(place: Place, rng: random.Random) -> None:
    """Index or manifest are damaged, and the checksums are those of the damage."""
    kind = rng.choice(SHARDED)
    folder = _copy(place, kind)
    if rng.random() < 0.3:
        _resigned(folder / FILE, rng)
    else:
        path = rng.choice(sorted(folder.glob("*.bin")))
        path.write_bytes(damaged(path.read_bytes(), rng)[0])
        sign(folder)
    _items(kind, folder, rng.random() < 0.5, place.here)


def packed(place: Place, rng: random.Random) -> None:
    """`shard` of a folder with a damaged file: its items are those of the folder itself."""
    kind = rng.choice(SHARDED)
    folder, out = place.here / kind, place.here / "out"
    shutil.copytree(place.bases / "packed" / kind, folder)
    path = rng.choice(sorted(one for one in folder.rglob("*") if one.is_file()))
    path.write_bytes(damaged(path.read_bytes(), rng)[0])
    run("shard", str(folder), str(out), "--kind", kind, "--on_broken", rng.choice(("skip", "stop")))
    one, other = (_items(kind, each, True, place.here) for each in (folder, out))
    if not equal(one, other) and not read_manifest(out).broken:  # which the shares of the splits count
        raise WrongError(f"the shards hold other {kind} than the folder")
    if len(one) != len(other):
        raise WrongError(f"the shards hold {len(other)} {kind} and the folder {len(one)}")


def _copy(place: Place, kind: str) -> Path:
    folder = place.here / kind
    shutil.copytree(place.bases / "shards" / kind, folder)
    return folder


def _items(kind: str, folder: Path, in_memory: bool, here: Path) -> list[Any]:
    """All items of the three splits, as training reads them."""
    make: dict[str, Callable[[], Any]] = {
        "images": lambda: ImageFolder(str(folder), size=16, in_memory=in_memory),
        "clips": lambda: VideoFolder(
            str(folder), size=16, cache=in_memory, context_frames=2, future_frames=2, val_fraction=0.2,
            test_fraction=0.2,
        ),
        "texts": lambda: Text(
            str(folder), vocabulary=60, length=8, val_share=0.3, test_share=0.3, cache=str(here / "cache")
        ),
    }  # fmt: skip
    data = make[kind]()
    data.setup()
    datasets = [getattr(data, f"{split}_dataset") for split in ("train", "val", "test")]
    return [dataset[index] for dataset in datasets for index in range(min(len(dataset), 32))]


def _resigned(path: Path, rng: random.Random) -> None:
    """Values of a manifest are changed, and its fingerprint with them where it still is a manifest."""
    content = changed(json.loads(path.read_text()), rng)
    with contextlib.suppress(AttributeError, LookupError, OverflowError, TypeError, ValueError):
        content["fingerprint"] = _from_json(content).fingerprint
    path.write_bytes(json.dumps(content, default=str, skipkeys=True).encode("utf-8", "replace"))
