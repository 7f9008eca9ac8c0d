"""Folders that commands write to, and files that are there as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def whole(path: str | os.PathLike[str], on_disk: bool = False) -> Iterator[Path]:
    """A name beside the path to write to, which takes the path's place when the block ends without an error.

        with whole(path) as partial:
            image.save(partial)

    Whoever opens the path finds the old file or the new one, never a half. The name has the same ending.
    Makes the folder.

    Args:
        on_disk: waits for the disk, so that this holds after a power failure, too: for what a run goes on
            from, or is repeated by.

    Raises:
        UserError: the file cannot be written; one that was there before stays as it was.
    """
    path = Path(path)
    partial = path.with_stem(f"{path.stem}.partial")
    make_folder(path.parent)
    try:
        yield partial
        if on_disk:
            _sync(partial, os.O_RDWR)
        os.replace(partial, path)
        if on_disk:
            with suppress(OSError):  # where the system cannot say so of a folder
                _sync(path.parent, os.O_RDONLY)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {path} ({reason}): make room, or choose another place") from error
    finally:
        with suppress(OSError):  # it is gone, or never was
            partial.unlink()


def _sync(path: Path, how: int) -> None:
    """Waits until what was written to a file, or renamed in a folder, is on the disk."""
    place = os.open(path, how)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, read block by block.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str, on_disk: bool = False) -> None:
    """Writes a text, as `whole` says.

    Raises:
        UserError: as `whole`.
    """
    with whole(path, on_disk) as partial:
        partial.write_text(text, encoding="utf-8")
