"""Files that are there as a whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
from ssl_ebm.files import whole, write_whole


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "figures.json"
    for text in ("first", "second: ä"):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [one.name for one in path.parent.iterdir()] == ["figures.json"]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is made to last on the disk (fsync) and what is renamed, in order, by the name of the file."""
    seen: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(number: int) -> None:
        seen.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{number}"))))
        fsync(number)

    def replaced(source: Path, target: Path) -> None:
        seen.append(("rename", os.path.basename(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    return seen


def test_what_has_to_last_is_on_the_disk_before_it_takes_its_place(
    steps: list[tuple[str, str]], tmp_path: Path
) -> None:
    """And the renaming is, before anything else is done."""
    write_whole(tmp_path / "run" / "a.json", "text", on_disk=True)
    assert steps == [("fsync", "a.partial.json"), ("rename", "a.json"), ("fsync", "run")]
    steps.clear()
    write_whole(tmp_path / "run" / "figure.json", "text")
    assert steps == [("rename", "figure.json")]


@pytest.mark.usefixtures("own_classes")
def test_checkpoints_and_the_settings_of_a_run_last(steps: list[tuple[str, str]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit = ["fit", "--model", "toy_task.ToyTask", "--data", "toy_task.ToyData", "--run_dir", str(run)]
    fit += [
        "--trainer.max_steps",
        "1",
        "--trainer.accelerator",
        "cpu",
        "--trainer.enable_model_summary",
        "false",
    ]
    assert main(fit) == 0
    for name, folder in {"config.yaml": "run", "run.json": "run", "last.ckpt": "checkpoints"}.items():
        stem, ending = name.split(".")
        place = steps.index(("rename", name))
        assert steps[place - 1] == ("fsync", f"{stem}.partial.{ending}")
        assert steps[place + 1] == ("fsync", folder)


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
