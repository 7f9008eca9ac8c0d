"""Files that have been found but not yet read: their names, classes, and which split each belongs to."""

from __future__ import annotations

import csv
import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl_ebm.data.loading import warn_of_skipped
from ssl_ebm.data.read_watch import each_watched, watched
from ssl_ebm.data.splits import SPLITS, Splits, group_keys
from ssl_ebm.errors import UserError

if TYPE_CHECKING:
    from ssl_ebm.data.shards.stored import StoredFile


@dataclass(frozen=True, slots=True)
class Listing:
    """An image or a clip that has been found but not yet read.

    Attributes:
        path: the file, on its own or inside of shards.
        name: how messages and results call it.
        group: files of one group (clips of one recording, say) stay on one side of every split.
        label: class name, where there is one.
        split: "train", "val" or "test"; None until it is decided.
        row: number of the clip within a file of arrays; None for a video file.
        grouped: whether the group was given for this file (folder/<kind>.csv), and holds for all in it.
    """

    path: Path | StoredFile
    name: str
    group: str
    label: str | None = None
    split: str | None = None
    row: int | None = None
    grouped: bool = False


def find_files(folder: Path, suffixes: Sequence[str], kind: str, notes: bool = True) -> list[Listing]:
    """All files below a folder with one of these suffixes, ordered by path; hidden ones are left out.

    - A first level named train, val or test (a folder, or an .npz file of many items), in small or capital
      letters, fixes the split.
    - The next level names the class, if every file lies in a folder of that level.
    - folder/<kind>.csv, where it is, may give a `group` and a `label` for a `path` relative to the folder;
      paths that name no file are said in a warning.

    Args:
        kind: what the files hold, as a plural for messages: "clips".
        notes: whether to look for folder/<kind>.csv; not where tables are what is looked for.

    Raises:
        UserError: there is no such folder, no file in it, a folder or a table that cannot be read, or a
            table that names no file of the folder.
    """
    _check_folder(folder, kind)
    names = list(file_names(folder, suffixes))
    return list(_listings(folder, suffixes, kind, notes, lambda: names))


def scan_files(folder: Path, suffixes: Sequence[str], kind: str, notes: bool = True) -> Iterator[Listing]:
    """The same, one after another, from folders that are read twice: in memory are one folder's own names at
    a time, and folder/<kind>.csv. What is wrong below `folder` is said once the first file is asked for.
    """
    _check_folder(folder, kind)
    return _listings(folder, suffixes, kind, notes, lambda: file_names(folder, suffixes))


def _check_folder(folder: Path, kind: str) -> None:
    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder that holds the {kind}")
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: give the folder that holds the {kind}")


def _listings(
    folder: Path, suffixes: Sequence[str], kind: str, notes: bool, names: Callable[[], Iterable[str]]
) -> Iterator[Listing]:
    """What `find_files` says of each name. It asks for the names several times: classes need all of them."""
    described = _read_notes(folder / f"{kind}.csv") if notes else {}
    if next(iter(names()), None) is None:
        raise UserError(f"no {kind} in {folder}: put some there ({', '.join(suffixes)})")
    labelled, unknown = True, set(described)
    for name in names():
        labelled = labelled and _label_of(name, described) is not None
        unknown.discard(name)
        if not labelled and not unknown:
            break
    if unknown:
        _say_unknown(folder / f"{kind}.csv", sorted(unknown), len(described))
    for name in names():
        label = _label_of(name, described) if labelled else None
        group = described.get(name, {}).get("group")
        split = _split_and_rest(name)[0]
        yield Listing(folder / name, name, group or name, label, split, grouped=bool(group))


def _split_and_rest(name: str) -> tuple[str | None, list[str]]:
    """The split that a path's first level names, if any, and the levels after it."""
    parts = name.split("/")
    first = parts[0].lower().removesuffix(".npz")
    return (first, parts[1:]) if first in SPLITS else (None, parts)


def _label_of(name: str, described: Mapping[str, Mapping[str, str]]) -> str | None:
    """The class that the notes or the path name, if any."""
    inside = _split_and_rest(name)[1]
    return described.get(name, {}).get("label") or (inside[0] if len(inside) > 1 else None)


def without_class(folder: Path, suffixes: Sequence[str], kind: str) -> str | None:
    """The first file that no folder or table gives a class, where others have one: for its sake none has, see
    `find_files`. None: all have one, or none.
    """
    described = _read_notes(folder / f"{kind}.csv")
    first, others = None, False
    for name in file_names(folder, suffixes):
        if _label_of(name, described) is not None:
            others = True
        elif first is None:
            first = name
    return first if others else None


