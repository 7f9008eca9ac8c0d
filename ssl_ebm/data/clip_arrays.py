"""Arrays of frames in NumPy's formats: .npz files of many clips, and what an array's header announces."""

import math
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.decoding import BrokenClipError
from ssl_ebm.data.listings import Listing
from ssl_ebm.data.loading import DEFLATED, check_memory
from ssl_ebm.errors import in_one_line

_LOADING = Lock()  # clips are opened by several threads; the arrays behind them are loaded once


def holds_clips(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether an array is one of clips: uint8 (N, T, H, W) or (N, T, H, W, 3), none of them 0."""
    frames = len(shape) == 4 or (len(shape) == 5 and shape[-1] == 3)
    return dtype == np.uint8 and frames and math.prod(shape) > 0


def announced(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in NumPy's format, from its header alone.

    Raises:
        ValueError, and others: it has no such header.
    """
    if np.lib.format.read_magic(file) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def load_row(listing: Listing) -> NDArray[np.uint8]:
    """A clip of a file of arrays: (T, H, W) or (T, H, W, 3).

    Raises:
        BrokenClipError: it cannot be read.
        UserError: as `rows_in`.
    """
    assert isinstance(listing.path, Path)
    assert listing.row is not None
    video = _load_array(listing.path)
    if listing.row >= len(video):
        raise BrokenClipError(f"the file holds {len(video)} clips now: it was replaced")
    return video[listing.row]


def rows_in(path: Path) -> int | None:
    """Number of clips in a file of arrays; None if it holds no array of clips that can be read.

    Raises:
        UserError: they need more than half of this machine's memory.
    """
    try:
        return _check(path)
    except BrokenClipError:
        return None


def groups_in(path: Path) -> Sequence[object] | None:
    """The array `group` of a file of which `rows_in` gives a number: one value for each clip; None: it has
    none.

    Raises:
        BrokenClipError: it cannot be read, and no clip of the file will be.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays.get("group")
    except Exception as error:  # as in `_check`
        raise BrokenClipError(in_one_line(error)) from error


def _check(path: Path) -> int:
    """Number of clips in a file of arrays, from headers alone.

    Raises:
        BrokenClipError: it holds none, or fewer bytes than are announced, which may be any number.
        UserError: they need more than half of this machine's memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            shape, dtype = _part(archive, "video")
            if not holds_clips(shape, dtype):
                raise ValueError("its array `video` is not uint8 (N, T, H, W, 3) or (N, T, H, W)")
            if "group.npy" in archive.namelist() and _part(archive, "group")[0] != shape[:1]:
                raise ValueError("its array `group` has not one value for each clip")
    except Exception as error:  # of another type for each way in which a file can be wrong
        raise BrokenClipError(in_one_line(error)) from error
    check_memory(math.prod(shape), f"the frames of {path}", "make several files of it")
    return shape[0]


def _part(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array of a file, if it is as long as its header says.

    Raises:
        ValueError, and others: it is not, or there is none.
    """
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        shape, dtype = announced(file)
    if math.prod(shape) * dtype.itemsize > min(entry.file_size, DEFLATED * entry.compress_size):
        raise ValueError(f"its array `{name}` announces more than the file holds")
    return shape, dtype


@lru_cache(maxsize=2)
def _read_array(path: Path, _written: tuple[int, int]) -> NDArray[np.uint8]:
    """All clips of a file; compressed, so it can only be read as a whole, and is read once, until another is
    written in its place."""
    _check(path)
    groups_in(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["video"]
    except Exception as error:  # as in `_check`
        raise BrokenClipError(in_one_line(error)) from error


def _load_array(path: Path) -> NDArray[np.uint8]:
    try:
        found = path.stat()
    except OSError as error:
        raise BrokenClipError(in_one_line(error)) from error
    with _LOADING:
        return _read_array(path, (found.st_mtime_ns, found.st_size))
