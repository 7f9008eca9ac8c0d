"""Files of records, against NumPy's own reading of them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ssl_ebm.data.shards.records import Records
from ssl_ebm.data.shards.tables import Rows
from ssl_ebm.errors import UserError

PAIR = np.dtype([("a", "<u4"), ("b", "<f8")])


@pytest.mark.parametrize("count", [1, 5, 20_000])
def test_records_are_those_of_the_file(tmp_path: Path, count: int) -> None:
    content = np.zeros(count, PAIR)
    content["a"], content["b"] = np.arange(count), np.arange(count) / 3
    path = tmp_path / "pairs.bin"
    path.write_bytes(content.tobytes() + b"more")  # the rest of a record is none
    for records in (Records(path, PAIR), pickle.loads(pickle.dumps(Records(path, PAIR)))):
        assert len(records) == count
        assert records[count - 1] == content[-1]
        assert (records.some(1, count + 9) == content[1:]).all()
        assert (np.concatenate(list(records.blocks())) == content).all()
        assert (records.column("b") == content["b"]).all()
        for row in (-1, count):
            with pytest.raises(IndexError):
                records[row]


def test_no_file_and_an_empty_one_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("none", "empty"):
        records = Records(tmp_path / name, PAIR)
        assert len(records) == len(records.some(0, 5)) == len(records.column("a")) == 0
        assert list(records.blocks()) == []


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.bin"
    np.ones(100, PAIR).tofile(path)
    records = Records(path, PAIR)
    os.truncate(path, 50 * PAIR.itemsize)
    assert records[49]["a"] == 1
    with pytest.raises(UserError, match=r"pairs\.bin was cut off"):
        records[50]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 4096, 4097, 50_001])
def test_rows_are_those_that_were_chosen(count: int, share: float) -> None:
    chosen = np.random.default_rng(0).random(count) < share
    rows, expected = Rows(np.packbits(chosen)), np.flatnonzero(chosen)
    assert len(rows) == len(expected)
    assert (np.asarray(rows) == expected).all()
    for place in range(0, len(expected), max(1, len(expected) // 200)):
        assert rows[place] == expected[place]
    for start, stop in ((0, 0), (0, 1), (3, 700), (510, 513), (count // 4, count), (count, count + 5)):
        assert (rows.some(start, stop) == expected[start:stop]).all()
    for place in (-1, len(expected)):
        with pytest.raises(IndexError):
            rows[place]
