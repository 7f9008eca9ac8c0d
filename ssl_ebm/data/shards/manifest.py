"""What a folder of shards says of itself, in `shards.json`: counts, classes, sizes, checksums, version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ssl_ebm import __version__
from ssl_ebm.data.shards.tables import TIMES
from ssl_ebm.errors import UserError
from ssl_ebm.files import sha256_of, write_whole

FILE = "shards.json"
UNFINISHED = ".unfinished"  # a folder that is there until all shards are
VERSION = 1
AGAIN = "copy the folder again, or make it again with ssl-ebm shard"
Kind = Literal["images", "clips", "texts"]


@dataclass(frozen=True)
class Stored:
    """A file beside the manifest.

    Attributes:
        name: of the file.
        size: in bytes.
        sha256: of its content.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of `shards.json`.

    Attributes:
        kind: "images", "clips" or "texts".
        items: pictures, clips, or files of text (a long one has an item for each of its parts).
        splits: items of "train", "val" and "test" where the original folder fixes them; "any" counts the
            others.
        classes: sorted names.
        shards: the tar files.
        tables: the index, see `tables`.
        broken: files that were left out, each with the reason.
        plan: of which files, sizes and times of change, and settings, the shards were made.
    """

    kind: Kind
    items: int
    splits: dict[str, int]
    classes: list[str]
    shards: list[Stored]
    tables: list[Stored]
    broken: list[str]
    plan: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what training sees: kind, classes, and the checksums of shards and index."""
        seen = asdict(self)
        content = {name: seen[name] for name in ("kind", "classes", "shards", "tables")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Writes `shards.json`: last of all, for it says that the rest is there; and SHA256SUMS, for
        sha256sum."""
        files = [*self.shards, *self.tables]
        write_whole(folder / "SHA256SUMS", "".join(f"{one.sha256}  {one.name}\n" for one in files))
        head = {"format": "ssl_ebm shards", "version": VERSION, "made_by": f"ssl_ebm {__version__}"}
        content = head | {"fingerprint": self.fingerprint} | asdict(self)
        write_whole(folder / FILE, json.dumps(content, indent=1))


def is_sharded(folder: str | Path) -> bool:
    """Whether a folder holds shards.

    Raises:
        UserError: only a part of them, because the command that makes them was broken off.
    """
    folder = Path(folder)
    if (folder / FILE).is_file():
        return True
    if (folder / UNFINISHED).is_dir():
        raise UserError(f"the shards in {folder} are unfinished: run the same command again, it goes on")
    return False


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        UserError: it cannot be read, was changed, or is of another version.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, fingerprint = content.pop("version"), content.pop("fingerprint")
        if version != VERSION:
            raise UserError(
                f"{path} is of version {version}, and this release reads version {VERSION}: make the shards "
                "again with ssl-ebm shard, or use the release that made them "
                f"({content.get('made_by', 'unknown')})"
            )
        found = _from_json(content)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}): {AGAIN}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): {AGAIN}") from error
    if found.fingerprint != fingerprint:
        raise UserError(f"{path} was changed, it does not have its fingerprint: {AGAIN}")
    return found


def _from_json(content: dict[str, Any]) -> Manifest:
    return Manifest(
        kind=content["kind"],
        items=int(content["items"]),
        splits={str(name): int(count) for name, count in content["splits"].items()},
        classes=[str(name) for name in content["classes"]],
        shards=[_stored(one) for one in content["shards"]],
        tables=[_stored(one) for one in content["tables"]],
        broken=[str(one) for one in content["broken"]],
        plan=str(content["plan"]),
    )


def _stored(content: dict[str, Any]) -> Stored:
    return Stored(str(content["name"]), int(content["size"]), str(content["sha256"]))


def check_files(folder: Path, manifest: Manifest) -> None:
    """Looks at the size of every file, and at the checksums of the index; not at those of the shards, whose
    items are checked one by one as they are read.

    Raises:
        UserError: a file is missing, cut off, or changed.
    """
    for stored in (*manifest.shards, *manifest.tables):
        path = folder / Path(stored.name).name  # never outside of the folder, whatever a manifest says
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(f"{path} is missing ({error.strerror}): {AGAIN}") from error
        if size != stored.size:
            raise UserError(f"{path} has {size} of its {stored.size} bytes: {AGAIN}")
    for stored in manifest.tables:
        # times are as long as all clips together: each clip's have a checksum of their own
        if stored.name != TIMES and digest(folder / Path(stored.name).name) != stored.sha256:
            raise UserError(f"{folder / stored.name} was changed, it differs from its checksum: {AGAIN}")


def digest(path: Path) -> str:
    """SHA-256 of a file, read block by block.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}): {AGAIN}") from error
