"""Random damage to bytes, and to settings."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import yaml

EDGE = 256  # bytes at the begin and the end of a file, where headers and tables are
BLOCK = 64  # bytes of a block, at most
HUGE = (
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\0",
    b"\xff" * 8,
    b"\x80\0\0\0",
)

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 1000, 2**31, -(2**31), 2**63, 10**30, 10**4000),
    *(0.5, -0.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf")),
    *("", " ", "null", "nan", "-1", "1e309", "0x10", "{}", "[", "a" * 10_000),
    *("\0", "naïve ☃ \u202e", "\ud800"),
    *("%s %d {0}", "../..", "/dev/full", "/", "a\nb", "<script>", "2026-13-45"),
    *("torch.nn.Linear", "os.system", "ssl_ebm", "ssl_ebm.tasks.NoSuchTask", b"bytes"),
    *([], {}, [[]], [1, "a", None], {"a": {"b": {}}}, {1: 2}, {"class_path": 3}, {"init_args": {}}),
    *({"class_path": "ssl_ebm.tasks.Inpainting"}, {"class_path": "torch.nn.Linear", "init_args": {}}),
]


def place(size: int, rng: random.Random) -> int:
    """Where to damage a file: anywhere, or near an end of it."""
    if size <= 1:
        return 0
    where = rng.random()
    if where < 0.35:
        return rng.randrange(min(EDGE, size))
    return size - 1 - rng.randrange(min(EDGE, size)) if where < 0.5 else rng.randrange(size)


def _flip(data: bytearray, at: int, rng: random.Random) -> None:
    if data:
        data[at] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, at: int, rng: random.Random) -> None:
    del data[at:]


def _delete(data: bytearray, at: int, rng: random.Random) -> None:
    del data[at : at + rng.randint(1, BLOCK)]


def _insert(data: bytearray, at: int, rng: random.Random) -> None:
    data[at:at] = rng.randbytes(rng.randint(1, BLOCK))


def _overwrite(data: bytearray, at: int, rng: random.Random) -> None:
    new = rng.choice([rng.choice(HUGE), rng.randbytes(rng.randint(1, BLOCK))])
    data[at : at + len(new)] = new


def _duplicate(data: bytearray, at: int, rng: random.Random) -> None:
    data[at:at] = data[at : at + rng.choice((1, 4, BLOCK, 1000))] * rng.choice((1, 2, 20))


def _move(data: bytearray, at: int, rng: random.Random) -> None:
    block = data[at : at + BLOCK]
    del data[at : at + BLOCK]
    to = place(len(data), rng)
    data[to:to] = block


CUT = _cut
WAYS: list[Callable[[bytearray, int, random.Random], None]] = [
    _flip, _flip, _cut, _delete, _insert, _overwrite, _overwrite, _duplicate, _move
]  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """The bytes with one to four damages, and whether they were cut off and nothing else."""
    made = bytearray(data)
    ways = rng.choices(WAYS, k=rng.choice((1, 1, 1, 2, 4)))
    for way in ways:
        way(made, place(len(made), rng), rng)
    return bytes(made), ways == [CUT]


Path = tuple[Any, ...]


def places_of(tree: Any, here: Path = ()) -> Iterator[Path]:
    """The path to each value inside."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*here, key)
        yield from places_of(value, (*here, key))


def _parent(tree: Any, path: Path) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree


def changed(tree: Any, rng: random.Random) -> Any:
    """Settings, nested dictionaries and lists, with one to three values of them changed."""
    made = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        paths = list(places_of(made))
        if not paths:
            return rng.choice(VALUES)
        path = rng.choice(paths)
        holder, key = _parent(made, path), path[-1]
        way = rng.random()
        if way < 0.6:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        elif way < 0.7:
            other = rng.choice(paths)
            holder[key] = copy.deepcopy(_parent(made, other)[other[-1]])
        elif way < 0.8:
            del holder[key]
        elif way < 0.87 and isinstance(holder, dict):
            holder[rng.choice(("", "x", "class_path", "init_args", str(key) + "s"))] = holder.pop(key)
        elif way < 0.94 and isinstance(holder[key], int | float):
            factor = rng.choice((-1, 10**6, 0.5))
            with contextlib.suppress(OverflowError):  # of a number that no float holds
                holder[key] = holder[key] * factor
        else:
            for _ in range(rng.choice((1, 50))):
                holder[key] = rng.choice(([holder[key]], {"init_args": holder[key]}))
    return made


def yaml_of(tree: Any, rng: random.Random) -> bytes:
    """As a file, which may be no YAML, or a bomb of it."""
    way = rng.random()
    if way < 0.02:
        return b"model: " + b"[" * rng.choice((100, 3000, 50_000))
    if way < 0.04:
        return b"data: " + b"{a: " * rng.choice((100, 3000)) + b"1" + b"}" * 3000
    if way < 0.06:  # each line doubles ten times what the one before it means
        lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
        return ("\n".join(lines) + "\nmodel: *a11\n").encode()
    if way < 0.07:
        return b"model: &m {class_path: *m, init_args: {a: *m}}\n"
    try:
        text = yaml.safe_dump(changed(tree, rng) if way < 0.75 else tree, allow_unicode=True)
    except (yaml.YAMLError, ValueError, RecursionError):  # what YAML cannot hold
        text = str(tree)
    raw = text.encode("utf-8", "surrogatepass")
    return raw if way < 0.75 else damaged(raw, rng)[0]
