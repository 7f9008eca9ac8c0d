"""Fingerprints of data: other files have another one, copies the same."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoded_clips import write_clip
from image_files import write_idx_folder
from PIL import Image

from ssl_ebm.data import (
    FontDigits,
    IdxImages,
    ImageFolder,
    LabelledDocuments,
    Text,
    TorchvisionImages,
    TorchvisionVideo,
    VideoFolder,
    fingerprints,
)
from ssl_ebm.data.labelled_share import LabelledShare
from ssl_ebm.data.loading import StreamData

NAMES = ["b/2.png", "a/10.png", "a/9.png", "c.png"]


def write(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


def test_it_is_sha_256_of_sizes_names_and_contents(tmp_path: Path) -> None:
    write(tmp_path, NAMES)
    digest = hashlib.sha256()
    ordered = sorted(NAMES, key=lambda name: name.split("/"))
    for name in ordered:
        digest.update(f"{(tmp_path / name).stat().st_size} {name}\0".encode())
    for name in ordered:
        digest.update(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest().encode())
    found = fingerprints.of_folder(tmp_path)
    assert found == {"sha256": digest.hexdigest(), "of": "names, sizes and content of 4 files"}


def test_the_order_and_times_of_writing_do_not_count(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", NAMES), write(tmp_path / "other", NAMES[::-1])
    os.utime(other / NAMES[0], (0, 0))
    write(other, ["notes.md", ".hidden.png"])  # which are no pictures
    assert fingerprints.of_folder(one, [".png"]) == fingerprints.of_folder(other, [".png"])


@pytest.mark.parametrize("limit", ["MOST_FILES", "MOST_BYTES", None])
def test_files_that_are_renamed_added_removed_or_changed_count(
    limit: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of very many files, or very large ones, whose content is not read."""
    if limit is not None:
        monkeypatch.setattr(fingerprints, limit, 1)

        def read(_: Path) -> str:
            raise AssertionError("content is read")

        monkeypatch.setattr(fingerprints, "sha256_of", read)
    folder = write(tmp_path / "data", NAMES)
    seen = [fingerprints.of_folder(folder)]
    assert ("content" in seen[0]["of"]) == (limit is None)
    (folder / "c.png").rename(folder / "d.png")
    seen.append(fingerprints.of_folder(folder))
    write(folder, ["e.png"])
    seen.append(fingerprints.of_folder(folder))
    (folder / "e.png").write_text("longer than it was before")
    seen.append(fingerprints.of_folder(folder))
    (folder / "a/9.png").unlink()
    (folder / "a/9.png").symlink_to("nowhere")
    seen.append(fingerprints.of_folder(folder))
    (folder / "a/9.png").unlink()
    seen.append(fingerprints.of_folder(folder))
    assert len({one["sha256"] for one in seen}) == len(seen)
    (folder / "d.png").write_text("CONTENT of c.png")  # of the same size
    assert (fingerprints.of_folder(folder) == seen[-1]) == (limit is not None)


# --- the sets ---


def pictures(folder: Path) -> None:
    for number, name in enumerate(["one/1.png", "one/2.png", "two/3.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(folder / name)


def clips(folder: Path) -> None:
    for number in range(2):
        write_clip(folder / f"{number}.avi", np.full((4, 16, 16, 3), number, np.uint8), rate=10)


def actions(folder: Path) -> None:
    write_clip(folder / "Run" / "v_Run_g01_c01.avi", np.zeros((4, 16, 16, 3), np.uint8), rate=10)
    for split in ("train", "test"):
        (folder / f"{split}list01.txt").write_text("Run/v_Run_g01_c01.avi 1\n")


def idx(folder: Path) -> None:
    write_idx_folder(folder, {part: np.ones((6, 4, 4), np.uint8) for part in ("train", "t10k")})


def texts(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("\n\n".join(f"{split} {17 * n} text" for n in range(99)))


STL10 = ["class_names.txt", *(f"{part}_{kind}.bin" for part in ("train", "test") for kind in "Xy")]
SETS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], StreamData]]] = {
    "pictures": (pictures, lambda folder: ImageFolder(str(folder))),
    "clips": (clips, lambda folder: VideoFolder(str(folder), context_frames=1, future_frames=1)),
    "actions": (
        actions,
        lambda folder: TorchvisionVideo(
            "UCF101", str(folder), str(folder), context_frames=1, future_frames=1
        ),
    ),
    "MNIST's files": (idx, lambda folder: IdxImages(str(folder))),
    "torchvision's": (
        lambda folder: write(
            folder / "FashionMNIST" / "raw",
            [f"{a}-{b}-ubyte" for a in ("train", "t10k") for b in ("images-idx3", "labels-idx1")],
        ),
        lambda folder: TorchvisionImages("FashionMNIST", str(folder)),
    ),
    "CIFAR10": (
        lambda folder: write(
            folder / "cifar-10-batches-py",
            ["batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))],
        ),
        lambda folder: TorchvisionImages("CIFAR10", str(folder)),
    ),
    "CIFAR100": (
        lambda folder: write(folder / "cifar-100-python", ["meta", "train", "test"]),
        lambda folder: TorchvisionImages("CIFAR100", str(folder)),
    ),
    "STL10": (
        lambda folder: write(folder / "stl10_binary", [*STL10, "unlabeled_X.bin"]),
        lambda folder: TorchvisionImages("STL10", str(folder), unlabelled=True),
    ),
    "STL10, with labels": (
        lambda folder: write(folder / "stl10_binary", STL10),
        lambda folder: TorchvisionImages("STL10", str(folder)),
    ),
    "texts": (
        texts,
        lambda folder: Text(str(folder), vocabulary=50, length=8, cache=str(folder.parent / "cache")),
    ),
    "documents": (
        lambda folder: write(folder, ["good/1.txt", "bad/1.txt"]),
        lambda folder: LabelledDocuments(str(folder)),
    ),
    "few labels": (pictures, lambda folder: LabelledShare(ImageFolder(str(folder)))),
}


@pytest.mark.parametrize("name", SETS)
def test_every_set_of_files_has_one(name: str, tmp_path: Path) -> None:
    """The same where a copy lies somewhere else; another when any file has changed."""
    make, data = SETS[name]
    make(tmp_path / "data")
    first = data(tmp_path / "data").fingerprint()
    assert first is not None
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert data(tmp_path / "copy").fingerprint() == first
    files = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"!")
        assert data(tmp_path / "copy").fingerprint() != first, path
        path.write_bytes(content)
    assert len(files) > 1
    assert data(tmp_path / "copy").fingerprint() == first


