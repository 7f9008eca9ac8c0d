"""Files of a folder: which are found, and in which order."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssl_ebm.data.listings import file_names, find_files, scan_files
from ssl_ebm.errors import UserError

NAMES = (
    "b/2.jpg",
    "b/1.JPG",
    "b.jpg",
    "b-a/1.jpg",
    "a/deep/er/x.jpeg",
    "é.jpg",
    "a.b.jpg",
    "c/notes.txt",
    "jpg",
    "d.jpg/1.jpg",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*NAMES, ".hidden.jpg", ".git/1.jpg", "b/.cache/1.jpg"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "folder"


def test_names_are_those_of_pathlib_in_its_order(folder: Path) -> None:
    every = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    seen = [path for path in every if not any(part.startswith(".") for part in path.parts)]
    assert list(file_names(folder)) == [path.as_posix() for path in seen]
    assert sorted(file_names(folder)) == sorted(NAMES)


def test_suffixes_in_small_or_capital_letters(folder: Path) -> None:
    wanted = [name for name in file_names(folder) if name not in ("c/notes.txt", "jpg")]
    assert list(file_names(folder, (".jpg", ".jpeg"))) == wanted
    assert [one.name for one in find_files(folder, (".jpg", ".jpeg"), "images")] == wanted


def test_one_after_another_files_are_described_alike(folder: Path) -> None:
    for place in (folder, folder / "b", folder / "a"):
        found = find_files(place, (".jpg", ".jpeg"), "images")
        assert list(scan_files(place, (".jpg", ".jpeg"), "images")) == found
        assert {one.label for one in found} == ({"deep"} if place.name == "a" else {None})
    with pytest.raises(UserError, match=r"no images in .*: put some there \(\.png\)"):
        next(scan_files(folder, (".png",), "images"))


def test_a_link_to_a_file_is_one_and_others_are_not(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").touch()
    (folder / "linked.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (folder / "broken.jpg").symlink_to(tmp_path / "nothing")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "pipe.jpg")
    assert sorted(file_names(folder)) == sorted([*NAMES, "linked.jpg"])


def test_a_folder_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files would be missing from the training without a word."""
    scandir: Any = os.scandir

    def refusing(path: Any) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "er":
            raise PermissionError(13, "Permission denied", str(path))
        made: Iterator[os.DirEntry[str]] = scandir(path)
        return made

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match=r"cannot read .*a/deep/er.*: Permission denied"):
        list(file_names(folder))
