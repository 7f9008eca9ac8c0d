"""Shards as files: what other tools read of them, and what a killed or failed command leaves."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from sharded_folders import pack, write_clips, write_pictures

from ssl_ebm.cli import main
from ssl_ebm.data.shards import writing
from ssl_ebm.data.shards.folder import open_shards
from ssl_ebm.data.shards.intake import Content, take_in
from ssl_ebm.data.shards.manifest import read_manifest
from ssl_ebm.data.shards.plan import make_plan
from ssl_ebm.data.shards.tape import Tape
from ssl_ebm.data.shards.writing import Progress
from ssl_ebm.errors import UserError
from ssl_ebm.running.lock import only_run_in


def content(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_tar_gives_the_folder_back(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    odd = folder / "class0" / f"{'long ' * 40}ü .png"  # a name that a plain header does not hold
    odd.write_bytes((folder / "class0" / "000.png").read_bytes())
    pack(folder, tmp_path / "shards")
    for shard in (tmp_path / "shards").glob("*.tar"):
        with tarfile.open(shard) as archive:
            archive.extractall(tmp_path / "back", filter="data")
    assert content(tmp_path / "back") == content(folder)


def test_webdataset_reads_them(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    pack(folder, tmp_path / "shards")
    urls = sorted(map(str, (tmp_path / "shards").glob("*.tar")))
    found = webdataset.WebDataset(urls, shardshuffle=False)
    read = [(f"{one['__key__']}.png", one["png"]) for one in found]
    assert read == sorted(content(folder).items())


def test_sha256sum_checks_them(tmp_path: Path) -> None:
    pack(write_pictures(tmp_path / "pictures"), tmp_path / "shards")
    subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "shards", check=True, capture_output=True
    )


def test_shards_have_the_size_that_was_set(tmp_path: Path) -> None:
    """At most that, and the two blocks of zeros that end a tar file, in whole records of 10,240 bytes."""
    pack(write_pictures(tmp_path / "pictures", 40), tmp_path / "shards", most=20_000)
    sizes = [one.stat().st_size for one in sorted((tmp_path / "shards").glob("*.tar"))]
    assert max(sizes) <= math.ceil((20_000 + 1024) / 10_240) * 10_240
    assert min(sizes[:-1]) > 10_000


def test_the_same_files_make_the_same_shards(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips")
    one = pack(folder, tmp_path / "one", kind="clips", threads=1)
    two = pack(folder, tmp_path / "two", kind="clips", threads=4)
    assert one == two
    assert content(tmp_path / "one") == content(tmp_path / "two")
    other = pack(folder, tmp_path / "three", kind="clips", most=50_000)
    assert other.fingerprint != one.fingerprint


def in_a_child(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """Runs a function in a process that can be killed."""
    child = get_context("fork").Process(target=work, args=arguments)
    child.start()
    return child


def pack_slowly(source: Path, out: Path) -> None:
    take = writing.take_in

    def slowly(*arguments: Any) -> Content:
        time.sleep(0.02)
        return take(*arguments)

    writing.take_in = slowly
    pack(source, out, threads=1)


def test_a_killed_command_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 60)
    pack(folder, tmp_path / "unbroken")
    out = tmp_path / "killed"
    for wanted in (2, 5, 9):
        running = in_a_child(pack_slowly, folder, out)
        while len(list(out.glob(".unfinished/??????.npz"))) < wanted and running.is_alive():
            time.sleep(0.005)
        running.kill()
        running.join()
        assert running.exitcode == -signal.SIGKILL
        assert not (out / "shards.json").exists()
        for shard in out.glob("shard-[0-9]*.tar"):
            if ".partial" not in shard.name:  # every shard that is there is whole
                assert shard.read_bytes() == (tmp_path / "unbroken" / shard.name).read_bytes()
    kept = {one: one.stat().st_mtime_ns for one in out.glob("shard-00000[0-8].tar")}
    assert len(kept) == 9
    seen: list[Progress] = []
    pack(folder, out, report=lambda at: seen.append(replace(at)))
    assert {one: one.stat().st_mtime_ns for one in kept} == kept  # not written again
    assert seen[8].written == 0 < seen[8].files < seen[-1].files == 60
    assert seen[-1].written == seen[-1].bytes - seen[8].bytes
    assert content(out) == content(tmp_path / "unbroken")


def test_a_full_disk_leaves_whole_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "pictures", 30)
    add, added = Tape.add, []

    def full(tape: Tape, *arguments: object) -> None:
        added.append(tape.number)
        if len(added) == 15:
            raise OSError(28, "No space left on device")
        add(tape, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Tape, "add", full)
    with pytest.raises(UserError, match=r"cannot write .*\.tar \(No space left on device\): make room"):
        pack(folder, tmp_path / "shards")
    assert not list((tmp_path / "shards").glob("*partial*"))
    monkeypatch.undo()
    assert pack(folder, tmp_path / "shards") == pack(folder, tmp_path / "others")


def test_broken_files_are_named_and_left_out_or_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pictures(tmp_path / "pictures")
    (folder / "class0" / "000.png").write_bytes(b"no picture")
    half = folder / "class2" / "005.png"
    half.write_bytes(half.read_bytes()[:-200])
    assert main(["shard", str(folder), str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "left out: class0/000.png cannot be read (it is no picture)" in shown
    assert "left out: class2/005.png cannot be read" in shown
    assert "22 images in 1 shards" in shown
    assert "2 broken file(s) left out" in shown
    assert len(read_manifest(tmp_path / "out").broken) == 2
    assert main(["shard", str(folder), str(tmp_path / "none"), "--on_broken", "stop"]) == 2
    error = capsys.readouterr().err
    assert "class0/000.png cannot be read (it is no picture)" in error
    assert error.count("\n") == 1


def test_broken_text_and_clips(tmp_path: Path) -> None:
    """Of a text that was cut into parts none stays, wherever it is broken."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("good\n" * 1000)
    (tmp_path / "texts" / "b.txt").write_bytes(b"bad\n" * 1500 + b"\xff\xfe\n" + b"bad\n" * 1500)
    manifest = pack(tmp_path / "texts", tmp_path / "shards", most=4000)
    assert len(manifest.broken) == 1
    assert manifest.broken[0].startswith("b.txt is not UTF-8, near byte 6000")
    assert manifest.items == 2
    folder = write_clips(tmp_path / "clips")
    (folder / "class0" / "0.mkv").write_bytes(b"no clip")
    np.savez(folder / "class1" / "empty.npz", other=np.zeros(3))
    found = pack(folder, tmp_path / "packed", kind="clips")
    assert sorted(one.split(" cannot")[0] for one in found.broken) == ["class0/0.mkv", "class1/empty.npz"]
    assert found.items == 14
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"no whole file in .*none \(a.png cannot be read"):
        pack(tmp_path / "none", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "out"], "no folder nowhere"),
        (["pictures", "pictures"], "choose another one to write to"),
        (["pictures", "made", "--shard_mb", "1"], "made holds shards of other files or settings"),
        (["made", "out"], "made holds shards already"),
        (["mixed", "out"], "mixed may hold images or texts: say which, with --kind"),
        (["pictures", "out", "--shard_mb", "0"], "shard_mb is 0"),
        (["empty", "out"], "no pictures, clips or text in empty"),
        (["pictures", "pictures/class0/000.png"], "cannot write to pictures/class0/000.png"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("pictures"), 6)
    write_pictures(Path("mixed"), 6)
    Path("mixed/a.txt").write_text("text")
    Path("empty").mkdir()
    pack(Path("pictures"), Path("made"))
    assert main(["shard", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def hold(folder: Path, until: Path) -> None:
    with only_run_in(folder):
        while not until.exists():
            time.sleep(0.005)


def test_two_commands_do_not_write_to_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pictures(tmp_path / "pictures", 6)
    first = in_a_child(hold, tmp_path / "out", tmp_path / "end")
    while not (tmp_path / "out" / ".lock").is_file() or not (tmp_path / "out" / ".lock").read_text():
        time.sleep(0.005)
    assert main(["shard", str(folder), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"is in use by another run (process {first.pid}" in error
    assert error.count("\n") == 1
    (tmp_path / "end").touch()
    first.join()
    assert main(["shard", str(folder), str(tmp_path / "out")]) == 0


def test_a_shard_without_its_fellow_is_written_again(tmp_path: Path) -> None:
    """As a power failure may leave them; and what has been finished is not taken for whole when it is not."""
    folder = write_pictures(tmp_path / "pictures", 30)
    manifest = pack(folder, tmp_path / "unbroken")
    out = tmp_path / "out"
    running = in_a_child(pack_slowly, folder, out)
    while len(list(out.glob(".unfinished/??????.npz"))) < 3:
        time.sleep(0.005)
    running.kill()
    running.join()
    (out / "shard-000000.tar").unlink()
    (out / "shard-000001.tar").write_bytes(b"cut off")
    (out / ".unfinished" / "000002.npz").write_bytes(b"cut off")
    assert pack(folder, out) == manifest
    assert content(out) == content(tmp_path / "unbroken")
    (out / "shard-000001.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000001.tar is missing .* remove .*out first"):
        pack(folder, out)


def test_stopping_at_broken_files_minds_those_that_were_left_out_before(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 30)
    (folder / "class0" / "000.png").write_bytes(b"no picture")
    running = in_a_child(pack_slowly, folder, tmp_path / "out")
    while not list((tmp_path / "out").glob(".unfinished/??????.npz")):
        time.sleep(0.005)
    running.kill()
    running.join()
    with pytest.raises(UserError, match=r"class0/000.png cannot be read .* remove the file"):
        pack(folder, tmp_path / "out", on_broken="stop")


def _grow(folder: Path) -> None:
    clip = folder / "class0" / "0.mkv"
    clip.write_bytes(clip.read_bytes() + b"more")


@pytest.mark.parametrize(
    "change",
    [
        _grow,
        lambda folder: (folder / "class0" / "0.mkv").unlink(),
        lambda folder: (folder / "class0" / "0.mkv").rename(folder / "class0" / "later.mkv"),
        lambda folder: shutil.copy(folder / "class0" / "0.mkv", folder / "class0" / "0-again.mkv"),
        lambda folder: shutil.copy(folder / "class0" / "0.mkv", folder / "last.mkv"),
        lambda folder: shutil.copytree(folder / "class0", folder / "zebra"),
        lambda folder: os.utime(sorted(folder.glob("*/*"))[-1], (1, 1)),
        lambda folder: (folder / "clips.csv").write_text("path,label\nclass0/0.mkv,zebra\n"),
        lambda folder: (folder / "clips.csv").write_text("path,group\nclass0/0.mkv,zebra\n"),
    ],
    ids=[
        "longer",
        "gone",
        "renamed",
        "one more",
        "without a class",
        "another class",
        "touched",
        "label",
        "group",
    ],
)
@pytest.mark.parametrize("most", [10_000, 10**9])  # bytes of a shard: several, and one
def test_a_folder_that_changes_while_it_is_packed_is_named(
    change: Callable[[Path], Any], most: int, tmp_path: Path
) -> None:
    folder = write_clips(tmp_path / "clips")
    plan = make_plan(folder, "clips", most)
    change(folder)
    with pytest.raises(UserError, match=r"clips changed after it was listed: remove .*out, and run"):
        writing.write_shards(plan, tmp_path / "out")
    assert not (tmp_path / "out" / "shards.json").exists()


def test_a_file_that_changes_just_before_it_is_read_is_named(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips")
    piece = next(next(make_plan(folder, "clips", 10_000).shards("out")))
    _grow(folder)
    with pytest.raises(UserError, match=r"0.mkv changed after it was listed"):
        take_in(piece, "clips")


def test_memory_of_a_plan_does_not_grow_with_the_files(tmp_path: Path) -> None:
    for classes in (8, 80):
        for number in range(classes):
            folder = tmp_path / str(classes) / f"class{number}"
            folder.mkdir(parents=True)
            for name in range(50):
                (folder / f"{name}.png").touch()

    def peak(classes: int) -> int:
        # Python makes its table of strings anew every now and then, never in each of three plans.
        return min(traced(classes) for _ in range(3))

    def traced(classes: int) -> int:
        tracemalloc.start()
        try:
            plan = make_plan(tmp_path / str(classes), "images", 10**9)
            assert sum(1 for pieces in plan.shards("out") for _ in pieces) == 50 * classes
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(80) < 2 * peak(8)  # the names of the classes


def test_a_damaged_file_of_arrays_is_named_and_left_out(tmp_path: Path) -> None:
    """Also where its bytes can be decompressed no more."""
    folder = tmp_path / "clips"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        video = noise.integers(0, 9, (2, 6, 16, 16), dtype=np.uint8)
        np.savez_compressed(folder / f"{name}.npz", video=video)
    whole = bytearray((folder / "b.npz").read_bytes())
    whole[60:90] = bytes(30)
    (folder / "b.npz").write_bytes(whole)
    made = pack(folder, tmp_path / "out", kind="clips")
    shards = open_shards(tmp_path / "out", "clips")
    assert shards is not None
    assert list(shards.names) == ["a.npz[0]", "a.npz[1]", "c.npz[0]", "c.npz[1]"]
    assert any("b.npz" in one for one in made.broken)
