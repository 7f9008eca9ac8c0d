"""Writing shards: one after another, each whole or not there, so that a killed command goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from ssl_ebm.data.broken_files import check_share
from ssl_ebm.data.shards.intake import BrokenFileError, Content, take_in
from ssl_ebm.data.shards.manifest import FILE, UNFINISHED, Manifest, check_files, read_manifest
from ssl_ebm.data.shards.merging import finish
from ssl_ebm.data.shards.plan import Piece, Plan
from ssl_ebm.data.shards.tape import Tape
from ssl_ebm.errors import UserError
from ssl_ebm.files import make_folder, whole


@dataclass
class Progress:
    """How far the writing is.

    Attributes:
        files, bytes: of the plan that are done.
        written: bytes of these that this command has done, not one before that was broken off.
        broken: files that it left out.
    """

    files: int = 0
    bytes: int = 0
    written: int = 0
    broken: int = 0


def write_shards(
    plan: Plan,
    out: str | Path,
    on_broken: Literal["skip", "stop"] = "skip",
    threads: int | None = None,
    report: Callable[[Progress], None] | None = None,
    max_broken: float = 1.0,
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
        report: is called after each file.
        max_broken: largest share of the files, in (0, 1], that may be left out; with more the writing stops,
            and what is written stays for another command.

    Raises:
        UserError: no room, a broken file where none may be, or too many, no whole file at all, or a folder
            with the shards of other files or settings.
    """
    out = make_folder(out)
    if (out / FILE).is_file():
        made = _made_before(out, plan)
        check_share(len(made.broken), plan.files, made.broken, max_broken, plan.source)
        return made
    parts = _resume(out, plan)
    at = Progress()
    left_out: dict[str, str] = {}
    report = report or (lambda _: None)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for number, (share, pieces) in enumerate(zip(plan.shares, plan.shards(out), strict=True)):
            target, part = out / name_of(number), parts / f"{number:06}.npz"
            if _is_there(target, part):
                for _ in pieces:
                    pass
                left_out |= _left_out(part)
                check_share(len(left_out), plan.files, left_out.values(), max_broken, plan.source)
                at.files += share.pieces
                at.bytes += share.size
                report(at)
                continue
            with _synced(target) as file:
                tape = Tape(file, number)
                for piece, content in _ahead(pool, plan, pieces):
                    if isinstance(content, BrokenFileError):
                        at.broken += 1
                        left_out[piece.listing.name] = str(content)
                        if on_broken == "stop":
                            raise UserError(
                                f"{content} in {plan.source}: remove the file, or set --on_broken skip"
                            )
                        check_share(len(left_out), plan.files, left_out.values(), max_broken, plan.source)
                    tape.add(piece, content)
                    at.files += 1
                    at.bytes += piece.size
                    at.written += piece.size
                    report(at)
                records = tape.close()
            with _synced(part) as file:
                np.savez(file, **records)
    manifest = finish(out, parts, plan, [name_of(number) for number in range(len(plan.shares))])
    if on_broken == "stop" and manifest.broken:  # which an earlier command left out
        raise UserError(f"{manifest.broken[0]} in {plan.source}: remove the file and {out}, and run it again")
    manifest.write(out)
    shutil.rmtree(parts)
    return manifest


def _made_before(out: Path, plan: Plan) -> Manifest:
    made = read_manifest(out)
    if made.plan != plan.digest:
        raise UserError(_other(out))
    try:
        check_files(out, made)
    except UserError as error:
        raise UserError(f"{error}; remove {out} first") from error
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)  # of a command that was killed in its last moment
    return made


def _is_there(shard: Path, part: Path) -> bool:
    """Whether a shard and its part of the index are whole. (After a power failure one may be there alone.)"""
    if not (shard.is_file() and part.is_file()):
        return False
    try:
        with np.load(part, allow_pickle=False) as records:
            return int(records["size"]) == shard.stat().st_size
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def _left_out(part: Path) -> dict[str, str]:
    """Names of the files that a shard leaves out, and why."""
    with np.load(part, allow_pickle=False) as records:
        return dict(json.loads(str(one)) for one in records["broken"])


@contextlib.contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is brought to the disk before it takes its name."""
    with whole(path) as partial, partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


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
    with _synced(noted) as file:
        file.write(plan.digest.encode())
    return parts


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
