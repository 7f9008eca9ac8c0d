"""Shards that are missing, cut off, changed, unfinished, or from a stranger: one line, exit status 2."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharded_folders import pack, sign, write_clips, write_documents, write_pictures

from ssl_ebm.cli import main
from ssl_ebm.data import ImageFolder, Text, VideoFolder
from ssl_ebm.data.decoding import FrameFormat
from ssl_ebm.data.shards.folder import ShardFolder
from ssl_ebm.data.shards.manifest import read_manifest
from ssl_ebm.data.shards.tables import CLIP, ITEM
from ssl_ebm.data.stored_clips import open_stored
from ssl_ebm.errors import UserError


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Seven shards of 24 pictures."""
    pack(write_pictures(tmp_path / "pictures"), tmp_path / "shards")
    return tmp_path / "shards"


def change(path: Path, place: int) -> None:
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def change_all(folder: Path) -> None:
    """A bit of the first file of each shard, which begins behind a header of 512 bytes."""
    for shard in folder.glob("*.tar"):
        change(shard, 700)


def edit(folder: Path, **values: Any) -> None:
    """Values of the manifest."""
    content = json.loads((folder / "shards.json").read_text())
    (folder / "shards.json").write_text(json.dumps(content | values))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10_240)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda at: (at / "shard-000002.tar").unlink(), r"shard-000002.tar is missing"),
    "cut off": (lambda at: cut(at / "shard-000001.tar"), r"shard-000001.tar has \d+ of its \d+ bytes"),
    "a bit": (lambda at: change_all(at), r"class\d/\d+.png in .*shard-\d+.tar differs from its checksum"),
    "index": (lambda at: change(at / "items.bin", 100), r"items.bin was changed"),
    "names": (lambda at: (at / "names.bin").unlink(), r"names.bin is missing"),
    "version": (lambda at: edit(at, version=2), r"is of version 2, and this release reads version 1"),
    "manifest": (lambda at: edit(at, classes=["a", "b", "c"]), r"shards.json was changed"),
    "no JSON": (lambda at: (at / "shards.json").write_text("{"), r"shards.json is damaged"),
    "no version": (lambda at: (at / "shards.json").write_text("{}"), r"shards.json is damaged"),
    "a list": (lambda at: (at / "shards.json").write_text("[]"), r"shards.json is damaged"),
    "unfinished": (
        lambda at: ((at / "shards.json").unlink(), (at / ".unfinished").mkdir()),
        r"are unfinished: run the same command again",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_shards_are_named(
    shards: Path, repository: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    """By the command that trains, with pictures in memory and read by workers."""
    damage, says = FAULTS[fault]
    damage(shards)
    config = repository / "configs" / "inpainting" / "pictures_mae.yaml"
    for more in (["--data.in_memory", "true"], ["--data.in_memory", "false", "--data.workers", "1"]):
        words = ["fit", "--config", str(config), "--data.folder", str(shards), "--data.batch_size", "8"]
        words += ["--run_dir", str(shards.parent / "run"), "--trainer.max_steps", "8"]
        assert main([*words, *more]) == 2
        error = capsys.readouterr().err
        [line] = [one for one in error.splitlines() if one.startswith("ssl-ebm: error:")]
        assert re.search(says, line), line
        assert "Traceback" not in error


def test_a_shard_that_goes_away_while_training_is_named(shards: Path) -> None:
    data = ImageFolder(str(shards), size=8, in_memory=False)
    data.setup("fit")
    for one in shards.glob("*.tar"):
        one.unlink()
    with pytest.raises(UserError, match=r"shard \d of .* cannot be read .*must stay where it is"):
        data.train_dataset[0]


@pytest.mark.parametrize("kind", ["clips", "texts"])
def test_a_changed_bit_of_clips_and_text(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "files"
    if kind == "clips":
        write_clips(folder)
    else:
        write_documents(folder, "txt")
    pack(folder, tmp_path / "shards", kind=kind)
    change_all(tmp_path / "shards")

    def read() -> None:
        if kind == "texts":
            Text(str(tmp_path / "shards"), vocabulary=60, cache=str(tmp_path / "cache")).setup("fit")
            return
        data = VideoFolder(str(tmp_path / "shards"), cache=False, context_frames=2)
        data.setup("fit")
        for index in range(len(data.train_dataset)):
            data.train_dataset[index]

    with pytest.raises(UserError, match="differs from its checksum"):
        read()


def test_changed_times_of_clips(tmp_path: Path) -> None:
    pack(write_clips(tmp_path / "clips"), tmp_path / "shards", kind="clips")
    change(tmp_path / "shards" / "times.bin", 4)
    data = VideoFolder(str(tmp_path / "shards"), cache=True)
    with pytest.raises(UserError, match=r"times.bin was changed"):
        data.setup("fit")


def test_shards_of_another_kind(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds shards of images, not of clips"):
        VideoFolder(str(shards)).setup()
    with pytest.raises(UserError, match="holds shards of images, not of texts"):
        Text(str(shards), cache=str(tmp_path)).prepare_data()


class Harm:
    """Runs code where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def array_of_objects(harm: Harm) -> bytes:
    """In NumPy's format, as a pickle."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([harm], object), allow_pickle=True)
    return file.getvalue()


def replace_item(folder: Path, row: int, content: bytes) -> None:
    """Another content of an item, with the checksums and the fingerprint that it needs to be read."""
    manifest = read_manifest(folder)
    items = np.fromfile(folder / "items.bin", ITEM)
    with (folder / manifest.shards[items["shard"][row]].name).open("r+b") as shard:
        shard.seek(int(items["offset"][row]))
        shard.write(content)
    items["size"][row], items["crc"][row] = len(content), zlib.crc32(content)
    items.tofile(folder / "items.bin")
    sign(folder)


@pytest.mark.parametrize("column", ["shard", "label", "split", "size", "offset"])
def test_numbers_of_an_index_that_mean_nothing(shards: Path, column: str) -> None:
    """An index that has its checksums and yet points to what is not there."""
    items = np.fromfile(shards / "items.bin", ITEM)
    items[column] = 100 if items[column].itemsize == 1 else 2**30
    items.tofile(shards / "items.bin")
    sign(shards)

    def read(in_memory: bool) -> None:
        ImageFolder(str(shards), size=8, in_memory=in_memory).train_dataloader().dataset[0]

    for in_memory in (True, False):
        with pytest.raises(UserError, match=r"does not hold the 24 items|differs from its checksum"):
            read(in_memory)


@pytest.mark.parametrize("table", ["items.bin", "clips.bin"])
def test_an_index_that_ends_within_a_record(tmp_path: Path, table: str) -> None:
    """And yet has its checksums."""
    pack(write_clips(tmp_path / "clips"), tmp_path / "shards", kind="clips")
    path = tmp_path / "shards" / table
    os.truncate(path, path.stat().st_size - 3)
    sign(tmp_path / "shards")
    with pytest.raises(UserError, match=r"does not hold the 15 items"):
        VideoFolder(str(tmp_path / "shards")).setup()


@pytest.mark.parametrize("column", ["frames", "stamped"])
def test_clips_of_an_index_that_have_no_times(tmp_path: Path, column: str) -> None:
    """Numbers that do not go together, in an index that has its checksums."""
    pack(write_clips(tmp_path / "clips"), tmp_path / "shards", kind="clips")
    path = tmp_path / "shards" / "clips.bin"
    clips = np.fromfile(path, CLIP)
    clips[column] = ~clips[column] if column == "stamped" else clips[column] + 1000
    clips.tofile(path)
    sign(tmp_path / "shards")
    with pytest.raises(UserError, match=r"clips.bin gives a clip \d+ frames and other times"):
        VideoFolder(str(tmp_path / "shards"), cache=True).setup()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None, "many"])
def test_numbers_of_a_manifest_that_are_none(shards: Path, value: Any) -> None:
    edit(shards, items=value)
    with pytest.raises(UserError, match=r"shards.json (is damaged|was changed)"):
        ImageFolder(str(shards)).setup()


def test_shards_of_a_stranger_run_no_code(tmp_path: Path) -> None:
    """Whatever is pickled into items, index or manifest is not taken for a pickle."""
    mark = tmp_path / "harm"
    harm = pickle.dumps(Harm(mark))
    folder = tmp_path / "clips"
    write_clips(folder)
    np.savez(folder / "objects.npz", video=np.array([Harm(mark)], object))
    pack(folder, tmp_path / "shards", kind="clips")
    assert not mark.exists()  # the command itself unpickles nothing
    manifest = read_manifest(tmp_path / "shards")
    shards = ShardFolder(tmp_path / "shards", manifest)
    array = next(row for row in range(len(shards)) if shards.timeline(row) is None)
    for content in (harm, array_of_objects(Harm(mark))):
        replace_item(tmp_path / "shards", array, content)
        data = VideoFolder(str(tmp_path / "shards"), cache=True, context_frames=2)
        with pytest.raises(UserError, match=r"some.npz\[0\] in .* is no array of frames"):
            data.setup()
    (tmp_path / "shards" / "shards.json").write_bytes(harm)
    with pytest.raises(UserError, match="is damaged"):
        VideoFolder(str(tmp_path / "shards")).setup()
    assert not mark.exists()
    pickle.loads(harm)
    assert mark.exists()  # it would have


@pytest.mark.parametrize("shape", [(2**40, 8, 8), (4, 2**30, 2**30, 3), (2**62, 0, 8), (4, 8)])
def test_an_array_that_announces_more_than_it_holds(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """And yet has its checksums: it is refused before memory is taken."""
    folder = tmp_path / "clips"
    folder.mkdir()
    np.savez(folder / "some.npz", video=np.full((6, 4, 8, 8), 99, np.uint8))
    pack(folder, tmp_path / "shards", kind="clips")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    replace_item(tmp_path / "shards", 0, header.getvalue() + b"\1" * 256)
    clip = open_stored(
        ShardFolder(tmp_path / "shards", read_manifest(tmp_path / "shards")), 0, FrameFormat((8, 8)), None
    )
    with pytest.raises(UserError, match=r"some.npz\[0\] in .* is no array of frames .*uint8 of shape"):
        clip.read(0, 2)
