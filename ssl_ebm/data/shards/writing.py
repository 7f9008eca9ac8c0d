"""Writing shards: one after another, each whole or not there, so that a killed command goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from ssl_ebm.data.listings import SPLITS
from ssl_ebm.data.shards.intake import BrokenFileError, Content, blocks, take_in
from ssl_ebm.data.shards.manifest import FILE, UNFINISHED, Manifest, read_manifest
from ssl_ebm.data.shards.merging import finish
from ssl_ebm.data.shards.plan import Piece, Plan
from ssl_ebm.data.shards.tables import CLIP, ITEM
from ssl_ebm.errors import UserError
from ssl_ebm.files import make_folder, whole

Report = Callable[[int, int, int], None]  # bytes of the plan that are done, files done, files broken


def write_shards(
    plan: Plan,
    out: str | Path,
    on_broken: Literal["skip", "stop"] = "skip",
    threads: int | None = None,
    report: Report | None = None,
) -> Manifest:
    """Writes the shards of a plan that are not there yet, then the index and the manifest.

    A shard is a tar file, uncompressed, with the files as they are under the names that they have in the
    folder (an array of clips as one .npy file for each). Its bytes depend on the files alone. It is written
    beside its place, brought to the disk, and renamed; then the same is done with its part of the index.

    Args:
        plan: what goes where.
        out: the folder to write to.
        on_broken: leave files that cannot be read out, or stop at the first.
        threads: that look at files, at a time; None: one for each processor.
        report: is called after each piece.

    Raises:
        UserError: no room, a broken file where none may be, no whole file at all, or a folder with the shards
            of other files or settings.
    """
    out = make_folder(out)
    if (out / FILE).is_file():
        made = read_manifest(out)
        if made.plan != plan.digest:
            raise UserError(_other(out))
        return made
    parts = _resume(out, plan)
    done = files = broken = 0
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for number, pieces in enumerate(plan.shards):
            part = parts / f"{number:06}.npz"
            if not part.is_file():
                with whole(out / name_of(number)) as partial, partial.open("wb") as file:
                    tape = _Tape(file, number)
                    for piece, content in _ahead(pool, plan, pieces):
                        tape.add(piece, content)
                        done, files = done + piece.size, files + 1
                        if isinstance(content, BrokenFileError):
                            broken += 1
                            if on_broken == "stop":
                                raise UserError(
                                    f"{content} in {plan.source}: remove the file, or set --on_broken skip"
                                )
                        if report is not None:
                            report(done, files, broken)
                    records = tape.close()
                    _sync(file)
                with whole(part) as partial, partial.open("wb") as file:
                    np.savez(file, **records)
                    _sync(file)
            else:
                done, files = done + sum(piece.size for piece in pieces), files + len(pieces)
                if report is not None:
                    report(done, files, broken)
    manifest = finish(out, parts, plan, [name_of(number) for number in range(len(plan.shards))])
    manifest.write(out)
    shutil.rmtree(parts)
    return manifest


def name_of(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:06}.tar"


def _other(out: Path) -> str:
    return f"{out} holds shards of other files or settings: choose another folder, or remove it"


def _resume(out: Path, plan: Plan) -> Path:
    """The folder with the parts of the index that are there; it belongs to this plan."""
    parts = out / UNFINISHED
    noted = parts / "plan"
    if noted.is_file():
        if noted.read_text() != plan.digest:
            raise UserError(_other(out))
        return parts
    if next(out.glob("shard-*.tar"), None) is not None:
        raise UserError(_other(out))
    make_folder(parts)
    with whole(noted) as partial, partial.open("w") as file:
        file.write(plan.digest)
        _sync(file)
    return parts


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _ahead(
    pool: ThreadPoolExecutor, plan: Plan, pieces: Iterable[Piece]
) -> Iterator[tuple[Piece, Content | BrokenFileError]]:
    """Pieces in order, while threads look at the next ones: a few, so that memory stays flat."""

    def attempt(piece: Piece) -> Content | BrokenFileError:
        try:
            return take_in(piece, plan.kind)
        except BrokenFileError as error:
            return error

    waiting: deque[tuple[Piece, Future[Content | BrokenFileError]]] = deque()
    for piece in pieces:
        waiting.append((piece, pool.submit(attempt, piece)))
        if len(waiting) > 4 * (os.cpu_count() or 1):
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


class _Tape:
    """A tar file that is being written, and what the index is to say of it.

    The headers are those of `tarfile`, without times and owners.
    """

    def __init__(self, file: BinaryIO, number: int) -> None:
        self.file, self.number, self.place = file, number, 0
        self.sha256 = hashlib.sha256()
        self.items: list[tuple[Any, ...]] = []
        self.clips: list[tuple[Any, ...]] = []
        self.names: list[bytes] = []
        self.groups: list[bytes] = []
        self.labels: list[str] = []
        self.times: list[bytes] = []
        self.broken: list[str] = []

    def _write(self, some: bytes) -> None:
        self.file.write(some)
        self.sha256.update(some)
        self.place += len(some)

    def add(self, piece: Piece, content: Content | BrokenFileError) -> None:
        listing = piece.listing
        if isinstance(content, BrokenFileError):
            self.broken.append(json.dumps([listing.name, str(content)]))
            return
        info = tarfile.TarInfo(content.member)
        info.size = content.size
        self._write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        offset, crc = self.place, 0
        assert isinstance(listing.path, Path)
        held = content.held
        for block in blocks(listing.path, piece.start, content.size) if held is None else [held]:
            self._write(block)
            crc = zlib.crc32(block, crc)
        self._write(bytes(-self.place % tarfile.BLOCKSIZE))
        split = -1 if listing.split is None else SPLITS.index(listing.split)
        self.names.append(os.fsencode(listing.name))
        self.groups.append(os.fsencode(listing.group))
        self.labels.append(listing.label or "")
        ends = len(self.names[-1]), len(self.groups[-1])  # lengths, until all are put together
        begins = piece.number == 0
        self.items.append((self.number, crc, offset, content.size, *ends, -1, split, begins))
        self._add_times(content)

    def _add_times(self, content: Content) -> None:
        timeline = content.timeline
        if timeline is None:
            self.clips.append((0.0, 0.0, 0, content.frames, 0, False))
            return
        seconds = timeline.seconds.astype("<f8")
        gap = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
        held = seconds.tobytes()
        if timeline.stamps is not None:
            held += timeline.stamps.astype("<i8").tobytes()
        self.times.append(held)
        stamped = timeline.stamps is not None
        self.clips.append((seconds[-1], gap, len(held), content.frames, zlib.crc32(held), stamped))

    def close(self) -> dict[str, Any]:
        """Ends the tar file; the arrays of this shard's part of the index."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.place % tarfile.RECORDSIZE))
        return {
            "size": self.place,
            "sha256": np.array(self.sha256.hexdigest()),
            "items": np.array(self.items, ITEM),
            "clips": np.array(self.clips, CLIP),
            "names": _joined(self.names),
            "groups": _joined(self.groups),
            "times": _joined(self.times),
            "labels": np.array(self.labels, dtype=np.str_),
            "broken": np.array(self.broken, dtype=np.str_),
        }


def _joined(parts: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(parts), np.uint8)
