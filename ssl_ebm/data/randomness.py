"""Random numbers that are a pure function of (seed, stream, index).

A generator object per item costs more than the item itself, and a shared one makes item i depend on who drew
before. So the numbers come from a counter: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014), evaluated for a whole batch of items at once.
"""

import hashlib
import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment: 2^64 / golden ratio, odd
_DOUBLE = 2.0**-53  # a double has 53 bits of mantissa
_ROUNDS = 4  # of `permuted`, each of two halves: four are enough to look random (Luby and Rackoff, 1988)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function: a bijection of 64-bit words whose bits all depend on all input bits."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@lru_cache(maxsize=1024)
def stream_key(seed: int, stream: str) -> int:
    """64-bit key of a named stream: two streams of one seed share nothing."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "little")


def stream_keys(seed: int, prefix: str, names: Iterable[bytes]) -> NDArray[np.uint64]:
    """(N,) `stream_key` of many streams: the prefix followed by each of the names."""
    begun = hashlib.sha256(f"{seed}/{prefix}".encode())
    keys = bytearray()
    for name in names:
        digest = begun.copy()
        digest.update(name)
        keys += digest.digest()[:8]
    return np.frombuffer(keys, "<u8").astype(np.uint64, copy=False)


def uniforms(seed: int, stream: str, index: ArrayLike, draws: int) -> NDArray[np.float64]:
    """`draws` numbers uniform in [0, 1) for each index.

    Args:
        seed: any integer.
        stream: name of what is drawn, for instance "train/motion".
        index: (N,) non-negative integers.
        draws: numbers per index. The first n numbers do not depend on how many are asked for.

    Returns:
        (N, draws) float64.
    """
    counter = np.atleast_1d(np.asarray(index, dtype=np.uint64))
    start = _mix(counter * _GOLDEN + np.uint64(stream_key(seed, stream)))  # (N,)
    steps = np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN  # (draws,)
    return (_mix(start[:, None] + steps) >> np.uint64(11)).astype(np.float64) * _DOUBLE


def permuted(key: int, count: int, place: ArrayLike) -> NDArray[np.int64]:
    """Where a pseudo-random permutation of 0..count - 1 takes some places, without the memory for a table.

    A Feistel cipher of pairs (left, right) in Z_a x Z_b, where ab is the least such product with
    a = ceil(sqrt(count)) that is no less than count; what comes to lie beyond count is enciphered once more
    (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).

    Args:
        key: 64 bits, of the permutation.
        count: at least 1.
        place: (N,) integers in 0..count - 1.

    Returns:
        (N,) int64.
    """
    a = math.isqrt(count - 1) + 1
    b = -(-count // a)
    found = np.atleast_1d(np.asarray(place, np.uint64)).copy()
    rounds = _mix(np.uint64(key) + np.arange(1, 2 * _ROUNDS + 1, dtype=np.uint64) * _GOLDEN)  # their keys
    walking = np.arange(len(found))
    while len(walking):
        left, right = found[walking] % np.uint64(a), found[walking] // np.uint64(a)
        for one, other in rounds.reshape(-1, 2):
            left = (left + _mix(right * _GOLDEN + one) % np.uint64(a)) % np.uint64(a)
            right = (right + _mix(left * _GOLDEN + other) % np.uint64(b)) % np.uint64(b)
        found[walking] = left + np.uint64(a) * right
        walking = walking[found[walking] >= count]
    return found.astype(np.int64)


def integers(uniform: NDArray[np.float64], low: int, high: int) -> NDArray[np.int64]:
    """Uniform integers in low..high, both included, from uniform numbers in [0, 1)."""
    return low + np.floor(uniform * (high - low + 1)).astype(np.int64)
