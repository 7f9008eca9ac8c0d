"""Files that have been found but not yet read: their names, classes, and which split each belongs to."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ssl_ebm.data.randomness import stream_key
from ssl_ebm.errors import UserError

SPLITS = ("train", "val", "test")
_EXCESS = 1.25  # how far a group may take a split beyond its fraction


@dataclass(frozen=True)
class Listing:
    """An image or a clip that has been found but not yet read.

    Attributes:
        path: the file.
        name: how messages and results call it.
        group: files of one group (clips of one recording, say) stay on one side of every split.
        label: class name, where there is one.
        split: "train", "val" or "test"; None until it is decided.
        row: number of the clip within a file of arrays; None for a video file.
    """

    path: Path
    name: str
    group: str
    label: str | None = None
    split: str | None = None
    row: int | None = None


def find_files(folder: Path, suffixes: Sequence[str], kind: str, notes: bool = True) -> list[Listing]:
    """All files below a folder with one of these suffixes, sorted by path; hidden ones are left out.

    - A first level named train, val or test (a folder, or an .npz file of many items) fixes the split.
    - The next level names the class, if every file lies in a folder of that level.
    - folder/<kind>.csv, where it is, may give a `group` and a `label` for a `path` relative to the folder.

    Args:
        kind: what the files hold, as a plural for messages: "clips".
        notes: whether to look for folder/<kind>.csv; not where tables are what is looked for.

    Raises:
        UserError: there is no such folder, or no file in it.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder that holds the {kind}")
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: give the folder that holds the {kind}")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    paths = [p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not paths:
        raise UserError(f"no {kind} in {folder}: put some there ({', '.join(suffixes)})")
    described = _read_notes(folder / f"{kind}.csv") if notes else {}
    found: list[Listing] = []
    for path in paths:
        parts = list(path.relative_to(folder).parts)
        first = parts[0].removesuffix(".npz")
        split = first if first in SPLITS else None
        inside = parts[1:] if split is not None else parts
        name = "/".join(parts)
        note = described.get(name, {})
        label = note.get("label") or (inside[0] if len(inside) > 1 else None)
        found.append(Listing(path, name, note.get("group") or name, label, split))
    if any(listing.label is None for listing in found):
        found = [replace(listing, label=None) for listing in found]
    return found


def _read_notes(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and "path" not in rows[0]:
        raise UserError(f"{path} has no column `path`: name it in the first line, or remove the file")
    return {row["path"]: row for row in rows}


def assign_splits(
    found: Sequence[Listing],
    fixed: set[str | None],
    where: str,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[Listing]:
    """Give every file a split; whole groups go to one side.

    Splits that the set fixes are kept. The ones it lacks are taken from its training part: groups in an order
    drawn by `seed`, as many as fit into the fraction of files (a quarter more at most), at least one.

    Args:
        found: the files.
        fixed: the splits that the set fixes (also those of files left out since); None stands for none.
        where: the set's name, for messages.
        val_fraction, test_fraction: shares of the files, in (0, 1).
        seed: names the random order.

    Raises:
        UserError: there are too few groups, or files inside and outside of train, val and test.
    """
    if None in fixed and len(fixed) > 1:
        outside = next((listing.name for listing in found if listing.split is None), "a file")
        raise UserError(f"{outside} lies outside train, val and test in {where}: move it into one of them")
    if None not in fixed and "train" not in fixed:
        raise UserError(f"{where} has {' and '.join(sorted(map(str, fixed)))} but no train: add it")
    split_of = {listing.name: listing.split or "train" for listing in found}
    pool = [listing for listing in found if split_of[listing.name] == "train"]
    missing = [split for split in ("test", "val") if split not in fixed]
    groups: dict[str, list[Listing]] = {}
    for listing in sorted(pool, key=lambda one: stream_key(seed, f"split/{one.group}")):
        groups.setdefault(listing.group, []).append(listing)
    if len(groups) <= len(missing):
        raise UserError(
            f"{where} has {len(groups)} independent training file(s), too few to split off "
            f"{' and '.join(missing)}: add more"
        )
    for split in missing:
        wanted = {"val": val_fraction, "test": test_fraction}[split] * len(pool)
        still_needed = len(missing) - missing.index(split)  # one group for each later split and one for train
        taken = 0
        for group in list(groups):
            size = len(groups[group])
            if taken < wanted and taken + size <= _EXCESS * wanted and len(groups) > still_needed:
                taken += _move(groups.pop(group), split, split_of)
        if taken == 0:
            smallest = min(groups, key=lambda group: len(groups[group]))
            _move(groups.pop(smallest), split, split_of)
    return [replace(listing, split=split_of[listing.name]) for listing in found]


def _move(listings: list[Listing], split: str, split_of: dict[str, str]) -> int:
    split_of.update({listing.name: split for listing in listings})
    return len(listings)


def class_names(found: Iterable[Listing]) -> list[str]:
    """Sorted names of the classes; empty where there are none."""
    return sorted({listing.label for listing in found if listing.label is not None})


def check_fractions(**fractions: float) -> None:
    """Raises UserError for the first share, given as name=value, that is not between 0 and 1."""
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise UserError(f"{name} is {fraction}: use a number between 0 and 1")