def test_of_very_many_files_an_even_share_of_the_sizes_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all names; no other size is asked for."""
    for limit in ("MOST_FILES", "MOST_SIZES"):
        monkeypatch.setattr(fingerprints, limit, 4)
    asked: list[str] = []
    stat = Path.stat

    def looking(path: Path, **settings: bool) -> os.stat_result:
        asked.append(path.name)
        return stat(path, **settings)

    folder = write(tmp_path / "data", [f"{n}.png" for n in range(10)])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", looking)
        first = fingerprints.of_folder(folder)
    assert first["of"] == "names and one in 3 of the sizes of 10 files"
    assert asked == ["0.png", "3.png", "6.png", "9.png"]
    (folder / "4.png").write_text("longer than it was before")
    assert fingerprints.of_folder(folder) == first
    (folder / "6.png").write_text("longer than it was before")
    assert fingerprints.of_folder(folder) != first
    (folder / "6.png").write_text("content of 6.png")
    assert fingerprints.of_folder(folder) == first
    (folder / "4.png").rename(folder / "40.png")
    assert fingerprints.of_folder(folder)["sha256"] != first["sha256"]


def test_files_of_the_test_that_are_missing_are_left_out(tmp_path: Path) -> None:
    """Training does without them."""
    idx(tmp_path)
    both = IdxImages(str(tmp_path)).fingerprint()
    for path in tmp_path.rglob("t10k*"):
        path.unlink()
    found = IdxImages(str(tmp_path)).fingerprint()
    assert both["of"] == "names, sizes and content of 4 files"
    assert found["of"] == "names, sizes and content of 2 files"
    assert found["sha256"] != both["sha256"]


def test_archives_beside_the_files_of_a_set_do_not_count(tmp_path: Path) -> None:
    """torchvision leaves them there, and does not read them."""
    make, data = SETS["torchvision's"]
    make(tmp_path)
    before = data(tmp_path).fingerprint()
    (tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(b"an archive")
    assert data(tmp_path).fingerprint() == before


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "STL10", "STL10, with labels"])
def test_other_files_in_the_folder_of_a_set_do_not_count(name: str, tmp_path: Path) -> None:
    """As torchvision unpacks them, or somebody has left them there."""
    make, data = SETS[name]
    make(tmp_path)
    before = data(tmp_path).fingerprint()
    (folder,) = tmp_path.iterdir()
    write(folder, ["readme.html", "file.txt~", "fold_indices.txt", "notes/1.txt"])
    if name == "STL10, with labels":
        write(folder, ["unlabeled_X.bin"])
    assert data(tmp_path).fingerprint() == before


def test_tables_beside_the_files_count(tmp_path: Path) -> None:
    """They say which files belong together."""
    pictures(tmp_path)
    data = ImageFolder(str(tmp_path))
    before = data.fingerprint()
    (tmp_path / "images.csv").write_text("path,group\none/1.png,a\n")
    assert data.fingerprint() != before


def test_data_made_by_code_have_none() -> None:
    """Their settings say all."""
    assert FontDigits().fingerprint() is None
