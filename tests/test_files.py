"""Files that are there as a whole or not at all."""

import errno
from pathlib import Path

import pytest

from ssl_ebm.errors import UserError
from ssl_ebm.files import whole, write_whole


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "figures.json"
    for text in ("first", "second: ä"):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [one.name for one in path.parent.iterdir()] == ["figures.json"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("a bug")])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "picture.png"
    path.write_text("old")

    def break_off() -> None:
        with whole(path) as partial:
            assert partial.suffix == ".png"  # what writes may look at the ending
            partial.write_text("half of a new")
            assert path.read_text() == "old"
            raise error

    expected = UserError if isinstance(error, OSError) else ValueError
    with pytest.raises(expected, match=r"picture\.png \(No space left on device\)|a bug"):
        break_off()
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("name", ["file/below.txt", "n" * 300])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot write"):
        write_whole(tmp_path / name, "text")
