"""Checkpoints on disk: whole or not at all, and none lost."""

import os
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from toy_task import ToyData, ToyTask
from two_futures import trainer as new_trainer

from ssl_ebm.errors import UserError
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import (
    LastCheckpoint,
    MakeRoom,
    WholeFileIO,
    checkpoint_folder,
    is_whole,
    last_checkpoint,
    make_room,
    newest_whole,
    previous_checkpoint,
    put_aside_checkpoints,
)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeFileIO().save_checkpoint({"step": 1}, path)
    (path.parent / "last.partial.ckpt").symlink_to("/dev/full")  # the system's own disk without room
    with pytest.raises(UserError, match=r"cannot write .*last.ckpt \(No space left.*make room"):
        WholeFileIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        WholeFileIO().save_checkpoint({"step": step}, path)
    assert torch.load(path, weights_only=True) == {"step": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def written_by_steps(run_dir: Path, steps: list[int]) -> None:
    """The checkpoints of a training, at each of these steps."""
    callback = LastCheckpoint(run_dir, every_n_steps=1)

    def save(path: Path, weights_only: bool) -> None:
        content = {"state_dict": {"w": torch.full((1000,), float(trainer.global_step))}}
        WholeFileIO().save_checkpoint(content, path)

    trainer = SimpleNamespace(global_step=0, is_global_zero=True, save_checkpoint=save)
    for trainer.global_step in steps:
        callback.save(cast(Any, trainer))


def step_of(path: Path | None) -> float:
    assert path is not None
    return float(torch.load(path, weights_only=True)["state_dict"]["w"][0])


def test_the_newest_whole_checkpoint_is_found_wherever_the_last_one_is_torn(tmp_path: Path) -> None:
    """Cut short at any place, or with any byte of a weight changed."""
    assert newest_whole(tmp_path) is None
    written_by_steps(tmp_path, [1, 2, 3])
    assert step_of(newest_whole(tmp_path)) == 3
    last = last_checkpoint(tmp_path)
    whole = last.read_bytes()
    place = whole.index(torch.full((1000,), 3.0).numpy().tobytes())
    changed = [whole[: place + n] + bytes([whole[place + n] ^ 1]) + whole[place + n + 1 :] for n in (0, 3999)]
    for content in (*changed, *(whole[:n] for n in (0, 1, len(whole) // 2, len(whole) - 1))):
        last.write_bytes(content)
        assert not is_whole(last)
        assert step_of(newest_whole(tmp_path)) == 2
        with pytest.raises(UserError, match="damaged"):
            read_checkpoint(last)
    last.unlink()
    assert step_of(newest_whole(tmp_path)) == 2
    previous_checkpoint(tmp_path).write_bytes(b"")
    with pytest.raises(UserError, match="damaged: train from scratch"):
        newest_whole(tmp_path)


def test_no_changed_bit_of_the_list_of_parts_stops_the_search(tmp_path: Path) -> None:
    """Nor is a checkpoint that reads differently taken for whole."""
    written_by_steps(tmp_path, [1, 2])
    last = last_checkpoint(tmp_path)
    whole = last.read_bytes()
    with zipfile.ZipFile(last) as archive:
        start = archive.start_dir
    damaged = 0
    for place in range(start, len(whole)):
        for bit in range(8):
            last.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            found = newest_whole(tmp_path)
            damaged += found != last
            if found == last or place % 16 == bit:  # loading takes longer
                assert step_of(found) == (2 if found == last else 1)
    assert damaged > len(whole) - start


def test_without_hard_links_the_previous_checkpoint_is_kept_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    written_by_steps(tmp_path, [1, 2])
    assert step_of(last_checkpoint(tmp_path)) == 2
    assert step_of(previous_checkpoint(tmp_path)) == 1


def test_checkpoints_are_put_aside_one_after_the_other(tmp_path: Path) -> None:
    assert put_aside_checkpoints(tmp_path) is None
    for number in (1, 2, 3):
        checkpoint_folder(tmp_path).mkdir()
        last_checkpoint(tmp_path).write_text(f"run {number}")
        assert put_aside_checkpoints(tmp_path) == tmp_path / f"checkpoints.{number}"
    kept = {path.name: (path / "last.ckpt").read_text() for path in tmp_path.iterdir()}
    assert kept == {"checkpoints.1": "run 1", "checkpoints.2": "run 2", "checkpoints.3": "run 3"}


class _PastLightning(ToyTask):
    """Steps the optimizer itself, of which Lightning's hooks hear nothing."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any = None) -> None:
        optimizer.optimizer.step(closure=closure)


@pytest.mark.parametrize("task", [ToyTask, _PastLightning])
def test_an_earlier_run_is_put_aside_before_anything_is_written(task: type[ToyTask], tmp_path: Path) -> None:
    written_by_steps(tmp_path, [7, 8])
    callbacks = [MakeRoom(tmp_path, None), LastCheckpoint(tmp_path, 2)]
    fitter = new_trainer(4, callbacks=callbacks, limit_val_batches=0, enable_checkpointing=True)
    fitter.fit(task(), datamodule=ToyData())
    assert torch.load(last_checkpoint(tmp_path), weights_only=True)["global_step"] == 4
    assert torch.load(previous_checkpoint(tmp_path), weights_only=True)["global_step"] == 2
    aside = checkpoint_folder(tmp_path).with_name("checkpoints.1")
    assert [step_of(aside / f"{name}.ckpt") for name in ("last", "previous")] == [8, 7]


@pytest.mark.parametrize("inside", [False, True])
def test_a_training_from_another_checkpoint_puts_the_folders_own_aside(inside: bool, tmp_path: Path) -> None:
    """The one that it goes on from may lie in the folder that is put aside."""
    run, backup = tmp_path / "run", tmp_path / "backup"
    chosen = (checkpoint_folder(run) if inside else backup) / "step1.ckpt"
    settings: dict[str, Any] = {"limit_val_batches": 0, "enable_checkpointing": True}
    new_trainer(1, callbacks=[LastCheckpoint(backup, 1)], **settings).fit(ToyTask(), datamodule=ToyData())
    written_by_steps(run, [7, 8])
    chosen.hardlink_to(last_checkpoint(backup))
    callbacks = [MakeRoom(run, chosen), LastCheckpoint(run, 2)]
    fitter = new_trainer(4, callbacks=callbacks, **settings)
    fitter.fit(ToyTask(), datamodule=ToyData(), ckpt_path=chosen, weights_only=True)
    own = (last_checkpoint(run), previous_checkpoint(run))
    assert [torch.load(path, weights_only=True)["global_step"] for path in own] == [4, 2]
    aside = checkpoint_folder(run).with_name("checkpoints.1")
    assert [step_of(aside / f"{name}.ckpt") for name in ("last", "previous")] == [8, 7]


def test_a_folder_goes_on_from_its_own_checkpoints_by_whatever_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written_by_steps(Path("run"), [7, 8])
    (tmp_path / "link").symlink_to("run")
    make_room("run", tmp_path / "link" / "checkpoints" / "last.ckpt")
    assert step_of(last_checkpoint("run")) == 8
    make_room(tmp_path / "run", "link/checkpoints/previous.ckpt")
    assert sorted(os.listdir("run/checkpoints")) == ["aside.ckpt", "previous.ckpt"]
    assert os.listdir("run") == ["checkpoints"]
