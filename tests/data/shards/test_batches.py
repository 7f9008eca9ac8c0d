"""Batches of shards are those of the folder that they were made of, to the bit."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sharded_folders import all_batches, equal, pack, write_clips, write_documents, write_pictures

from ssl_ebm.data import ImageFolder, LabelledDocuments, LabelledShare, Text, VideoFolder
from ssl_ebm.data.shards.folder import open_shards
from ssl_ebm.data.shards.manifest import read_manifest

PICTURES: dict[str, Any] = {"size": 16, "batch_size": 4, "seed": 3}
CLIPS: dict[str, Any] = {
    "size": (16, 24),
    "context_frames": 3,
    "future_frames": 2,
    "batch_size": 3,
    "seed": 1,
}
TEXT: dict[str, Any] = {"vocabulary": 60, "length": 16, "batch_size": 4, "val_share": 0.2, "test_share": 0.2}


def same(make: Callable[[Path], Any], folder: Path, shards: Path) -> None:
    """Batches, classes and sizes of both."""
    expected, found = make(folder), make(shards)
    theirs, ours = all_batches(expected), all_batches(found)
    assert equal(ours, theirs)
    assert not equal(ours, theirs[::-1])  # the comparison sees a difference
    assert getattr(found, "classes", None) == getattr(expected, "classes", None)
    described = found.describe()
    assert described["items"] == expected.describe()["items"]
    assert described.get("data", described)["shards"] == read_manifest(shards).fingerprint


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("splits", ["drawn", "folders"])
def test_pictures(tmp_path: Path, in_memory: bool, splits: str) -> None:
    folder = tmp_path / "pictures"
    if splits == "folders":
        for split, count in (("train", 15), ("val", 6), ("test", 7)):
            write_pictures(folder / split, count)
    else:
        write_pictures(folder)
    manifest = pack(folder, tmp_path / "shards", most=4096)
    assert len(manifest.shards) > 3
    for settings in ({}, {"crop": 0.4, "flip": True}, {"grayscale": True, "workers": 2}):
        settings = PICTURES | settings | {"in_memory": in_memory}
        same(lambda where, given=settings: ImageFolder(str(where), **given), folder, tmp_path / "shards")


@pytest.mark.parametrize("in_memory", [True, False])
def test_groups_and_labels_of_notes(tmp_path: Path, in_memory: bool) -> None:
    folder = write_pictures(tmp_path / "pictures", classes=0)
    rows = [f"{number:03}.png,patient{number // 3},{'ab'[number % 2]}" for number in range(24)]
    (folder / "images.csv").write_text("\n".join(["path,group,label", *rows]))
    pack(folder, tmp_path / "shards")
    same(lambda where: ImageFolder(str(where), in_memory=in_memory, **PICTURES), folder, tmp_path / "shards")


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("frame_rate", [None, 7.0])
def test_clips(tmp_path: Path, cache: bool, frame_rate: float | None) -> None:
    folder = write_clips(tmp_path / "clips")
    manifest = pack(folder, tmp_path / "shards", kind="clips")
    assert manifest.items == 15
    for settings in ({}, {"windows_per_clip": 2, "stride": 2}, {"grayscale": True, "workers": 2}):
        # 4 + 3 frames: at 7 a second some clips are too short
        settings = CLIPS | settings | {"cache": cache, "frame_rate": frame_rate, "eval_future_frames": 4}
        with pytest.warns(UserWarning, match="shorter than a window") if frame_rate else nullcontext():
            same(lambda where, given=settings: VideoFolder(str(where), **given), folder, tmp_path / "shards")


def test_windows_of_many_clips(tmp_path: Path) -> None:
    """Of several lengths, so that windows of a split are found by counts in many blocks of clips."""
    for frames in (4, 6, 9, 17):
        pixels = np.random.default_rng(frames).integers(0, 255, (150, frames, 6, 6), dtype=np.uint8)
        path = tmp_path / "clips" / f"{frames}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, video=pixels)
    pack(tmp_path / "clips", tmp_path / "shards", most=10**6, kind="clips")
    sets = []
    for folder in ("clips", "shards"):
        settings = CLIPS | {"size": 6, "grayscale": True, "cache": False}
        data = VideoFolder(str(tmp_path / folder), **settings)
        with pytest.warns(UserWarning, match="150 clip.s. shorter than a window"):
            data.setup()
        sets.append([data.train_dataset, data.val_dataset, data.test_dataset])
    for listed, stored in zip(*sets, strict=True):
        assert len(stored) == len(listed) > 64
        for index in range(0, 2 * len(stored), 7):
            assert stored.window(index) == listed.window(index)
        assert equal([stored[len(stored) - 1]], [listed[len(stored) - 1]])
        assert (stored.items_of_clips() == listed.items_of_clips()).all()


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl"])
@pytest.mark.parametrize("most", [2000, 10**6])  # files cut into parts, or whole
def test_text(tmp_path: Path, kind: str, most: int) -> None:
    folder = write_documents(tmp_path / "documents", kind)
    manifest = pack(folder, tmp_path / "shards", most=most)
    assert (len(manifest.shards) > 2) == (most == 2000)

    def packed(where: Path) -> Text:
        return Text(str(where), cache=str(tmp_path / f"cache of {where.name}"), **TEXT)

    same(packed, folder, tmp_path / "shards")

    def labelled(where: Path) -> LabelledDocuments:
        data = LabelledDocuments(str(where), batch_size=4, val_share=0.2)
        tokens = packed(where)
        tokens.setup()
        data.use_tokenizer(tokens.tokenizer_json, 16)
        return data

    if kind != "txt":
        same(labelled, folder, tmp_path / "shards")


def test_a_file_of_text(tmp_path: Path) -> None:
    """Its name fixes no split, here or there."""
    folder = write_documents(tmp_path / "documents", "txt")
    file = (folder / "a.txt").rename(folder / "train.txt")
    pack(file, tmp_path / "shards")
    made = tmp_path / "cache"
    same(lambda where: Text(str(where), cache=str(made / where.name), **TEXT), file, tmp_path / "shards")


def test_a_share_of_the_labels(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips")
    pack(folder, tmp_path / "shards", kind="clips")
    same(
        lambda where: LabelledShare(VideoFolder(str(where), cache=False, **CLIPS), 0.5),
        folder,
        tmp_path / "shards",
    )


def test_broken_files_are_as_if_they_had_never_been_there(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    broken = folder / "class1" / "004.png"
    broken.write_bytes(broken.read_bytes()[:300])
    manifest = pack(folder, tmp_path / "shards")
    assert [one.split(" cannot be read")[0] for one in manifest.broken] == ["class1/004.png"]
    broken.unlink()
    for in_memory in (True, False):
        same(
            lambda where, held=in_memory: ImageFolder(str(where), in_memory=held, **PICTURES),
            folder,
            tmp_path / "shards",
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [1, 5, 9])
def test_a_loader_goes_on_in_the_middle_of_an_epoch(tmp_path: Path, workers: int, taken: int) -> None:
    folder = write_pictures(tmp_path / "pictures")
    pack(folder, tmp_path / "shards")

    def data() -> ImageFolder:
        return ImageFolder(str(tmp_path / "shards"), in_memory=False, crop=0.5, workers=workers, **PICTURES)

    expected = all_batches(data(), epochs=6)
    broken_off, resumed = data(), data()
    loader = broken_off.train_dataloader()
    stream = (batch for _ in range(6) for batch in loader)
    first = [next(stream) for _ in range(taken)]
    assert equal(first, expected[:taken])
    resumed.load_state_dict(broken_off.state_dict())
    loader = resumed.train_dataloader()
    found = [batch for _ in range(2) for batch in loader]
    assert equal(found, expected[taken : taken + len(found)])


PROCESS = """
import sys; sys.path.insert(0, sys.argv[2])
import torch
from lightning import LightningModule, Trainer
from ssl_ebm.data import ImageFolder
class Seen(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []
    def training_step(self, batch, batch_idx):
        self.seen += [(int(i), x.sum().item()) for i, x in zip(batch["index"], batch["image"].double())]
        return self.weight ** 2
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
processes = int(sys.argv[3])
model = Seen()
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = Trainer(accelerator="cpu", devices=processes, strategy="ddp" if processes == 2 else "auto",
    max_epochs=2, num_sanity_val_steps=0, **quiet)
data = ImageFolder(sys.argv[4], size=8, in_memory=False, crop=0.5, batch_size=4 // processes,
    workers=processes - 1)
trainer.fit(model, datamodule=data)
torch.save(model.seen, f"{sys.argv[1]}/{processes}-{trainer.global_rank}.pt")
"""


@pytest.mark.slow
def test_two_real_processes_share_the_batches_of_one(tmp_path: Path) -> None:
    """Every item of an epoch once: 16 training pictures of 24, in batches of 4."""
    pack(write_pictures(tmp_path / "pictures", 23), tmp_path / "shards")
    (tmp_path / "run.py").write_text(PROCESS)
    for processes in ("1", "2"):
        words = [tmp_path / "run.py", tmp_path, Path(__file__).parents[2], processes, tmp_path / "shards"]
        subprocess.run(
            [sys.executable, *map(str, words)],
            check=True,
            capture_output=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert sorted(index for index, _ in one[:16]) == list(range(16))
    for step in range(8):
        batch = one[4 * step : 4 * step + 4]
        assert sorted(first[2 * step : 2 * step + 2] + second[2 * step : 2 * step + 2]) == sorted(batch)


def test_a_copy_in_another_process_reads_the_same(tmp_path: Path) -> None:
    """Where workers are spawned, they get a pickled copy of the dataset."""
    folder = write_pictures(tmp_path / "pictures")
    pack(folder, tmp_path / "shards")
    shards = open_shards(tmp_path / "shards", "images")
    assert shards is not None
    first = shards.read(0)
    copy = pickle.loads(pickle.dumps(shards))
    assert len(pickle.dumps(shards)) < 10_000  # not the index
    assert copy.read(0) == first
    assert [copy.read(row) for row in range(len(copy))] == [
        (folder / name).read_bytes() for name in copy.names
    ]
    with Image.open(shards.file(5).open()) as picture:
        assert picture.size[0] == 24
