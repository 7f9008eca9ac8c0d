"""Folders of files and shards of them, for tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encoded_clips import shades, write_clip
from PIL import Image
from torch import Tensor

from ssl_ebm.data.shards.manifest import Manifest, Stored, digest, read_manifest
from ssl_ebm.data.shards.plan import make_plan
from ssl_ebm.data.shards.writing import write_shards


def pack(source: Path, out: Path, most: int = 10_000, **settings: Any) -> Manifest:
    """Shards of a few files each."""
    return write_shards(make_plan(source, settings.pop("kind", None), most), out, **settings)


def sign(folder: Path) -> None:
    """Gives changed files the sizes, checksums and fingerprint with which they are read: a stranger's."""
    manifest = read_manifest(folder)
    tables = [_signed(folder, one) for one in manifest.tables]
    shards = [_signed(folder, one) for one in manifest.shards]
    replace(manifest, tables=tables, shards=shards).write(folder)


def _signed(folder: Path, one: Stored) -> Stored:
    path = folder / one.name
    return replace(one, size=path.stat().st_size, sha256=digest(path))


def write_pictures(folder: Path, count: int = 24, classes: int = 3, suffix: str = ".png") -> Path:
    """Noise of several sizes and colours, in class folders; the first pixel's red tells the number."""
    noise = np.random.default_rng(0)
    for number in range(count):
        pixels = noise.integers(0, 255, (20 + number % 5, 24, 3), dtype=np.uint8)
        place = folder / f"class{number % classes}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:03}{suffix}")
    return folder


def write_clips(folder: Path, classes: int = 2) -> Path:
    """Clips of all kinds: of several codecs, with and without time stamps, and arrays with groups."""
    for number, suffix in enumerate(
        (".mkv", ".avi", ".mp4", ".gif", ".webm", ".mov", ".mkv", ".mp4", ".gif")
    ):
        place = folder / f"class{number % classes}"
        video = shades(12 + number)
        video[..., 0] += np.uint8(number)
        write_clip(place / f"{number}{suffix}", video, rate=10 if number % 2 else 25)
    arrays = np.random.default_rng(0).integers(0, 255, (6, 14, 24, 32, 3), dtype=np.uint8)
    np.savez_compressed(folder / "class1" / "some.npz", video=arrays, group=np.array(list("aabbcc")))
    return folder


def write_documents(folder: Path, kind: str) -> Path:
    """Sentences with line breaks, quotes and characters of several bytes."""
    noise = np.random.default_rng(0)
    words = ["".join(noise.choice(list("abcdeäöü€"), 4)) for _ in range(40)]
    texts = [" ".join(noise.choice(words, 12)) for _ in range(80)]
    folder.mkdir()
    if kind == "txt":
        (folder / "a.txt").write_text("\n\n".join(texts[:50]), encoding="utf-8")
        (folder / "b.txt").write_text("\n\n".join(texts[50:]), encoding="utf-8")
    elif kind == "csv":
        rows = [
            f'"{text[:20]}\n{text[20:]}, ""so""",{"good" if i % 2 else "bad"}' for i, text in enumerate(texts)
        ]
        (folder / "a.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    else:
        for split, some in (("train", texts[:50]), ("valid", texts[50:65]), ("test", texts[65:])):
            lines = [json.dumps({"text": one, "label": i % 3}) for i, one in enumerate(some)]
            (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


def equal(one: Any, other: Any) -> bool:
    """Whether two batches, or two lists of them, hold the same bits."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return len(one) == len(other) and all(map(equal, one, other))


def all_batches(data: Any, epochs: int = 2) -> list[Any]:
    """Training batches of some epochs, then those of validation and test."""
    data.setup()
    loader = data.train_dataloader()
    trained = [batch for _ in range(epochs) for batch in loader]
    return [*trained, *data.val_dataloader(), *data.test_dataloader()]
