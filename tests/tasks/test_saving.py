"""Checkpoints on disk: whole or not at all, and none lost."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_ebm.errors import UserError
from ssl_ebm.tasks.saving import WholeFileIO, checkpoint_folder, last_checkpoint, put_aside_checkpoints


def test_a_write_that_is_cut_short_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeFileIO().save_checkpoint({"step": 1}, path)

    def cut_short(checkpoint: dict[str, Any], file: Any) -> None:
        Path(file).write_bytes(b"half of a che")
        raise OSError("no space left on device")

    monkeypatch.setattr("lightning.fabric.plugins.io.torch_io._atomic_save", cut_short)
    with pytest.raises(UserError, match=r"cannot write .*last.ckpt \(no space"):
        WholeFileIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        WholeFileIO().save_checkpoint({"step": step}, path)
    assert torch.load(path, weights_only=True) == {"step": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_checkpoints_are_put_aside_one_after_the_other(tmp_path: Path) -> None:
    assert put_aside_checkpoints(tmp_path) is None
    for number in (1, 2, 3):
        checkpoint_folder(tmp_path).mkdir()
        last_checkpoint(tmp_path).write_text(f"run {number}")
        assert put_aside_checkpoints(tmp_path) == tmp_path / f"checkpoints.{number}"
    kept = {path.name: (path / "last.ckpt").read_text() for path in tmp_path.iterdir()}
    assert kept == {"checkpoints.1": "run 1", "checkpoints.2": "run 2", "checkpoints.3": "run 3"}
