"""Files of a folder: which are found, and in which order."""

import os
from collections.abc import Callable, Iterator
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


def test_links_to_files_and_to_folders_are_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "in").mkdir(parents=True)
    (tmp_path / "elsewhere" / "in" / "1.jpg").touch()
    (folder / "linked.jpg").symlink_to(tmp_path / "elsewhere" / "in" / "1.jpg")
    (folder / "lost.jpg").symlink_to(tmp_path / "nothing")  # its reader will say so
    (folder / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "pipe.jpg")
    found = sorted(file_names(folder))
    assert found == sorted([*NAMES, "linked.jpg", "lost.jpg", "b/linked/in/1.jpg"])
    walked = (
        os.path.join(top, name) for top, _, names in os.walk(folder, followlinks=True) for name in names
    )
    seen = [
        os.path.relpath(path, folder) for path in walked if os.path.isfile(path) or path.endswith("lost.jpg")
    ]
    assert found == sorted(name for name in seen if not any(part[0] == "." for part in name.split("/")))


def test_a_link_that_leads_back_is_no_folder(folder: Path, tmp_path: Path) -> None:
    """Or its files would be found again and again; two that lead to each other are left after one turn."""
    (folder / "b" / "all").symlink_to(folder)
    (folder / "b" / "itself").symlink_to(folder / "b")
    (folder / "b-a" / "to_c").symlink_to(folder / "c")
    (folder / "c" / "to_b-a").symlink_to(folder / "b-a")
    assert sorted(file_names(folder)) == sorted([*NAMES, "b-a/to_c/notes.txt", "c/to_b-a/1.jpg"])


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


def table(folder: Path, *rows: str, encoding: str = "utf-8") -> None:
    (folder / "images.csv").write_bytes("\n".join(("path,group,label", *rows)).encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # the second as spreadsheets write it
@pytest.mark.parametrize("path", ["b/2.jpg", "./b/2.jpg", "b//2.jpg", ".\\b\\2.jpg"])
def test_a_table_describes_files(folder: Path, path: str, encoding: str) -> None:
    table(folder, f"{path},film,cat", encoding=encoding)
    found = {one.name: one for one in find_files(folder, (".jpg",), "images")}
    assert (found["b/2.jpg"].group, found["b/2.jpg"].grouped) == ("film", True)
    assert (found["b.jpg"].group, found["b.jpg"].grouped) == ("b.jpg", False)


def test_rows_of_a_table_that_name_no_file_are_said(folder: Path) -> None:
    """Their groups would be lost without a word, and with them what keeps the splits apart."""
    table(folder, "b/2.jpg,film,", "b/9.jpg,film,")
    with pytest.warns(UserWarning, match=r"images\.csv: skipped 1 row\(s\) that name no file here: b/9\.jpg"):
        find_files(folder, (".jpg",), "images")
    table(folder, "/data/b/2.jpg,film,")
    with pytest.raises(UserError, match=r"images\.csv names no file of .*: write paths as"):
        find_files(folder, (".jpg",), "images")


def test_a_table_in_another_encoding_is_named(folder: Path) -> None:
    table(folder, "é.jpg,film,", encoding="latin-1")
    with pytest.raises(UserError, match=r"cannot read .*images\.csv .*: save it as CSV in UTF-8"):
        find_files(folder, (".jpg",), "images")


@pytest.mark.parametrize("letters", [str.lower, str.capitalize, str.upper])
def test_splits_are_known_in_small_and_capital_letters(letters: Callable[[str], str], tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            path = tmp_path / letters(split) / name / "1.png"
            path.parent.mkdir(parents=True)
            path.touch()
        (tmp_path / f"{letters(split)}.npz").touch()
    found = find_files(tmp_path, (".png", ".npz"), "files")
    assert {(one.name.split("/")[0].removesuffix(".npz"), one.split) for one in found} == {
        (letters(split), split) for split in ("train", "val", "test")
    }
    pictures = find_files(tmp_path, (".png",), "files")
    assert sorted({str(one.label) for one in pictures}) == ["a", "b"]