def file_names(folder: Path, suffixes: Collection[str] | None = None) -> Iterator[str]:
    """Paths of all files below a folder, relative to it, in the order of their parts.

    Hidden files and folders are left out. A link counts as the file or folder that it leads to, unless it
    leads back to a folder that it lies in; one that leads nowhere counts as a file. A million names take a
    few seconds; in memory are those of one folder and the folders above it.

    Args:
        suffixes: only files with one of these, such as ".jpg", in small or capital letters; None: all.

    Raises:
        UserError: a folder cannot be read.
    """
    waiting = [_entries(folder, "", suffixes)]  # of the folders on the way, those that come later, last first
    while waiting:
        if not waiting[-1]:
            waiting.pop()
        elif (name := waiting[-1].pop()).endswith("/"):
            waiting.append(_entries(folder, name, suffixes))
        else:
            yield name


def _entries(folder: Path, above: str, suffixes: Collection[str] | None) -> list[str]:
    """Paths of a folder's own files and folders (these end with a slash), the last first."""
    found: list[tuple[str, str]] = []
    try:
        with watched():
            entries = os.scandir(folder / above)
        with entries:
            for entry in each_watched(entries):
                if entry.name.startswith("."):
                    continue
                wanted = suffixes is None or suffix_of(entry.name) in suffixes
                if wanted and (entry.is_file() or _leads_nowhere(entry)):
                    found.append((entry.name, ""))
                elif entry.is_dir() and not (
                    entry.is_symlink() and _leads_back(folder, f"{above}{entry.name}")
                ):
                    found.append((entry.name, "/"))
    except OSError as error:
        raise UserError(f"cannot read {folder / above}: {error.strerror or error}") from error
    return [f"{above}{name}{slash}" for name, slash in sorted(found, reverse=True)]


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to what is not there: its reader will say so."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def _leads_back(folder: Path, name: str) -> bool:
    """Whether a link below a folder leads to that folder, or to one on the way from it to the link."""
    link = folder / name
    return any(os.path.samefile(link, folder / above) for above in Path(name).parents)


def suffix_of(name: str) -> str:
    """The end of a file's name from its last dot on, in small letters."""
    return os.path.splitext(name)[1].lower()


def _read_notes(path: Path) -> dict[str, dict[str, str]]:
    """Rows of a table by their `path`, in the form of `file_names`.

    Raises:
        UserError: it cannot be read, or has no such column.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error}): save it as CSV in UTF-8, or remove it") from error
    if rows and "path" not in rows[0]:
        raise UserError(f"{path} has no column `path`: name it in the first line, or remove the file")
    return {posixpath.normpath((row["path"] or "").replace("\\", "/")): row for row in rows}


def _say_unknown(path: Path, unknown: Sequence[str], rows: int) -> None:
    """Rows of a table that name no file: their groups and labels would be lost without a word.

    Raises:
        UserError: all are such.
    """
    if len(unknown) == rows:
        raise UserError(f"{path} names no file of {path.parent}: write paths as {path.parent} has them")
    warn_of_skipped(str(path), "row(s) that name no file here", unknown)


def assign_splits(
    found: Sequence[Listing],
    fixed: set[str | None],
    where: str,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[Listing]:
    """Give every file a split, as `Splits` says.

    Args:
        found: the files.
        fixed: the splits that the set fixes (also those of files left out since); None stands for none.
        where: the set's name, for messages.
        val_fraction, test_fraction, seed: as in `Splits`.

    Raises:
        UserError: there are too few groups, or files inside and outside of train, val and test.
    """
    if None in fixed and len(fixed) > 1:
        outside = next((listing.name for listing in found if listing.split is None), "a file")
        raise UserError(f"{outside} lies outside train, val and test in {where}: move it into one of them")
    given = np.array([-1 if one.split is None else SPLITS.index(one.split) for one in found], np.int8)
    keys = group_keys((os.fsencode(listing.group) for listing in found), seed)
    splits = Splits(lambda: [(given, keys)], fixed, where, val_fraction, test_fraction)
    numbers = splits.of(given, keys)
    return [replace(one, split=SPLITS[number]) for one, number in zip(found, numbers, strict=True)]


def class_names(found: Iterable[Listing]) -> list[str]:
    """Sorted names of the classes; empty where there are none."""
    return sorted({listing.label for listing in found if listing.label is not None})


def check_fractions(**fractions: float) -> None:
    """Raises UserError for the first share, given as name=value, that is not between 0 and 1."""
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise UserError(f"{name} is {fraction}: use a number between 0 and 1")
