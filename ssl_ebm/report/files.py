"""The folder that a command writes to, and files that are there as a whole or not at all."""

import os
from pathlib import Path

from ssl_ebm.errors import UserError


def make_folder(path: str | Path) -> Path:
    """Makes a folder, with those above it.

    Raises:
        UserError: it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write to {path} ({error.strerror}): choose another folder (--out or --run_dir)"
        ) from error
    return path


def write_whole(path: Path, text: str) -> None:
    """Writes beside the path and renames: a reader never sees half of the file.

    Raises:
        UserError: the file cannot be written; one that was there before stays as it was.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        reason = f"cannot write {path} ({error.strerror}): make room, or choose another --out"
        raise UserError(reason) from error
